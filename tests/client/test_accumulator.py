"""Records are put into batches: each row into one batch, in order, and no batch is too large."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.client.produce.accumulator import Accumulator, BatchOutcome, ReadyBatch
from streamkit.errors import DataError, RecordTooLarge
from streamkit.protocol.batch import OVERHEAD_BYTES, Columns, decode_batch, read_batch_header
from streamkit.protocol.codec import record_bytes
from streamkit.protocol.compression import Codec

Row = tuple[bytes, bytes | None, int]

BATCH_BYTES = 200
REQUEST_BYTES = 400
TIMES_MS = st.one_of(
    st.integers(1, 1_000), st.sampled_from([1, 2**31, 2**32, 2**33, 1_700_000_000_000])
)
ROWS = st.tuples(st.integers(0, 420).map(bytes), st.none() | st.binary(max_size=20), TIMES_MS)
Step = tuple[str, list[Row]]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("add"), st.lists(ROWS, min_size=1, max_size=1)),
    st.tuples(st.just("add_rows"), st.lists(ROWS, min_size=1, max_size=12)),
    st.tuples(st.just("close"), st.just([])),
    st.tuples(st.just("take"), st.just([])),
)


def needs_bytes(row: Row) -> int:
    value, key, _ = row
    return OVERHEAD_BYTES + record_bytes(0, 0, key, value)


@dataclass
class Run:
    """An accumulator, the rows that were added, and the rows that came out."""

    request_bytes: int = REQUEST_BYTES
    accumulator: Accumulator = field(init=False)
    rows: list[Row] = field(default_factory=list)
    places: list[tuple[BatchOutcome, int]] = field(default_factory=list)
    taken: list[ReadyBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accumulator = Accumulator(
            batch_bytes=BATCH_BYTES,
            request_bytes=self.request_bytes,
            codec_used=Codec.NONE,
            now_s=lambda: 0.0,
            on_change=lambda: None,
        )

    def step(self, name: str, rows: list[Row]) -> None:
        match name:
            case "add":
                self._add(rows[0])
            case "add_rows":
                self._add_rows(rows)
            case "close":
                self.accumulator.close_batch()
            case "take" if self.accumulator.ready:
                taken = self.accumulator.take(1_000)
                assert len(taken) == 1 or sum(len(batch.data) for batch in taken) <= 1_000
                self.taken += taken

    def end(self) -> None:
        self.accumulator.close_batch()
        while self.accumulator.ready:
            self.taken += self.accumulator.take(1_000)
        assert self.accumulator.is_empty

    def _add(self, row: Row) -> None:
        value, key, time_ms = row
        try:
            self.places.append(self.accumulator.add(value, key, time_ms))
        except RecordTooLarge:
            assert needs_bytes(row) > self.request_bytes
            return
        assert needs_bytes(row) <= self.request_bytes
        self.rows.append(row)

    def _add_rows(self, rows: list[Row]) -> None:
        values, keys, times_ms = map(list, zip(*rows, strict=True))
        before = (self.accumulator.held_bytes, len(self.accumulator.ready))
        try:
            places = self.accumulator.add_rows(Columns(values, keys, times_ms))
        except RecordTooLarge:
            assert any(needs_bytes(row) > self.request_bytes for row in rows)
            assert before == (self.accumulator.held_bytes, len(self.accumulator.ready))
            return
        assert all(needs_bytes(row) <= self.request_bytes for row in rows)
        self.rows += rows
        for place in places:
            self.places += [
                (place.outcome, place.first_row + number) for number in range(place.count)
            ]


def rows_of(batch: ReadyBatch) -> list[Row]:
    columns = decode_batch(batch.data, 0, read_batch_header(batch.data))
    return list(zip(columns.values, columns.keys, columns.timestamps_ms, strict=True))


@given(st.lists(STEPS, max_size=30))
def test_every_row_is_sent_once_and_in_order(steps: list[tuple[str, list[Row]]]) -> None:
    run = Run()
    for name, rows in steps:
        run.step(name, rows)
    run.end()
    assert [row for batch in run.taken for row in rows_of(batch)] == run.rows


@given(st.lists(STEPS, max_size=30))
def test_only_a_single_large_record_makes_a_batch_larger_than_the_limit(
    steps: list[tuple[str, list[Row]]],
) -> None:
    run = Run()
    for name, rows in steps:
        run.step(name, rows)
    run.end()
    for batch in run.taken:
        # OVERHEAD_BYTES counts four bytes more than the header has on the wire.
        assert len(batch.data) == OVERHEAD_BYTES + batch.plain_bytes
        assert len(batch.data) <= BATCH_BYTES or batch.record_count == 1
        assert len(batch.data) <= REQUEST_BYTES


@given(st.lists(STEPS, max_size=30))
def test_each_row_gets_its_offset(steps: list[tuple[str, list[Row]]]) -> None:
    run = Run()
    for name, rows in steps:
        run.step(name, rows)
    run.end()
    offset = 0
    for batch in run.taken:
        batch.outcome.settle(offset, None)
        offset += batch.record_count
    assert [outcome.base_offset + row for outcome, row in run.places] == list(range(len(run.rows)))


@given(st.lists(STEPS, max_size=30))
def test_bytes_of_a_batch_are_counted_until_it_is_settled(
    steps: list[tuple[str, list[Row]]],
) -> None:
    run = Run()
    for name, rows in steps:
        run.step(name, rows)
    run.end()
    assert run.accumulator.held_bytes == sum(batch.plain_bytes for batch in run.taken)
    run.accumulator.settled(run.taken)
    assert run.accumulator.held_bytes == 0


@given(st.lists(ROWS, min_size=1, max_size=40), st.data())
def test_columns_and_single_records_make_the_same_batches(
    rows: list[Row], data: st.DataObject
) -> None:
    fitting = [row for row in rows if needs_bytes(row) <= REQUEST_BYTES]
    cut = data.draw(st.integers(0, len(fitting)))
    singles, columns = Run(), Run()
    for row in fitting:
        singles.step("add", [row])
    for part in (fitting[:cut], fitting[cut:]):
        if part:
            columns.step("add_rows", part)
    singles.end()
    columns.end()
    assert [batch.data for batch in singles.taken] == [batch.data for batch in columns.taken]


def test_a_batch_is_never_larger_than_max_request_size() -> None:
    run = Run(request_bytes=120)
    for _ in range(10):
        run.step("add", [(bytes(20), None, 1)])
    run.end()
    assert all(len(batch.data) <= 120 for batch in run.taken)
    assert max(batch.record_count for batch in run.taken) == 2


def test_the_row_that_is_too_large_is_reported() -> None:
    accumulator = Run().accumulator
    with pytest.raises(RecordTooLarge, match=r"row 1.*max_request_size is 400"):
        accumulator.add_rows(Columns([b"", bytes(500)], [None, None], [1, 1]))
    assert accumulator.is_empty


def test_only_a_batch_that_cannot_be_encoded_fails() -> None:
    run = Run()
    before, _ = run.accumulator.add(b"before", None, 1)
    run.accumulator.close_batch()
    broken, _ = run.accumulator.add(b"broken", None, 2**63)
    run.accumulator.close_batch()
    after, _ = run.accumulator.add(b"after", None, 1)
    run.accumulator.close_batch()
    taken = [run.accumulator.take(1 << 20) for _ in range(3)]
    assert [[batch.outcome for batch in batches] for batches in taken] == [
        [before],
        [broken],
        [after],
    ]
    assert [batches[0].error is None for batches in taken] == [True, False, True]
    assert isinstance(taken[1][0].error, DataError)
