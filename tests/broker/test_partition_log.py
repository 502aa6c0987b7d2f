"""The log of one partition, compared with a list of batches: any offset and size, tiny segments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streamkit.broker.batch_validation import Entry
from streamkit.broker.files import OpenFiles
from streamkit.broker.partition_log import LogEnd, PartitionLog, Slice
from streamkit.broker.recovery import open_partition
from streamkit.broker.segment import SparseIndex
from streamkit.env import Disk
from streamkit.limits import INDEX_INTERVAL_BYTES
from streamkit.protocol.batch import whole_batches
from streamkit.protocol.error_codes import ErrorCode, evicted, other
from tests.broker.running import batch_of

SEGMENT_BYTES = 1024


class LogSetup:
    """A log and the descriptors that its writer and its readers use."""

    def __init__(
        self, folder: Path, segment_bytes: int = SEGMENT_BYTES, files_max: int = 2
    ) -> None:
        self.disk = Disk()
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.writing = OpenFiles(self.disk, is_writer=True, files_max=files_max)
        self.reading = OpenFiles(self.disk, is_writer=False, files_max=files_max)
        self.log = self._new_log()
        self.log.create_first_segment(self.writing)

    def _new_log(self) -> PartitionLog:
        return PartitionLog(
            self.disk, self.folder / "0", topic="t", partition=0, segment_bytes=self.segment_bytes
        )

    def append(self, *batches: bytes) -> int:
        counts = tuple(next(whole_batches(batch))[0].record_count for batch in batches)
        sizes = tuple(map(len, batches))
        offset = self.log.append(Entry(b"".join(batches), sizes, counts), self.writing)
        self.log.synced(self.log.sync(self.writing))
        return offset

    def read(self, offset: int, max_bytes: int = -1) -> Slice | ErrorCode:
        return self.log.read(offset, max_bytes, self.reading)

    def open_again(self, known: LogEnd | None) -> None:
        self.close()
        self.log = self._new_log()
        open_partition(self.disk, self.log, known, self.writing)

    def close(self) -> None:
        self.writing.close()
        self.reading.close()


@contextmanager
def new_log(segment_bytes: int = SEGMENT_BYTES) -> Iterator[LogSetup]:
    with TemporaryDirectory() as folder:
        setup = LogSetup(Path(folder), segment_bytes)
        try:
            yield setup
        finally:
            setup.close()


class LogModel(RuleBasedStateMachine):
    """A log is a list of batches by base offset; the segment boundaries must not be visible."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.setup = LogSetup(Path(self.folder.name))
        self.batches: list[tuple[int, bytes]] = []
        self.end = 0

    def teardown(self) -> None:
        self.setup.close()
        self.folder.cleanup()

    @rule(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 500)), min_size=1, max_size=4))
    def append(self, sizes: list[tuple[int, int]]) -> None:
        batches = [batch_of(*[bytes(size // count)] * count) for count, size in sizes]
        assert self.setup.append(*batches) == self.end
        for (count, _), batch in zip(sizes, batches, strict=True):
            self.batches.append((self.end, batch[8:]))
            self.end += count

    @rule(is_known=st.booleans())
    def open_again(self, is_known: bool) -> None:
        self.setup.open_again(self.setup.log.durable if is_known else None)

    @rule(data=st.data(), max_bytes=st.sampled_from([1, 20, 57, 100, 700, 1024, 5000, -1]))
    def read(self, data: st.DataObject, max_bytes: int) -> None:
        offset = data.draw(st.integers(0, self.end))
        found = self.setup.read(offset, max_bytes)
        assert isinstance(found, Slice)
        if offset == self.end:
            assert found == Slice(b"", offset)
            return
        row = max(row for row, (base, _) in enumerate(self.batches) if base <= offset)
        got = [
            (header.base_offset, found.records[at + 8 : at + header.size_bytes])
            for header, at in whole_batches(found.records)
        ]
        assert got == self.batches[row : row + len(got)], "other batches"
        assert sum(len(batch) + 8 for _, batch in got) == len(found.records), "a batch is cut"
        assert got, "not even one batch"
        assert len(got) == 1 or max_bytes < 0 or len(found.records) <= max_bytes
        following = self.batches[row + len(got) :]
        assert found.next_offset == (following[0][0] if following else self.end)

    @rule(max_bytes=st.sampled_from([1, 300, -1]))
    def read_everything(self, max_bytes: int) -> None:
        offset, got = 0, b""
        while offset < self.end:
            found = self.setup.read(offset, max_bytes)
            assert isinstance(found, Slice)
            offset, got = found.next_offset, got + found.records
        expected = b"".join(base.to_bytes(8, "big") + batch for base, batch in self.batches)
        assert got == expected

    @rule(beyond=st.integers(1, 9))
    def read_outside(self, beyond: int) -> None:
        offset = self.end + beyond
        text = f"start offset: {offset} is greater than leo: {self.end}"
        assert self.setup.read(offset) == other(text)
        assert self.setup.read(-beyond) == evicted(-beyond, 0)

    @invariant()
    def segments_keep_their_size(self) -> None:
        bases = [segment.base_offset for segment in self.setup.log.segments]
        assert bases == sorted(set(bases))
        for segment in self.setup.log.segments:
            assert segment.size_bytes <= SEGMENT_BYTES
        assert self.setup.log.size_bytes == sum(len(batch) + 8 for _, batch in self.batches)


TestALogReturnsItsBatches = LogModel.TestCase
TestALogReturnsItsBatches.settings = settings(stateful_step_count=25)


def test_unsynced_records_cannot_be_read() -> None:
    with new_log() as setup:
        setup.append(batch_of(b"one"))
        two = batch_of(b"two")
        setup.log.append(Entry(two, (len(two),), (1,)), setup.writing)
        found = setup.read(0)
        assert isinstance(found, Slice)
        assert found.next_offset == 1
        assert setup.read(1) == Slice(b"", 1)
        setup.log.synced(setup.log.sync(setup.writing))
        assert setup.read(1) != Slice(b"", 1)


def test_a_read_of_zero_bytes_returns_no_records() -> None:
    with new_log() as setup:
        setup.append(batch_of(b"one"))
        assert setup.read(0, 0) == Slice(b"", 0)


def test_a_segment_is_filled_before_the_next_one_begins() -> None:
    batch = batch_of(b"x" * 500)
    with new_log(len(batch) * 2) as setup:
        for _ in range(3):
            setup.append(batch)
        assert [segment.base_offset for segment in setup.log.segments] == [0, 2]


@pytest.mark.parametrize("cut", ["one byte less", "half", "header only"])
def test_the_offset_of_an_incomplete_last_batch_is_used_again(cut: str) -> None:
    batch = batch_of(b"x" * 100)
    left = {"one byte less": len(batch) - 1, "half": len(batch) // 2, "header only": 57}[cut]
    with new_log() as setup:
        setup.append(batch)
        known = setup.log.durable
        setup.append(batch)
        path = setup.log.segments[-1].path
        path.write_bytes(path.read_bytes()[: len(batch) + left])
        setup.open_again(known)
        assert (setup.log.durable_end, setup.log.refusal) == (1, None)
        assert setup.append(batch_of(b"again")) == 1


def test_complete_batches_after_the_known_end_are_kept() -> None:
    with new_log() as setup:
        setup.append(batch_of(b"one"))
        known = setup.log.durable
        for _ in range(40):  # over several segments
            setup.append(batch_of(b"x" * 50))
        setup.open_again(known)
        assert setup.log.durable_end == 41


def test_a_segment_that_does_not_follow_the_one_before_it_is_removed() -> None:
    with new_log() as setup:
        setup.append(batch_of(b"zero"))
        known = setup.log.durable
        setup.append(batch_of(b"one"))
        stray = setup.log.segments[-1].path.with_name(f"{7:020d}.log")
        stray.write_bytes(batch_of(b"seven", base_offset=7))
        setup.open_again(known)
        assert (setup.log.durable_end, setup.log.refusal) == (2, None)
        assert not stray.exists()
        assert setup.append(batch_of(b"two")) == 2
        assert isinstance(setup.read(2), Slice)


@given(
    steps=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3 * INDEX_INTERVAL_BYTES))),
    target=st.integers(0, 100),
)
def test_an_index_finds_a_batch_at_or_before_the_offset(
    steps: list[tuple[int, int]], target: int
) -> None:
    index, offset, position = SparseIndex(), 0, 0
    batches = []
    for count, size in steps:
        index.add(offset, position)
        batches.append((offset, position))
        offset, position = offset + count, position + size
    found = index.before(target)
    if not batches:
        assert found is None
        return
    exact = max(where for base, where in batches if base <= target)
    assert found in [where for _, where in batches]
    assert found is not None
    assert found <= exact < found + INDEX_INTERVAL_BYTES or found == exact


def test_an_index_forgets_removed_batches() -> None:
    index = SparseIndex()
    for number in range(5):
        index.add(number, number * INDEX_INTERVAL_BYTES)
    index.cut(2 * INDEX_INTERVAL_BYTES)
    assert index.before(4) == INDEX_INTERVAL_BYTES
    index.add(2, 2 * INDEX_INTERVAL_BYTES)
    assert index.before(4) == 2 * INDEX_INTERVAL_BYTES
