"""Topics of a running broker: created, extended, watched, deleted, created again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamkit.broker.broker import Broker
from streamkit.limits import PARTITIONS_MAX
from streamkit.protocol import apis, specs
from streamkit.protocol.control_plane import (
    AddPartitions,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    SpuName,
    StatusResponse,
    UpdateRequest,
    WatchRequest,
    WatchResponse,
)
from streamkit.protocol.data_plane import (
    ConsumerOffset,
    ConsumerOffsetsFilter,
    FetchConsumerOffsetsRequest,
    FetchOffsetsRequest,
    OffsetsTopic,
    PartitionIndex,
    ReplicaKey,
    StreamFetchRequest,
    UpdateConsumerOffsetRequest,
)
from streamkit.protocol.error_codes import Code, other
from streamkit.protocol.schema import decode
from streamkit.protocol.smartmodules import Map, Predefined, SmartModuleInvocation
from tests.broker.running import (
    batch_of,
    create,
    delete,
    fetch,
    produce,
    produce_request,
    running,
    several,
    topic_spec,
)
from tests.broker.wire import Wire


async def names(sc: Wire, kind: specs.ObjectKind, *, system: bool = False) -> list[str]:
    found = await sc.call(apis.LIST, ListRequest(kind, system=system))
    return [item.name for item in found.items]


async def add_partitions(sc: Wire, name: str, count: int) -> StatusResponse:
    response: StatusResponse = await sc.call(
        apis.UPDATE, UpdateRequest(specs.TOPIC, name, AddPartitions(count))
    )
    return response


def changes(responses: list[WatchResponse]) -> list[tuple[str, bool]]:
    return [(each.item.name, each.is_delete) for response in responses for each in response.changes]


# --- Watches -----------------------------------------------------------------------


async def test_a_watch_begins_with_all_objects_and_counts_its_messages(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        await create(sc, "t")
        watch = sc.start(apis.WATCH, WatchRequest(specs.TOPIC))
        first = await sc.response(watch)
        assert [item.name for item in first.all] == ["consumer-offset", "t"]
        assert (first.epoch, first.changes) == (1, ())
        await create(sc, "u")
        second = await sc.response(watch)
        assert (second.epoch, second.all, changes([second])) == (2, (), [("u", False)])


async def test_watchers_get_every_change_before_the_client_gets_its_response(
    broker: Broker,
) -> None:
    """Watchers get created and deleted partitions before their topic."""
    async with (
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.sc_address) as watcher,
    ):
        watches = [
            watcher.start(apis.WATCH, WatchRequest(kind)) for kind in (specs.TOPIC, specs.PARTITION)
        ]
        for watch in watches:
            await watcher.response(watch)
        order: list[tuple[str, bool]] = []
        for step in (create(sc, "t", topic_spec(2)), add_partitions(sc, "t", 1), delete(sc, "t")):
            assert not (await step).error
            # The response to a later request arrives after all deltas sent before it.
            fence = watcher.start(apis.LIST, ListRequest(specs.SPU))
            frames = [await watcher.frame()]
            while int.from_bytes(frames[-1][4:8], "big") != fence:
                frames.append(await watcher.frame())
            for data in frames[:-1]:
                order += changes([delta(data)])
        assert order == [
            ("t-0", False),
            ("t-1", False),
            ("t", False),
            ("t-2", False),
            ("t", False),
            ("t-0", True),
            ("t-1", True),
            ("t-2", True),
            ("t", True),
        ]


def delta(data: bytes) -> WatchResponse:
    response: WatchResponse = decode(apis.WATCH.response, data, apis.WATCH.max_version, at=8)
    return response


async def test_a_watch_of_partitions_reports_their_end_offsets(broker: Broker) -> None:
    async with (
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t")
        watch = sc.start(apis.WATCH, WatchRequest(specs.PARTITION))
        await sc.response(watch)
        await produce(spu, "t", batch_of(b"a", b"b"))
        (change,) = (await sc.response(watch)).changes
        assert change.item.name == "t-0"
        assert change.item.status.leader.log_end == 2


async def test_a_watch_of_an_unsupported_kind_closes_the_connection(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        sc.start(apis.WATCH, WatchRequest(specs.MIRROR))
        assert await sc.until_closed() == b""


# --- Requests at the same time -----------------------------------------------------


async def test_only_one_of_several_create_requests_for_the_same_topic_succeeds(
    broker: Broker,
) -> None:
    async with several(broker.sc_address, 4) as wires:
        responses = await asyncio.gather(*(create(sc, "t") for sc in wires))
    assert sorted(response.error.code for response in responses) == [0, 2002, 2002, 2002]


async def test_partitions_added_simultaneously_are_all_created(
    broker: Broker, tmp_path: Path
) -> None:
    expected = [f"t-{number}" for number in range(9)]
    async with several(broker.sc_address, 4) as wires:
        await create(wires[0], "t")
        responses = await asyncio.gather(*(add_partitions(sc, "t", 2) for sc in wires))
        assert not any(response.error for response in responses)
        assert await names(wires[0], specs.PARTITION) == expected
    await broker.close()
    async with running(tmp_path) as again, await Wire.open(again.sc_address) as sc:
        assert await names(sc, specs.PARTITION) == expected


async def test_a_topic_deleted_while_partitions_are_added_is_deleted(
    broker: Broker, tmp_path: Path
) -> None:
    async with (
        await Wire.open(broker.sc_address) as one,
        await Wire.open(broker.sc_address) as other,
        await Wire.open(broker.sc_address) as watcher,
    ):
        for number in range(10):
            await create(one, f"t{number}")
        watch = watcher.start(apis.WATCH, WatchRequest(specs.PARTITION))
        shown = {item.name for item in (await watcher.response(watch)).all}
        for number in range(10):
            grown, deleted = await asyncio.gather(
                add_partitions(one, f"t{number}", 1), delete(other, f"t{number}")
            )
            assert grown.error.code in (0, 2001)
            assert not deleted.error
        await watcher.call(apis.LIST, ListRequest(specs.SPU))
        for data in watcher.unread_frames(watch):
            for name, is_delete in changes([delta(data)]):
                (shown.discard if is_delete else shown.add)(name)
        assert shown == {"consumer-offset-0"}
    await broker.close()
    assert list((tmp_path / "broker" / "logs").glob("t*")) == []


async def test_requests_of_one_connection_run_in_order(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        requests = [
            sc.start(apis.CREATE, CreateRequest(specs.TOPIC, "t", topic_spec())),
            sc.start(apis.LIST, ListRequest(specs.TOPIC)),
            sc.start(apis.DELETE, DeleteRequest(specs.TOPIC, "t")),
            sc.start(apis.LIST, ListRequest(specs.TOPIC)),
        ]
        created, first_list, deleted, second_list = [await sc.response(each) for each in requests]
        assert (created.error.code, deleted.error.code) == (0, 0)
        assert [item.name for item in first_list.items] == ["t"]
        assert second_list.items == ()


async def test_the_number_of_partitions_is_limited(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        await create(sc, "t")
        refusal = await add_partitions(sc, "t", PARTITIONS_MAX)
        assert refusal.error.code == Code.TOPIC_ERROR
        assert refusal.error_message == f"more than {PARTITIONS_MAX} partitions in total"
        assert await names(sc, specs.PARTITION) == ["t-0"]


# --- Deleting ----------------------------------------------------------------------


async def test_deleting_a_topic_ends_all_of_its_streams(
    broker: Broker,
) -> None:
    async with (
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t")
        await produce(spu, "t", batch_of(b"x"))
        unacknowledged = spu.start(apis.STREAM_FETCH, StreamFetchRequest("t", 0, 0, 100))
        waiting = spu.start(apis.STREAM_FETCH, StreamFetchRequest("t", 0, 1, 100))
        assert not (await spu.response(unacknowledged)).partition.error
        await delete(sc, "t")
        for stream in (unacknowledged, waiting):
            assert (await spu.response(stream)).partition.error.code == Code.TOPIC_DELETED
        assert await produce(spu, "t", batch_of(b"x")) == (6, 0)
        assert (await fetch(spu, "t")).error.code == Code.NOT_LEADER_FOR_PARTITION


async def test_a_topic_that_is_created_again_is_empty(broker: Broker, tmp_path: Path) -> None:
    async with (
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        for content in (b"first", b"second"):
            assert not (await create(sc, "t")).error
            assert await produce(spu, "t", batch_of(content)) == (0, 0)
            assert content in (await fetch(spu, "t")).records
            if content == b"first":
                assert not (await delete(sc, "t")).error
    assert len(list((tmp_path / "broker" / "logs").glob("t.*"))) == 1


# --- Stored offsets ----------------------------------------------------------------


async def store(spu: Wire, offset: int, session: int = 1) -> int:
    request = UpdateConsumerOffsetRequest(offset, session)
    response = await spu.call(apis.UPDATE_CONSUMER_OFFSET, request)
    return int(response.error.code)


async def stored(spu: Wire, consumer: str | None = None) -> list[tuple[str, str, int, int]]:
    requested = None if consumer is None else ConsumerOffsetsFilter(None, consumer)
    response = await spu.call(apis.FETCH_CONSUMER_OFFSETS, FetchConsumerOffsetsRequest(requested))
    found: tuple[ConsumerOffset, ...] = response.consumers
    return [
        (each.consumer_id, each.replica.topic, each.replica.partition, each.offset)
        for each in found
    ]


def consumer_of(spu: Wire, topic: str, consumer: str = "c") -> int:
    return spu.start(apis.STREAM_FETCH, StreamFetchRequest(topic, 0, 0, 100, consumer_id=consumer))


async def test_stored_offsets_survive_a_restart(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t")
        consumer_of(spu, "t", "c")
        consumer_of(spu, "t", "d")
        assert [await store(spu, 7), await store(spu, 5), await store(spu, 3, 2)] == [0, 0, 0]
    async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
        assert await stored(spu) == [("c", "t", 0, 5), ("d", "t", 0, 3)]
        assert await stored(spu, "d") == [("d", "t", 0, 3)]


async def test_a_stream_of_a_deleted_topic_stores_no_offset_for_a_new_topic(
    broker: Broker,
) -> None:
    async with (
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t")
        consumer_of(spu, "t")
        assert await store(spu, 7) == 0
        await delete(sc, "t")
        assert await store(spu, 8) == 2007
        await create(sc, "t")
        assert await store(spu, 9) == 2007
        assert await stored(spu) == []


async def test_offsets_of_a_deleted_topic_do_not_apply_to_a_new_topic(
    tmp_path: Path,
) -> None:
    """This can happen after a crash between the two entries of a delete."""
    async with (
        running(tmp_path) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t")
        consumer_of(spu, "t")
        assert await store(spu, 7) == 0
        journal = tmp_path / "broker" / "consumer-offsets"
        with_offset = journal.read_bytes()
        await delete(sc, "t")
        await create(sc, "t")
    journal.write_bytes(with_offset)
    async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
        assert await stored(spu) == []
        request = FetchOffsetsRequest((OffsetsTopic("t", (PartitionIndex(0),)),), "c")
        response = await spu.call(apis.FETCH_OFFSETS, request, 23)
        assert response.topics[0].partitions[0].start_offset == 0


# --- Unsupported requests ----------------------------------------------------------


async def test_a_request_with_a_smartmodule_is_refused_with_a_reason(broker: Broker) -> None:
    module = SmartModuleInvocation(Predefined("upper"), Map())
    refusal = other("the embedded broker does not run SmartModules yet")
    async with (
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
    ):
        await create(sc, "t")
        await produce(spu, "t", batch_of(b"x"))
        request = replace(produce_request("t", (0, batch_of(b"x"))), smartmodules=(module,))
        response = await spu.call(apis.PRODUCE, request)
        assert response.topics[0].partitions[0].error == refusal
        stream = spu.start(
            apis.STREAM_FETCH, StreamFetchRequest("t", 0, 0, 100, smartmodules=(module,))
        )
        assert (await spu.response(stream)).partition.error == refusal
        assert (await fetch(spu, "t")).high_watermark == 1


@pytest.mark.parametrize(
    ("kind", "key", "code"),
    [
        (specs.CUSTOM_SPU, SpuName("x"), 2),
        (specs.SMARTMODULE, "x", 6001),
        (specs.TABLE_FORMAT, "x", 2),
    ],
)
async def test_deleting_an_unsupported_or_missing_object_is_refused(
    broker: Broker, kind: specs.ObjectKind, key: str | SpuName, code: int
) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        response = await sc.call(apis.DELETE, DeleteRequest(kind, key))
        assert response.error.code == code


async def test_an_unknown_replica_of_a_known_topic_has_no_offsets(broker: Broker) -> None:
    async with await Wire.open(broker.spu_address) as spu:
        requested = ConsumerOffsetsFilter(ReplicaKey("nope", 3))
        response = await spu.call(
            apis.FETCH_CONSUMER_OFFSETS, FetchConsumerOffsetsRequest(requested)
        )
        assert (response.error.code, response.consumers) == (0, ())
        assert await produce(spu, "nope", batch_of(b"x")) == (6, 0)
        assert produce_request("nope").topics[0].partitions == ()
