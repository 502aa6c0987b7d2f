"""Errors say what is wrong with bytes, values, types and options."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from streamkit.errors import DataError, TopologyError, UsageError
from streamkit.formats import (
    Avro,
    CsvLine,
    Json,
    MessagePack,
    Protobuf,
    Raw,
    SchemaRegistry,
    Text,
)
from tests.formats.messages import Customer, Money, Order
from tests.formats.samples import Flat, Nested, Price


class Row(msgspec.Struct):
    id: int
    name: str


ROW = Row(5, "ann")
AVRO_ROW = Avro(Row).dumps(ROW)
MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
FLOAT = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "float"}]}


@pytest.mark.parametrize(
    ("form", "data", "words"),
    [
        (Json(Row), b'{"id": 5', "truncated"),
        (Json(Row), b'{"id": 5}', "missing required field `name`"),
        (Json(Row), b'{"id": "5", "name": ""}', "Expected `int`, got `str` - at `$.id`"),
        (Json(Row), b'{"id": 5, "name": "x"}}', "trailing characters"),
        (Json(str), b'"\xff"', "Invalid UTF-8"),
        (Json(), b"", "truncated"),
        (Json(), b"[" * 100_000, "nested too deeply"),
        (MessagePack(Row), b"\x82\xa2id", "truncated"),
        (MessagePack(Row), b"\x80", "missing required field `id`"),
        (MessagePack(Row), MessagePack().dumps({"id": 5, "name": "x"}) + b"x", "trailing"),
        (MessagePack(), b"\x91" * 100_000, "nested too deeply"),
        (CsvLine(Row), b"5", "1 cells instead of 2"),
        (CsvLine(Row), b"5,a,b", "3 cells instead of 2"),
        (CsvLine(Row), b"x,a", "Expected `int`, got `str` - at `$.id`"),
        (CsvLine(Row), b",a", "Expected `int`, got `null` - at `$.id`"),
        (CsvLine(Row), b'5,"a', "quotes"),
        (CsvLine(Row), b'5,"a"b', "quotes"),
        (CsvLine(Row), b"5,a\n6,b", "several lines"),
        (CsvLine(Row), b"5,\xff", "not utf-8 text"),
        (Avro(Row), b"", "truncated"),
        (Avro(Row), AVRO_ROW[:-1], "truncated"),
        (Avro(Row), AVRO_ROW + b"\0\1", "trailing bytes after the value: 00 01"),
        (Avro(str), b"\x02\xff", "not utf-8 text"),
        (Avro(str | None), b"\x08", "number of a branch"),
        (Avro(datetime), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "out of range"),
        (Protobuf(Order), b"\xff", "Error parsing message"),
        (Protobuf(Customer), b"\x0a\x02\xff\xff", "Error parsing message"),
        (Text(), b"a\xff", "not utf-8 text: invalid start byte at byte 1"),
        (Text("ascii"), b"\xe4", "not ascii text"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_value_are_refused(form: Any, data: bytes, words: str) -> None:
    with pytest.raises(DataError) as caught:
        form.loads(data)
    assert "not valid" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("depth", [500, 10_000, 1_000_000])
def test_a_deeply_nested_value_of_avro_is_refused(depth: int) -> None:
    schema = {
        "type": "record",
        "name": "Link",
        "fields": [{"name": "next", "type": ["null", "Link"]}],
    }
    with pytest.raises(DataError, match="nested too deeply"):
        Avro(schema=schema).loads(b"\x02" * depth + b"\x00")
    assert Avro(schema=schema).loads(b"\x02\x02\x00") == {"next": {"next": {"next": None}}}


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "fixed", "name": "F", "size": 0},
        {"type": "record", "name": "E", "fields": [{"name": "x", "type": "null"}]},
    ],
)
def test_a_schema_whose_values_can_fill_the_memory_is_refused(items: Any) -> None:
    with pytest.raises(UsageError, match="could fill the memory"):
        Avro(schema={"type": "array", "items": items}).loads(b"\x80\x80\x80\x80\x80\x10\x00")


@pytest.mark.parametrize(
    ("form", "value", "words"),
    [
        (Json(Row), object(), "type 'object'"),
        (Json(float), float("nan"), "NaN"),
        (Json(), [{"x": float("inf")}], "at [0]['x']"),
        (Json(str), "\ud800", "surrogate"),
        (MessagePack(), 2**64, "cannot be written as MessagePack"),
        (CsvLine(Row), {"id": 5}, "no attribute 'id'"),
        (CsvLine(Row), Row(5, "\ud800"), "surrogate"),
        (Text(), 5, "the value is int, not str"),
        (Text("ascii"), "ä", "ordinal not in range"),
        (Raw(), "text", "the value is str, not bytes"),
        (Protobuf(Order), Money(), "the value is Money, not Order"),
        (Protobuf(Order), b"", "the value is bytes, not Order"),
        (Avro(Row), {"id": 5}, "no value and no default for name"),
        (Avro(Row), Row(1.5, "x"), "1.5 is not a whole number - at `$.id`"),  # type: ignore[arg-type]
        (Avro(Row), Row(True, "x"), "True is not a whole number"),
        (Avro(Row), Row(2**63, "x"), "too large"),
        (Avro(Row), Row(5, 5), "must be string"),  # type: ignore[arg-type]
        (Avro(schema="int"), 2**31, "does not fit into 32 bits"),
        (Avro(schema="boolean"), 5, "not a boolean"),
        (Avro(schema="boolean"), None, "not a boolean"),
        (Avro(schema="null"), 5, "not null"),
        (Avro(schema=FLOAT), {"x": 1e300}, "does not fit into a float of 32 bits - at `$.x`"),
        (Avro(schema="double"), 2**53 + 1, "not a floating-point number"),
        (Avro(schema=FLOAT), {"x": 1.0, "y": 1}, "more fields than the schema specifies: y"),
        (Avro(schema=FLOAT), {}, "missing"),
        (Avro(schema=FLOAT), "x", "str is not a record"),
        (Avro(list[int]), [1, 1.5], "at `$[1]`"),
        (Avro(dict[str, int]), {"a": 1.5}, "at `$['a']`"),
        (Avro(datetime), datetime(2013, 1, 2), "has no time zone"),  # noqa: DTZ001
        (Avro(schema={"type": "long", "logicalType": "local-timestamp-millis"}),
         datetime(2013, 1, 2, tzinfo=UTC), "has a time zone"),
        (Avro(time), time(1, tzinfo=UTC), "has a time zone"),
        (Avro(date), datetime(2013, 1, 2, tzinfo=UTC), "is not a date"),
        (Avro(Price), Decimal("1.555"), "Scale"),
        (Avro(Price), Decimal("NaN"), "cannot be written as Avro"),
        (Avro(Price), Decimal(10**14), "precision"),
        (Avro(int | str), 1.5, "1.5 is not a whole number"),
        (Avro(schema=["int", "string", MOMENT]), datetime(2013, 1, 2), "has no time zone"),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_a_value_that_would_be_changed_is_refused(form: Any, value: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        form.dumps(value)
    assert words in str(caught.value)


class Loose(msgspec.Struct):
    anything: Any


class Plain:
    pass


class HasPlain(msgspec.Struct):
    plain: Plain


class Listed(msgspec.Struct, array_like=True):
    id: int


class Money2(msgspec.Struct):
    amount: Decimal


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Json(HasPlain).loads(b""), "Plain"),
        (lambda: MessagePack(HasPlain).loads(b""), "Plain"),
        (lambda: MessagePack(Row | Flat).loads(b""), "MessagePack cannot represent"),
        (lambda: CsvLine(int).loads(b""), "CsvLine cannot represent values of type int"),
        (lambda: CsvLine(Nested).loads(b""), "'flat_row' of Nested does not fit into one cell"),
        (lambda: CsvLine().loads(b""), "needs the type of a row"),
        (lambda: Avro(Loose).loads(b""), "Any in Loose has no Avro schema"),
        (lambda: Avro(HasPlain).loads(b""), "Plain in HasPlain has no Avro schema"),
        (lambda: Avro(Listed).loads(b""), "array_like"),
        (lambda: Avro(Money2).loads(b""), "Decimal in Money2 has no Avro schema"),
        (lambda: Avro().loads(b""), "Avro needs a schema or a type"),
        (lambda: Protobuf(Row).loads(b""), "Protobuf cannot represent values of Row"),
        (lambda: Protobuf().loads(b""), "an unknown type"),
    ],
)
def test_a_type_that_a_format_cannot_represent_is_refused(make: Any, words: str) -> None:
    with pytest.raises(TopologyError) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CsvLine(Row, delimiter=";;"), "delimiter"),
        (lambda: CsvLine(Row, delimiter='"'), "delimiter"),
        (lambda: Text("rot13"), "'rot13' is not a valid encoding"),
        (lambda: Text("nothing"), "'nothing' is not a valid encoding"),
        (lambda: Avro(schema="{", type=Row).loads(b""), "the Avro schema is not valid"),
        (lambda: Avro(schema={"type": "record"}).loads(b""), "the Avro schema is not valid"),
        (lambda: Avro(schema_file="missing.avsc").loads(b""), "missing.avsc cannot be used"),
        (lambda: Avro(schema="int", schema_file="x"), "either schema= or schema_file="),
        (lambda: Avro(writer_schema="int", registry=SchemaRegistry("http://x")), "no effect"),
        (lambda: SchemaRegistry("registry:8081"), "is not a valid url"),
        (lambda: SchemaRegistry("http://x", timeout=0), "timeout=0"),
        (lambda: SchemaRegistry("http://x", subject="other"), "subject='other'"),  # type: ignore[arg-type]
        (lambda: SchemaRegistry("http://x", auth=("u", "p")), "not a pair"),  # type: ignore[arg-type]
    ],
)
def test_an_option_that_is_not_valid_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("library", "program", "extra"),
    [
        ("fastavro", "formats.Avro(int)", "avro"),
        ("httpx2", "formats.SchemaRegistry('http://x')", "http"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library: str, program: str, extra: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_A_LIBRARY.format(library=library, program=program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"needs the library '{library}'" in done.stderr
    assert f"hint: install it: pip install 'fluvio-streamkit[{extra}]'" in done.stderr


_WITHOUT_A_LIBRARY = """
import sys
sys.modules["{library}"] = None
from streamkit import formats
formats.Json(int), formats.Protobuf(), formats.MessagePack(), formats.CsvLine()
{program}
"""
