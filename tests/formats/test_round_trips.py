"""What a format writes, it reads; other bytes are refused with `DataError`."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streamkit.errors import DataError
from streamkit.formats import Avro, CsvLine, Json, MessagePack, Protobuf, Raw, Text
from tests.formats.messages import Customer, Money, Order
from tests.formats.samples import (
    FLATS,
    FORMATS,
    INT64,
    TEXT,
    WIDE,
    Flat,
    Nested,
    Tree,
    Wide,
    one_flat,
    same,
)

FEW = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
NAMES = [f"{form.__name__}-{kind}"[:60] for form, kind, _ in FORMATS]
ORDERS = st.builds(
    Order,
    id=INT64,
    customer=TEXT,
    total=st.builds(Money, cents=INT64),
    tags=st.dictionaries(TEXT, INT64, max_size=3),
    color=st.sampled_from([0, 1]),
    weight=st.floats(allow_nan=False),
)


@pytest.mark.parametrize(("form", "kind", "values"), FORMATS, ids=NAMES)
def test_a_value_can_be_read_back(form: Any, kind: Any, values: st.SearchStrategy[Any]) -> None:
    one, other = form(kind), form(kind)

    @FEW
    @given(values)
    def check(value: Any) -> None:
        data = one.dumps(value)
        assert type(data) is bytes
        assert other.loads(data) == value

    check()


@FEW
@given(ORDERS)
def test_a_message_can_be_read_back(order: Any) -> None:
    form = Protobuf(Order)
    assert form.loads(form.dumps(order)) == order


@FEW
@given(st.text(st.characters(codec="latin-1")))
def test_text_and_bytes_can_be_read_back(text: str) -> None:
    form = Text("latin-1")
    assert form.loads(form.dumps(text)) == text
    assert form.dumps(text) == text.encode("latin-1")
    assert Raw().loads(Raw().dumps(text.encode())) == text.encode()


@pytest.mark.parametrize("form", [Avro, Json, MessagePack])
@FEW
@given(value=WIDE)
def test_a_large_value_can_be_read_back(form: Any, value: Wide) -> None:
    made = form(Wide)
    large = Wide(value.names * 20, value.counts)
    assert made.loads(made.dumps(large)) == large


@pytest.mark.parametrize("form", [Avro, MessagePack, CsvLine])
@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), float("-inf")])
def test_floats_that_json_does_not_have_can_be_read_back(form: Any, ratio: float) -> None:
    value = one_flat(ratio)
    made = form(Flat)
    assert same(made.loads(made.dumps(value)).ratio, ratio)


@pytest.mark.parametrize("text", ["", " ", "a,b", 'a"b', "a\nb", "\r", '"', '""', "null", "5", "ä"])
def test_every_text_fits_into_a_cell_of_csv(text: str) -> None:
    value = one_flat(1.0)
    value.text = value.maybe_text = text
    assert CsvLine(Flat).loads(CsvLine(Flat).dumps(value)) == value
    assert CsvLine(Flat, delimiter="\t").loads(CsvLine(Flat, delimiter="\t").dumps(value)) == value


# --- garbage -----------------------------------------------------------------------

GARBAGE: list[Any] = [
    *(form(kind) for form in (Avro, Json, MessagePack) for kind in (Flat, Nested, Tree, list[int])),
    CsvLine(Flat),
    Protobuf(Order),
    Protobuf(Customer),
    Text("ascii"),
]


@pytest.mark.parametrize(
    "form", GARBAGE, ids=lambda each: f"{type(each).__name__}-{each.type}"[:60]
)
def test_other_bytes_are_a_value_or_a_data_error(form: Any) -> None:
    @settings(FEW, max_examples=300)
    @given(st.binary(max_size=200))
    def check(data: bytes) -> None:
        with contextlib.suppress(DataError):
            form.loads(data)

    check()


@pytest.mark.parametrize("form", [Avro, Json, MessagePack, CsvLine])
@FEW
@given(value=FLATS, data=st.data())
def test_a_changed_value_is_another_value_or_a_data_error(
    form: Any, value: Flat, data: st.DataObject
) -> None:
    stored = bytearray(form(Flat).dumps(value))
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        form(Flat).loads(bytes(stored))


@pytest.mark.parametrize("form", [Avro, Json, MessagePack, CsvLine])
@FEW
@given(value=FLATS, data=st.data())
def test_a_truncated_value_is_refused(form: Any, value: Flat, data: st.DataObject) -> None:
    value.maybe_day = value.day  # so that the last cell of a line of CSV is not optional
    stored = form(Flat).dumps(value)
    size = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(DataError, match=r"not valid .* for Flat"):
        form(Flat).loads(stored[:size])


@pytest.mark.parametrize("form", [Avro, Json, MessagePack, CsvLine])
@FEW
@given(value=FLATS, rest=st.binary(min_size=1))
def test_trailing_bytes_are_refused(form: Any, value: Flat, rest: bytes) -> None:
    # JSON may end with white space, and a line of CSV with its line break.
    stored = form(Flat).dumps(value) + b"," + rest
    with pytest.raises(DataError):
        form(Flat).loads(stored)
