"""Full disks, failing syncs, damaged files: who is told what, and what goes on."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from streamkit.broker.broker import Broker
from streamkit.protocol import apis, specs
from streamkit.protocol.control_plane import ApiVersionsRequest, ListRequest
from streamkit.protocol.data_plane import (
    FetchConsumerOffsetsRequest,
    StreamFetchRequest,
    UpdateConsumerOffsetRequest,
)
from streamkit.protocol.error_codes import Code, partition_full
from tests.broker.failing_disk import FailingDisk, no_fault, on_file, on_segments
from tests.broker.running import (
    batch_of,
    create,
    fetch,
    produce,
    produce_request,
    running,
    topic_spec,
)
from tests.broker.wire import Wire

PATIENCE_S = 60.0


@dataclass
class Site:
    """A broker on a disk that can fail, with a topic ``t`` that holds offset 0."""

    broker: Broker
    disk: FailingDisk
    sc: Wire
    spu: Wire
    root: Path

    def segments(self, topic: str = "t") -> list[Path]:
        return sorted(self.root.glob(f"broker/logs/{topic}.*/0/*.log"))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    disk = FailingDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t", topic_spec(segment_bytes=1024))
        assert await produce(spu, "t", batch_of(b"zero")) == (0, 0)
        yield Site(broker, disk, sc, spu, tmp_path)


async def has_failed(broker: Broker) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await broker.failed.wait()


# --- Acknowledgements --------------------------------------------------------------


class HeldDisk(FailingDisk):
    """Holds the syncs of records, or of one other file, until it is let go."""

    def __init__(self, stem: str = "") -> None:
        super().__init__()
        self._stem = stem
        self.syncs_held = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()

    def sync(self, fd: int) -> None:
        path = self.path_of(fd)
        is_meant = path.stem == self._stem if self._stem else path.suffix == ".log"
        if is_meant and not self.let_go.is_set():
            self.syncs_held.set()
            assert self.let_go.wait(PATIENCE_S)
        super().sync(fd)


async def test_a_produce_is_answered_and_readable_only_behind_its_sync(tmp_path: Path) -> None:
    disk = HeldDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as producer,
        await Wire.open(broker.spu_address) as reader,
    ):
        await create(sc, "t")
        disk.let_go.clear()
        sent = producer.start(apis.PRODUCE, produce_request("t", (0, batch_of(b"one"))))
        answer = asyncio.ensure_future(producer.reply(sent))
        assert await asyncio.to_thread(disk.syncs_held.wait, PATIENCE_S)
        # The loop serves others meanwhile, and nobody sees the record.
        assert (await fetch(reader, "t")).high_watermark == 0
        await reader.ask(apis.API_VERSIONS, ApiVersionsRequest("1.0.0"))
        assert not answer.done()
        disk.let_go.set()
        assert (await answer).topics[0].partitions[0].base_offset == 0
        assert (await fetch(reader, "t")).high_watermark == 1


async def test_the_journal_is_never_more_than_one_group_behind(tmp_path: Path) -> None:
    """Else more than the last group could be taken for a torn tail after a power cut."""
    disk = HeldDisk("journal")
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as producer,
        await Wire.open(broker.spu_address) as reader,
    ):
        await create(sc, "t")
        disk.let_go.clear()
        assert await produce(producer, "t", batch_of(b"one")) == (0, 0)
        second = asyncio.ensure_future(produce(producer, "t", batch_of(b"two")))
        assert await asyncio.to_thread(disk.syncs_held.wait, PATIENCE_S)
        # Its records may be on disk by now; the entry of the first group is not.
        assert (await fetch(reader, "t")).high_watermark == 1
        assert not second.done()
        disk.let_go.set()
        assert await second == (0, 1)


async def test_what_comes_during_a_sync_shares_the_next_one(site: Site) -> None:
    before = site.disk.syncs()
    sent = [
        site.spu.start(apis.PRODUCE, produce_request("t", (0, batch_of(b"x")))) for _ in range(50)
    ]
    offsets = [(await site.spu.reply(each)).topics[0].partitions[0].base_offset for each in sent]
    assert offsets == list(range(1, 51))
    assert site.disk.syncs() - before < 50


async def test_a_broker_that_stops_syncs_the_journal_of_its_last_group(tmp_path: Path) -> None:
    """Damage to an acknowledged record is told from a torn tail by the end in the journal."""
    disk = HeldDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as one,
        await Wire.open(broker.spu_address) as two,
    ):
        await create(sc, "t")
        disk.let_go.clear()
        first = asyncio.ensure_future(produce(one, "t", batch_of(b"first")))
        assert await asyncio.to_thread(disk.syncs_held.wait, PATIENCE_S)
        last = asyncio.ensure_future(produce(two, "t", batch_of(b"last")))
        await sc.ask(apis.API_VERSIONS, ApiVersionsRequest("1.0.0"))
        closing = asyncio.ensure_future(broker.close())
        await asyncio.sleep(0)  # the end of the writer is queued after the last entry
        disk.let_go.set()
        assert (await first, await last) == ((0, 0), (0, 1))
        await closing
    calls = [call for call, path in disk.calls if path.stem == "journal"]
    assert calls[-1] == "sync"


# --- No room -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_refuses_appends_and_serves_reads_until_there_is_room(
    site: Site, number: int
) -> None:
    site.disk.fault = on_segments("grow", number)
    answer = await site.spu.ask(apis.PRODUCE, produce_request("t", (0, batch_of(b"no"))))
    assert answer.topics[0].partitions[0].error == partition_full("t", 0)
    assert (await fetch(site.spu, "t")).high_watermark == 1
    site.disk.fault = no_fault
    assert await produce(site.spu, "t", batch_of(b"yes")) == (0, 1)
    assert site.disk.failed


async def test_an_entry_that_finds_no_room_half_way_leaves_nothing(site: Site) -> None:
    """Its first batch fits the segment, the second needs a new one."""
    before = site.segments()[0].read_bytes()
    site.disk.fault = lambda call, path: errno.ENOSPC * (call == "open")
    two = batch_of(bytes(400)) + batch_of(bytes(600))
    assert await produce(site.spu, "t", two) == (72, 0)
    site.disk.fault = no_fault
    assert [path.read_bytes() for path in site.segments()] == [before]
    assert await produce(site.spu, "t", two) == (0, 1)


async def test_a_new_segment_that_is_taken_back_stays_away_after_a_crash(site: Site) -> None:
    """A file whose removal is not on disk would be taken for the end of the log."""
    (old,) = site.segments()
    site.disk.fault = lambda call, path: (
        errno.ENOSPC * (call == "grow" and path.suffix == ".log" and path != old)
    )
    two = batch_of(bytes(400)) + batch_of(bytes(600))
    assert await produce(site.spu, "t", two) == (72, 0)
    assert site.segments() == [old]
    after = site.disk.calls[site.disk.calls.index(site.disk.failed[-1]) :]
    assert ("sync folder", old.parent) in after


async def test_a_full_disk_with_no_room_for_the_journal_stops_nothing_but_appends(
    site: Site,
) -> None:
    site.disk.fault = lambda call, path: errno.ENOSPC * (call == "grow")
    codes = [(await produce(site.spu, "t", batch_of(bytes(90))))[0] for _ in range(3)]
    assert codes == [72, 72, 72]
    site.disk.fault = on_file("journal", "grow", errno.ENOSPC)
    # What the journal needs was set aside; when that is used up, appends wait for room.
    offset, code = 1, 0
    while not code:
        code, _ = await produce(site.spu, "t", batch_of(b"x" * 500))
        offset += not code
        assert offset < 5_000
    assert code == 72
    made = [(await create(site.sc, f"u{number}")).error.code for number in range(9)]
    assert made[-1] == 2005
    assert (await fetch(site.spu, "t")).high_watermark == offset
    site.disk.fault = no_fault
    assert await produce(site.spu, "t", batch_of(b"yes")) == (0, offset)
    assert not (await create(site.sc, "u8")).error
    assert not site.broker.failed.is_set()


async def test_what_was_refused_for_want_of_room_does_not_come_back(site: Site) -> None:
    site.disk.fault = on_segments("grow", errno.ENOSPC)
    assert (await produce(site.spu, "t", batch_of(b"no")))[0] == 72
    site.disk.fault = no_fault
    await site.broker.close()
    async with running(site.root) as broker, await Wire.open(broker.spu_address) as spu:
        assert (await fetch(spu, "t")).high_watermark == 1


# --- Failing syncs -----------------------------------------------------------------


async def test_after_a_failed_sync_a_partition_takes_no_more_and_is_never_synced_again(
    site: Site,
) -> None:
    await create(site.sc, "other")
    site.disk.fault = on_segments("sync", errno.EIO)
    assert await produce(site.spu, "t", batch_of(b"lost?")) == (56, 0)
    site.disk.fault = no_fault
    syncs = site.disk.syncs()
    assert await produce(site.spu, "t", batch_of(b"late")) == (73, 0)
    assert site.disk.syncs() == syncs
    assert (await fetch(site.spu, "t")).high_watermark == 1
    assert await produce(site.spu, "other", batch_of(b"fine")) == (0, 0)


async def test_a_failed_sync_of_the_segment_that_is_left_counts_the_same(site: Site) -> None:
    site.disk.fault = on_segments("sync", errno.EIO)
    assert await produce(site.spu, "t", batch_of(bytes(400)) + batch_of(bytes(600))) == (56, 0)
    site.disk.fault = no_fault
    syncs = site.disk.syncs()
    assert await produce(site.spu, "t", batch_of(b"late")) == (73, 0)
    assert site.disk.syncs() == syncs


async def test_a_failed_sync_refuses_what_was_written_before_it_in_its_group(
    tmp_path: Path,
) -> None:
    """The second of two entries finds the segment full, and its sync fails once.

    Another sync of that file would succeed, although the kernel has dropped the records.
    """
    disk = HeldDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as producer,
        await Wire.open(broker.spu_address) as other,
    ):
        await create(sc, "t", topic_spec(segment_bytes=1024))
        disk.let_go.clear()
        first = asyncio.ensure_future(produce(other, "t", batch_of(b"zero")))
        assert await asyncio.to_thread(disk.syncs_held.wait, PATIENCE_S)
        # Both entries wait for the writer, so they make one group.
        both = produce_request("t", (0, batch_of(bytes(400))), (0, batch_of(bytes(600))))
        sent = producer.start(apis.PRODUCE, both)
        await sc.ask(apis.API_VERSIONS, ApiVersionsRequest("1.0.0"))
        syncs = count(1)
        disk.fault = lambda call, path: (
            errno.EIO * (call == "sync" and path.suffix == ".log" and next(syncs) == 2)
        )
        disk.let_go.set()
        assert await first == (0, 0)
        entries = (await producer.reply(sent)).topics[0].partitions
        assert [entry.error.code for entry in entries] == [56, 56]
        assert (await fetch(other, "t")).high_watermark == 1


async def test_a_write_that_fails_and_cannot_be_taken_back_closes_the_partition(
    site: Site,
) -> None:
    both = ("write", "truncate")
    site.disk.fault = lambda call, path: errno.EIO * (call in both and path.suffix == ".log")
    assert await produce(site.spu, "t", batch_of(b"no")) == (56, 0)
    site.disk.fault = no_fault
    assert await produce(site.spu, "t", batch_of(b"late")) == (73, 0)
    assert (await fetch(site.spu, "t")).high_watermark == 1


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_a_journal_that_fails_stops_the_broker(site: Site, call: str) -> None:
    site.disk.fault = on_file("journal", call, errno.EIO)
    for _ in range(2):  # an entry is synced with the next group
        site.spu.start(apis.PRODUCE, produce_request("t", (0, batch_of(b"x"))))
    await has_failed(site.broker)
    assert isinstance(site.broker.failure, OSError)


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_a_journal_that_fails_at_a_new_topic_stops_the_broker(site: Site, call: str) -> None:
    site.disk.fault = on_file("journal", call, errno.EIO)
    asked = asyncio.ensure_future(create(site.sc, "u"))
    await has_failed(site.broker)
    await site.broker.close()
    with pytest.raises(asyncio.IncompleteReadError):
        await asked


async def test_an_offset_that_was_not_synced_is_refused_and_so_are_later_ones(site: Site) -> None:
    site.spu.start(apis.STREAM_FETCH, StreamFetchRequest("t", 0, 0, 100, consumer_id="c"))
    store = UpdateConsumerOffsetRequest(5, 1)
    site.disk.fault = on_file("consumer-offsets", "sync", errno.EIO)
    assert (await site.spu.ask(apis.UPDATE_CONSUMER_OFFSET, store)).error.code == Code.OTHER
    site.disk.fault = no_fault
    tried = len(site.disk.calls)
    assert (await site.spu.ask(apis.UPDATE_CONSUMER_OFFSET, store)).error.code == Code.OTHER
    assert not [path for _, path in site.disk.calls[tried:] if path.stem == "consumer-offsets"]
    held = await site.spu.ask(apis.FETCH_CONSUMER_OFFSETS, FetchConsumerOffsetsRequest())
    assert held.consumers == ()
    assert await produce(site.spu, "t", batch_of(b"x")) == (0, 1)


# --- Damage ------------------------------------------------------------------------


async def filled(root: Path) -> Path:
    """Leave five records of a topic on disk, and say in which file."""
    async with (
        running(root) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t")
        for number in range(5):
            assert await produce(spu, "t", batch_of(b"%d" % number)) == (0, number)
    return segment_of(root)


def segment_of(root: Path) -> Path:
    (path,) = root.glob("broker/logs/t.*/0/*.log")
    return path


async def test_records_that_are_missing_are_no_torn_tail(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    left = path.read_bytes()[:-10]
    path.write_bytes(left)
    for _ in range(2):  # a second start decides the same
        async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
            found = await fetch(spu, "t")
            assert (found.error.code, found.high_watermark) == (0, 4)
            assert await produce(spu, "t", batch_of(b"no")) == (73, 0)
            assert path.read_bytes() == left


async def test_a_partition_without_its_files_takes_nothing(tmp_path: Path) -> None:
    (await filled(tmp_path)).unlink()
    for _ in range(2):
        async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
            assert (await fetch(spu, "t")).high_watermark == 0
            assert await produce(spu, "t", batch_of(b"no")) == (73, 0)


async def test_a_flipped_bit_is_noticed_by_whoever_reads_it(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 5 * 3 - 1] ^= 1
    path.write_bytes(data)
    async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
        below = await fetch(spu, "t")
        assert (below.error.code, below.records) == (0, bytes(data[: len(data) // 5 * 2]))
        assert (await fetch(spu, "t", offset=2)).error.code == Code.STORAGE_ERROR
        assert (await fetch(spu, "t", offset=3)).error.code == Code.SUCCESS
        assert path.read_bytes() == data


async def test_a_tail_that_nobody_was_told_of_is_cut(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + batch_of(b"never sent", base_offset=5)[:-1])
    async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
        assert path.read_bytes() == whole
        assert await produce(spu, "t", batch_of(b"next")) == (0, 5)


async def test_a_damaged_journal_removes_no_records(tmp_path: Path) -> None:
    """A lost entry may be the one that speaks of a topic."""
    path = await filled(tmp_path)
    journal = tmp_path / "broker" / "journal"
    data = bytearray(journal.read_bytes())
    data[data.index(b'"t"')] ^= 1
    journal.write_bytes(data)
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        found = await sc.ask(apis.LIST, ListRequest(specs.TOPIC))
        assert found.items == ()
        assert path.exists()
