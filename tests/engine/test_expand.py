"""Rows expanded from one row keep its key, timestamp and offset."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamkit.record import Chunk


@given(st.lists(st.lists(st.integers(), max_size=3), max_size=20))
def test_expanding_columns_equals_a_loop_over_rows(groups: list[list[int]]) -> None:
    count = len(groups)
    keys = [b"%d" % row for row in range(count)]
    chunk = Chunk([None] * count, keys, [10 * row for row in range(count)], range(5, 5 + count))
    expanded = chunk.expand(groups)
    rows = list(
        zip(
            expanded.values,
            expanded.keys,
            expanded.timestamps_ms,
            expanded.offsets,
            strict=True,
        )
    )
    assert rows == [
        (value, b"%d" % row, 10 * row, 5 + row)
        for row, group in enumerate(groups)
        for value in group
    ]
