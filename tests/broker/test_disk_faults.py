"""Full disks, failing syncs, damaged files: which requests fail, and what continues."""

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

TIMEOUT_S = 60.0


@dataclass
class FaultyBroker:
    """A broker on a disk that can fail, with a topic ``t`` that holds offset 0."""

    broker: Broker
    disk: FailingDisk
    sc: Wire
    spu: Wire
    root: Path

    def segments(self, topic: str = "t") -> list[Path]:
        return sorted(self.root.glob(f"broker/logs/{topic}.*/0/*.log"))


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[FaultyBroker]:
    disk = FailingDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t", topic_spec(segment_bytes=1024))
        assert await produce(spu, "t", batch_of(b"zero")) == (0, 0)
        yield FaultyBroker(broker, disk, sc, spu, tmp_path)


async def wait_for_failure(broker: Broker) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        await broker.failed.wait()


# --- Acknowledgements --------------------------------------------------------------


class BlockedDisk(FailingDisk):
    """Blocks the syncs of records, or of one other file, until ``may_sync`` is set."""

    def __init__(self, stem: str = "") -> None:
        super().__init__()
        self._stem = stem
        self.sync_is_blocked = threading.Event()
        self.may_sync = threading.Event()
        self.may_sync.set()

    def sync(self, fd: int) -> None:
        path = self.path_of(fd)
        is_meant = path.stem == self._stem if self._stem else path.suffix == ".log"
        if is_meant and not self.may_sync.is_set():
            self.sync_is_blocked.set()
            assert self.may_sync.wait(TIMEOUT_S)
        super().sync(fd)


async def test_a_produce_request_is_acknowledged_and_readable_only_after_its_sync(
    tmp_path: Path,
) -> None:
    disk = BlockedDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as producer,
        await Wire.open(broker.spu_address) as reader,
    ):
        await create(sc, "t")
        disk.may_sync.clear()
        sent = producer.start(apis.PRODUCE, produce_request("t", (0, batch_of(b"one"))))
        response = asyncio.ensure_future(producer.response(sent))
        assert await asyncio.to_thread(disk.sync_is_blocked.wait, TIMEOUT_S)
        # The loop serves other clients meanwhile, and none of them can read the record.
        assert (await fetch(reader, "t")).high_watermark == 0
        await reader.call(apis.API_VERSIONS, ApiVersionsRequest("1.0.0"))
        assert not response.done()
        disk.may_sync.set()
        assert (await response).topics[0].partitions[0].base_offset == 0
        assert (await fetch(reader, "t")).high_watermark == 1


async def test_a_group_is_acknowledged_only_after_the_previous_one_is_in_the_journal(
    tmp_path: Path,
) -> None:
    """Otherwise recovery could cut more than the last group after a power cut."""
    disk = BlockedDisk("journal")
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as producer,
        await Wire.open(broker.spu_address) as reader,
    ):
        await create(sc, "t")
        disk.may_sync.clear()
        assert await produce(producer, "t", batch_of(b"one")) == (0, 0)
        second = asyncio.ensure_future(produce(producer, "t", batch_of(b"two")))
        assert await asyncio.to_thread(disk.sync_is_blocked.wait, TIMEOUT_S)
        # Its records may be on disk by now; the entry of the first group is not.
        assert (await fetch(reader, "t")).high_watermark == 1
        assert not second.done()
        disk.may_sync.set()
        assert await second == (0, 1)


async def test_requests_during_a_sync_share_the_next_sync(setup: FaultyBroker) -> None:
    before = setup.disk.syncs()
    sent = [
        setup.spu.start(apis.PRODUCE, produce_request("t", (0, batch_of(b"x")))) for _ in range(50)
    ]
    offsets = [
        (await setup.spu.response(each)).topics[0].partitions[0].base_offset for each in sent
    ]
    assert offsets == list(range(1, 51))
    assert setup.disk.syncs() - before < 50


async def test_a_broker_that_stops_syncs_the_journal_of_its_last_group(tmp_path: Path) -> None:
    """The end in the journal distinguishes damage to acknowledged records from a torn tail."""
    disk = BlockedDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as one,
        await Wire.open(broker.spu_address) as two,
    ):
        await create(sc, "t")
        disk.may_sync.clear()
        first = asyncio.ensure_future(produce(one, "t", batch_of(b"first")))
        assert await asyncio.to_thread(disk.sync_is_blocked.wait, TIMEOUT_S)
        last = asyncio.ensure_future(produce(two, "t", batch_of(b"last")))
        await sc.call(apis.API_VERSIONS, ApiVersionsRequest("1.0.0"))
        closing = asyncio.ensure_future(broker.close())
        await asyncio.sleep(0)  # the end of the writer is queued after the last entry
        disk.may_sync.set()
        assert (await first, await last) == ((0, 0), (0, 1))
        await closing
    calls = [call for call, path in disk.calls if path.stem == "journal"]
    assert calls[-1] == "sync"


# --- Full disks --------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_refuses_appends_and_serves_reads_until_it_has_free_space(
    setup: FaultyBroker, number: int
) -> None:
    setup.disk.fault = on_segments("grow", number)
    response = await setup.spu.call(apis.PRODUCE, produce_request("t", (0, batch_of(b"no"))))
    assert response.topics[0].partitions[0].error == partition_full("t", 0)
    assert (await fetch(setup.spu, "t")).high_watermark == 1
    setup.disk.fault = no_fault
    assert await produce(setup.spu, "t", batch_of(b"yes")) == (0, 1)
    assert setup.disk.failed


async def test_an_entry_that_is_only_half_written_is_removed(setup: FaultyBroker) -> None:
    """Its first batch fits into the segment, the second needs a new segment."""
    before = setup.segments()[0].read_bytes()
    setup.disk.fault = lambda call, path: errno.ENOSPC * (call == "open")
    two = batch_of(bytes(400)) + batch_of(bytes(600))
    assert await produce(setup.spu, "t", two) == (72, 0)
    setup.disk.fault = no_fault
    assert [path.read_bytes() for path in setup.segments()] == [before]
    assert await produce(setup.spu, "t", two) == (0, 1)


async def test_a_removed_new_segment_does_not_reappear_after_a_crash(setup: FaultyBroker) -> None:
    """A file whose removal is not durable would become the end of the log."""
    (old,) = setup.segments()
    setup.disk.fault = lambda call, path: (
        errno.ENOSPC * (call == "grow" and path.suffix == ".log" and path != old)
    )
    two = batch_of(bytes(400)) + batch_of(bytes(600))
    assert await produce(setup.spu, "t", two) == (72, 0)
    assert setup.segments() == [old]
    after = setup.disk.calls[setup.disk.calls.index(setup.disk.failed[-1]) :]
    assert ("sync folder", old.parent) in after


async def test_a_disk_too_full_for_the_journal_stops_only_appends(
    setup: FaultyBroker,
) -> None:
    setup.disk.fault = lambda call, path: errno.ENOSPC * (call == "grow")
    codes = [(await produce(setup.spu, "t", batch_of(bytes(90))))[0] for _ in range(3)]
    assert codes == [72, 72, 72]
    setup.disk.fault = on_file("journal", "grow", errno.ENOSPC)
    # The journal has reserved space; when it is used up, appends are refused.
    offset, code = 1, 0
    while not code:
        code, _ = await produce(setup.spu, "t", batch_of(b"x" * 500))
        offset += not code
        assert offset < 5_000
    assert code == 72
    codes = [(await create(setup.sc, f"u{number}")).error.code for number in range(9)]
    assert codes[-1] == 2005
    assert (await fetch(setup.spu, "t")).high_watermark == offset
    setup.disk.fault = no_fault
    assert await produce(setup.spu, "t", batch_of(b"yes")) == (0, offset)
    assert not (await create(setup.sc, "u8")).error
    assert not setup.broker.failed.is_set()


async def test_records_refused_by_a_full_disk_do_not_reappear(setup: FaultyBroker) -> None:
    setup.disk.fault = on_segments("grow", errno.ENOSPC)
    assert (await produce(setup.spu, "t", batch_of(b"no")))[0] == 72
    setup.disk.fault = no_fault
    await setup.broker.close()
    async with running(setup.root) as broker, await Wire.open(broker.spu_address) as spu:
        assert (await fetch(spu, "t")).high_watermark == 1


# --- Failing syncs -----------------------------------------------------------------


async def test_after_a_failed_sync_a_partition_refuses_records_and_is_not_synced_again(
    setup: FaultyBroker,
) -> None:
    await create(setup.sc, "other")
    setup.disk.fault = on_segments("sync", errno.EIO)
    assert await produce(setup.spu, "t", batch_of(b"lost?")) == (56, 0)
    setup.disk.fault = no_fault
    syncs = setup.disk.syncs()
    assert await produce(setup.spu, "t", batch_of(b"late")) == (73, 0)
    assert setup.disk.syncs() == syncs
    assert (await fetch(setup.spu, "t")).high_watermark == 1
    assert await produce(setup.spu, "other", batch_of(b"fine")) == (0, 0)


async def test_after_a_failed_sync_of_the_previous_segment_a_partition_refuses_records(
    setup: FaultyBroker,
) -> None:
    setup.disk.fault = on_segments("sync", errno.EIO)
    assert await produce(setup.spu, "t", batch_of(bytes(400)) + batch_of(bytes(600))) == (56, 0)
    setup.disk.fault = no_fault
    syncs = setup.disk.syncs()
    assert await produce(setup.spu, "t", batch_of(b"late")) == (73, 0)
    assert setup.disk.syncs() == syncs


async def test_a_failed_sync_refuses_earlier_entries_of_its_group(
    tmp_path: Path,
) -> None:
    """The second of two entries needs a new segment, and the sync of the old one fails once.

    Another sync of that file would succeed, although the kernel has dropped the records.
    """
    disk = BlockedDisk()
    async with (
        running(tmp_path, disk=disk) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as producer,
        await Wire.open(broker.spu_address) as other,
    ):
        await create(sc, "t", topic_spec(segment_bytes=1024))
        disk.may_sync.clear()
        first = asyncio.ensure_future(produce(other, "t", batch_of(b"zero")))
        assert await asyncio.to_thread(disk.sync_is_blocked.wait, TIMEOUT_S)
        # Both entries wait for the writer, so they form one group.
        both = produce_request("t", (0, batch_of(bytes(400))), (0, batch_of(bytes(600))))
        sent = producer.start(apis.PRODUCE, both)
        await sc.call(apis.API_VERSIONS, ApiVersionsRequest("1.0.0"))
        syncs = count(1)
        disk.fault = lambda call, path: (
            errno.EIO * (call == "sync" and path.suffix == ".log" and next(syncs) == 2)
        )
        disk.may_sync.set()
        assert await first == (0, 0)
        entries = (await producer.response(sent)).topics[0].partitions
        assert [entry.error.code for entry in entries] == [56, 56]
        assert (await fetch(other, "t")).high_watermark == 1


async def test_a_failed_write_that_cannot_be_undone_closes_the_partition(
    setup: FaultyBroker,
) -> None:
    both = ("write", "truncate")
    setup.disk.fault = lambda call, path: errno.EIO * (call in both and path.suffix == ".log")
    assert await produce(setup.spu, "t", batch_of(b"no")) == (56, 0)
    setup.disk.fault = no_fault
    assert await produce(setup.spu, "t", batch_of(b"late")) == (73, 0)
    assert (await fetch(setup.spu, "t")).high_watermark == 1


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_a_failing_journal_stops_the_broker(setup: FaultyBroker, call: str) -> None:
    setup.disk.fault = on_file("journal", call, errno.EIO)
    for _ in range(2):  # an entry is synced with the next group
        setup.spu.start(apis.PRODUCE, produce_request("t", (0, batch_of(b"x"))))
    await wait_for_failure(setup.broker)
    assert isinstance(setup.broker.failure, OSError)


@pytest.mark.parametrize("call", ["write", "sync"])
async def test_a_journal_that_fails_during_a_create_request_stops_the_broker(
    setup: FaultyBroker, call: str
) -> None:
    setup.disk.fault = on_file("journal", call, errno.EIO)
    request = asyncio.ensure_future(create(setup.sc, "u"))
    await wait_for_failure(setup.broker)
    await setup.broker.close()
    with pytest.raises(asyncio.IncompleteReadError):
        await request


async def test_after_a_failed_sync_of_a_consumer_offset_all_later_ones_are_refused(
    setup: FaultyBroker,
) -> None:
    setup.spu.start(apis.STREAM_FETCH, StreamFetchRequest("t", 0, 0, 100, consumer_id="c"))
    store = UpdateConsumerOffsetRequest(5, 1)
    setup.disk.fault = on_file("consumer-offsets", "sync", errno.EIO)
    assert (await setup.spu.call(apis.UPDATE_CONSUMER_OFFSET, store)).error.code == Code.OTHER
    setup.disk.fault = no_fault
    tried = len(setup.disk.calls)
    assert (await setup.spu.call(apis.UPDATE_CONSUMER_OFFSET, store)).error.code == Code.OTHER
    assert not [path for _, path in setup.disk.calls[tried:] if path.stem == "consumer-offsets"]
    stored = await setup.spu.call(apis.FETCH_CONSUMER_OFFSETS, FetchConsumerOffsetsRequest())
    assert stored.consumers == ()
    assert await produce(setup.spu, "t", batch_of(b"x")) == (0, 1)


# --- Damage ------------------------------------------------------------------------


async def broker_with_records(root: Path) -> Path:
    """Write five records of a topic to disk and return their file."""
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


async def test_missing_acknowledged_records_are_treated_as_damage(tmp_path: Path) -> None:
    path = await broker_with_records(tmp_path)
    left = path.read_bytes()[:-10]
    path.write_bytes(left)
    for _ in range(2):  # a second start decides the same
        async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
            found = await fetch(spu, "t")
            assert (found.error.code, found.high_watermark) == (0, 4)
            assert await produce(spu, "t", batch_of(b"no")) == (73, 0)
            assert path.read_bytes() == left


async def test_a_partition_without_its_files_accepts_no_records(tmp_path: Path) -> None:
    (await broker_with_records(tmp_path)).unlink()
    for _ in range(2):
        async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
            assert (await fetch(spu, "t")).high_watermark == 0
            assert await produce(spu, "t", batch_of(b"no")) == (73, 0)


async def test_a_read_detects_a_flipped_bit(tmp_path: Path) -> None:
    path = await broker_with_records(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 5 * 3 - 1] ^= 1
    path.write_bytes(data)
    async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
        below = await fetch(spu, "t")
        assert (below.error.code, below.records) == (0, bytes(data[: len(data) // 5 * 2]))
        assert (await fetch(spu, "t", offset=2)).error.code == Code.STORAGE_ERROR
        assert (await fetch(spu, "t", offset=3)).error.code == Code.SUCCESS
        assert path.read_bytes() == data


async def test_an_unacknowledged_incomplete_write_is_removed(tmp_path: Path) -> None:
    path = await broker_with_records(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + batch_of(b"never sent", base_offset=5)[:-1])
    async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
        assert path.read_bytes() == whole
        assert await produce(spu, "t", batch_of(b"next")) == (0, 5)


async def test_a_damaged_journal_removes_no_records(tmp_path: Path) -> None:
    """The lost entry may be that of a topic."""
    path = await broker_with_records(tmp_path)
    journal = tmp_path / "broker" / "journal"
    data = bytearray(journal.read_bytes())
    data[data.index(b'"t"')] ^= 1
    journal.write_bytes(data)
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        found = await sc.call(apis.LIST, ListRequest(specs.TOPIC))
        assert found.items == ()
        assert path.exists()
