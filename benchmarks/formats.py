"""Measures each format against its library, called by hand, in turns.

python benchmarks/formats.py
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any

import fastavro
import msgspec
from google.protobuf.struct_pb2 import Struct

from streamkit.formats import Avro, CsvLine, Json, MessagePack, Protobuf
from streamkit.formats.avro_types import schema_of
from streamkit.serde.binding import Usage

Call = Callable[[Any], Any]


class Item(msgspec.Struct):
    sku: str
    count: int
    price: float


class Order(msgspec.Struct):
    id: int
    customer: str
    at: datetime
    note: str | None
    items: list[Item]
    tags: dict[str, str]


class Row(msgspec.Struct):
    id: int
    customer: str
    price: float
    at: datetime
    note: str | None


_AT = datetime(2013, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
ORDER = Order(5, "ann", _AT, None, [Item("a", 1, 2.5), Item("b", 3, 1.5)], {"x": "y"})
ROW = Row(5, "ann", 2.5, _AT, None)


def main(*, calls: int = 5_000, rounds: int = 20) -> list[str]:
    """Measure each format; return a line for each."""
    lines = []
    for form, value, dumps, loads in _formats():
        ours = form.for_use(Usage(type(value), "orders", is_written=True))
        data = ours.dumps(value)
        assert ours.loads(data) == loads(data) == value
        assert loads(dumps(value)) == value
        for name, one, other, given in (
            ("dumps", ours.dumps, dumps, value),
            ("loads", ours.loads, loads, data),
        ):
            mine, hand = in_turns(one, other, given, calls, rounds)
            title = f"{type(form).__name__} {name}"
            lines.append(f"{title:<20} {mine:6.2f} us, by hand {hand:6.2f} us: {mine / hand:4.2f}x")
    return lines


def _formats() -> list[tuple[Any, Any, Call, Call]]:
    message = Struct()
    message.update({"id": 5.0, "customer": "ann"})
    schema = fastavro.parse_schema(schema_of(Order))
    names = Row.__struct_fields__

    def avro_dumps(order: Order) -> bytes:
        stream = io.BytesIO()
        datum = msgspec.to_builtins(order, builtin_types=(datetime,))
        fastavro.schemaless_writer(stream, schema, datum)
        return stream.getvalue()

    def avro_loads(data: bytes) -> Order:
        datum = fastavro.schemaless_reader(io.BytesIO(data), schema, None)
        return msgspec.convert(datum, Order)

    def csv_dumps(row: Row) -> bytes:
        stream = io.StringIO()
        csv.writer(stream).writerow(msgspec.structs.astuple(row))
        return stream.getvalue().encode()

    def csv_loads(data: bytes) -> Row:
        cells = next(csv.reader([data.decode()]))
        given = {name: cell or None for name, cell in zip(names, cells, strict=True)}
        return msgspec.convert(given, Row, strict=False)

    return [
        (Json(), ORDER, msgspec.json.Encoder().encode, msgspec.json.Decoder(Order).decode),
        (
            MessagePack(),
            ORDER,
            msgspec.msgpack.Encoder().encode,
            msgspec.msgpack.Decoder(Order).decode,
        ),
        (Avro(), ORDER, avro_dumps, avro_loads),
        (Protobuf(), message, Struct.SerializeToString, Struct.FromString),
        (CsvLine(), ROW, csv_dumps, csv_loads),
    ]


def in_turns(one: Call, other: Call, given: Any, calls: int, rounds: int) -> tuple[float, float]:
    """Return the times of two functions in us, each the best of some rounds."""
    times = [(_us(one, given, calls), _us(other, given, calls)) for _ in range(rounds)]
    return min(each[0] for each in times), min(each[1] for each in times)


def _us(call: Call, given: Any, calls: int) -> float:
    start = perf_counter_ns()
    for _ in range(calls):
        call(given)
    return (perf_counter_ns() - start) / calls / 1_000


if __name__ == "__main__":
    print("\n".join(main()))
