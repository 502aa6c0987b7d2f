"""The log of one partition against a list of batches: any offset, any size, tiny segments."""

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


class Site:
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
        self.log.make_first_segment(self.writing)

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
def new_site(segment_bytes: int = SEGMENT_BYTES) -> Iterator[Site]:
    with TemporaryDirectory() as folder:
        site = Site(Path(folder), segment_bytes)
        try:
            yield site
        finally:
            site.close()


class LogModel(RuleBasedStateMachine):
    """Batches by base offset are all there is to know; where segments end must not show."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.site = Site(Path(self.folder.name))
        self.batches: list[tuple[int, bytes]] = []
        self.end = 0

    def teardown(self) -> None:
        self.site.close()
        self.folder.cleanup()

    @rule(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 500)), min_size=1, max_size=4))
    def append(self, sizes: list[tuple[int, int]]) -> None:
        batches = [batch_of(*[bytes(size // count)] * count) for count, size in sizes]
        assert self.site.append(*batches) == self.end
        for (count, _), batch in zip(sizes, batches, strict=True):
            self.batches.append((self.end, batch[8:]))
            self.end += count

    @rule(is_known=st.booleans())
    def open_again(self, is_known: bool) -> None:
        self.site.open_again(self.site.log.durable if is_known else None)

    @rule(data=st.data(), max_bytes=st.sampled_from([1, 20, 57, 100, 700, 1024, 5000, -1]))
    def read(self, data: st.DataObject, max_bytes: int) -> None:
        offset = data.draw(st.integers(0, self.end))
        found = self.site.read(offset, max_bytes)
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
            found = self.site.read(offset, max_bytes)
            assert isinstance(found, Slice)
            offset, got = found.next_offset, got + found.records
        expected = b"".join(base.to_bytes(8, "big") + batch for base, batch in self.batches)
        assert got == expected

    @rule(beyond=st.integers(1, 9))
    def read_outside(self, beyond: int) -> None:
        offset = self.end + beyond
        text = f"start offset: {offset} is greater than leo: {self.end}"
        assert self.site.read(offset) == other(text)
        assert self.site.read(-beyond) == evicted(-beyond, 0)

    @invariant()
    def segments_keep_their_size(self) -> None:
        bases = [segment.base_offset for segment in self.site.log.segments]
        assert bases == sorted(set(bases))
        for segment in self.site.log.segments:
            assert segment.size_bytes <= SEGMENT_BYTES
        assert self.site.log.size_bytes == sum(len(batch) + 8 for _, batch in self.batches)


TestALogIsItsBatches = LogModel.TestCase
TestALogIsItsBatches.settings = settings(stateful_step_count=25)


def test_nothing_is_read_that_is_not_synced() -> None:
    with new_site() as site:
        site.append(batch_of(b"one"))
        two = batch_of(b"two")
        site.log.append(Entry(two, (len(two),), (1,)), site.writing)
        found = site.read(0)
        assert isinstance(found, Slice)
        assert found.next_offset == 1
        assert site.read(1) == Slice(b"", 1)
        site.log.synced(site.log.sync(site.writing))
        assert site.read(1) != Slice(b"", 1)


def test_no_room_for_bytes_brings_none() -> None:
    with new_site() as site:
        site.append(batch_of(b"one"))
        assert site.read(0, 0) == Slice(b"", 0)


def test_a_batch_of_a_segments_size_fits_and_the_next_one_begins_another() -> None:
    batch = batch_of(b"x" * 500)
    with new_site(len(batch) * 2) as site:
        for _ in range(3):
            site.append(batch)
        assert [segment.base_offset for segment in site.log.segments] == [0, 2]


@pytest.mark.parametrize("cut", ["one byte less", "half", "header only"])
def test_a_torn_last_batch_is_given_out_again(cut: str) -> None:
    batch = batch_of(b"x" * 100)
    left = {"one byte less": len(batch) - 1, "half": len(batch) // 2, "header only": 57}[cut]
    with new_site() as site:
        site.append(batch)
        known = site.log.durable
        site.append(batch)
        path = site.log.segments[-1].path
        path.write_bytes(path.read_bytes()[: len(batch) + left])
        site.open_again(known)
        assert (site.log.durable_end, site.log.refusal) == (1, None)
        assert site.append(batch_of(b"again")) == 1


def test_whole_batches_behind_the_known_end_are_kept() -> None:
    with new_site() as site:
        site.append(batch_of(b"one"))
        known = site.log.durable
        for _ in range(40):  # over several segments
            site.append(batch_of(b"x" * 50))
        site.open_again(known)
        assert site.log.durable_end == 41


def test_a_segment_that_does_not_follow_the_one_before_it_is_removed() -> None:
    with new_site() as site:
        site.append(batch_of(b"zero"))
        known = site.log.durable
        site.append(batch_of(b"one"))
        stray = site.log.segments[-1].path.with_name(f"{7:020d}.log")
        stray.write_bytes(batch_of(b"seven", base_offset=7))
        site.open_again(known)
        assert (site.log.durable_end, site.log.refusal) == (2, None)
        assert not stray.exists()
        assert site.append(batch_of(b"two")) == 2
        assert isinstance(site.read(2), Slice)


@given(
    steps=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3 * INDEX_INTERVAL_BYTES))),
    wanted=st.integers(0, 100),
)
def test_an_index_leads_to_a_batch_at_or_before_the_one_wanted(
    steps: list[tuple[int, int]], wanted: int
) -> None:
    index, offset, position = SparseIndex(), 0, 0
    batches = []
    for count, size in steps:
        index.note(offset, position)
        batches.append((offset, position))
        offset, position = offset + count, position + size
    found = index.before(wanted)
    if not batches:
        assert found is None
        return
    exact = max(where for base, where in batches if base <= wanted)
    assert found in [where for _, where in batches]
    assert found is not None
    assert found <= exact < found + INDEX_INTERVAL_BYTES or found == exact


def test_an_index_forgets_what_was_taken_back() -> None:
    index = SparseIndex()
    for number in range(5):
        index.note(number, number * INDEX_INTERVAL_BYTES)
    index.cut(2 * INDEX_INTERVAL_BYTES)
    assert index.before(4) == INDEX_INTERVAL_BYTES
    index.note(2, 2 * INDEX_INTERVAL_BYTES)
    assert index.before(4) == 2 * INDEX_INTERVAL_BYTES
