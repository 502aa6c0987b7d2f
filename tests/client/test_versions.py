"""Servers of other versions: a broker behind a proxy that changes the reported versions.

The client knows only the versions that the proxy reports, so it sends the same request versions as
to a real server of that version. The broker answers each request in the layout of its version.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any, Final

import anyio
import pytest
from msgspec.structs import replace

from streamkit import Client
from streamkit.client import Added, Listed, Removed
from streamkit.client.admin.objects import partition_info
from streamkit.client.admin.topic_options import mirrored
from streamkit.errors import UnsupportedServer
from streamkit.protocol import apis, specs, topic_specs
from streamkit.protocol.apis import SC_APIS, SPU_APIS, Api
from streamkit.protocol.connection import ClientConnection, ServerConnection, encode_response
from streamkit.protocol.control_plane import (
    AddMirror,
    AddPartitions,
    ApiRange,
    ApiVersionsResponse,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    ListResponse,
    Metadata,
    UpdateRequest,
    WatchRequest,
)
from streamkit.protocol.error_codes import NO_ERROR
from streamkit.protocol.schema import decode, encode
from streamkit.protocol.specs import ModuleMeta, ModulePackage, SmartModuleSpec
from streamkit.protocol.topic_specs import (
    ComputedReplicas,
    Deduplication,
    HomeMirror,
    MirrorReplicas,
    TopicSpec,
    TopicStorage,
)
from tests import wasm
from tests.broker_process import BrokerProcess
from tests.client.reading import values_of
from tests.lanes import ANY_LOOP
from tests.proxy import Flow, Proxy, Replace

SOON_S: Final = 60.0
ADMIN_VERSIONS: Final = range(15, 20)
# What servers list. Source: docs/protocol/frames.md, "Requests to an SPU" and "Requests to the SC".
SC_MINIMA: Final = {1001: 9, 1002: 1, 1003: 15, 1004: 15, 1006: 1}
PLATFORM: Final = "0.11.10"
Ranges = Mapping[int, tuple[int, int]]
_numbers = count()


@pytest.fixture(params=ANY_LOOP)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    loop: str = request.param
    return loop


def sc_of(version: int) -> dict[int, tuple[int, int]]:
    return {key: (low, version) for key, low in SC_MINIMA.items()}


def spu_of(version: int) -> dict[int, tuple[int, int]]:
    return {
        0: (0, version),
        1: (0, version),
        1002: (version, version),
        1003: (0, version),
        1005: (0, 0),
    }


class Server:
    """The server as the client sees it, and its requests."""

    def __init__(self, address: str) -> None:
        self.address = address
        # Versions by API key; the SC and the SPU use some keys for different requests.
        self.sc_asked: dict[int, set[int]] = defaultdict(set)
        self.spu_asked: dict[int, set[int]] = defaultdict(set)


@contextmanager
def server_of(
    cluster: BrokerProcess,
    sc: Ranges = sc_of(19),  # noqa: B008  # a mapping that is never changed
    spu: Ranges = spu_of(25),  # noqa: B008
) -> Iterator[Server]:
    """Let the broker report these versions, and record the versions of its requests."""
    server = Server("")

    def recording(flow: Flow, requested: dict[int, set[int]]) -> Replace:
        def note(frame: bytes) -> None:
            key = int.from_bytes(frame[4:6], "big")
            requested[key].add(int.from_bytes(frame[6:8], "big"))

        return Replace(flow, note)

    def listing(flow: Flow, ranges: Ranges) -> Replace:
        hello = ApiVersionsResponse(
            NO_ERROR, tuple(ApiRange(key, *each) for key, each in ranges.items()), PLATFORM
        )
        body = encode(apis.API_VERSIONS.response, hello, 0)

        def rewrite(frame: bytes) -> bytes | None:
            if not frame.endswith(b"+streamkit.1"):
                return None  # only a response to ApiVersions ends with the platform version
            data = frame[4:8] + body
            return len(data).to_bytes(4, "big") + data

        return Replace(flow, rewrite)

    faults = (
        recording("sc up", server.sc_asked),
        recording("spu up", server.spu_asked),
        listing("sc down", sc),
        listing("spu down", spu),
    )
    with Proxy(cluster.sc_port, cluster.spu_port, *faults) as proxy:
        server.address = proxy.address
        yield server


# --- Requests ----------------------------------------------------------------------------

MIRROR: Final = mirrored("t", ["edge"], home_to_remote=True)
PACKAGE: Final = ModulePackage("m", "g", "0.1.0", "0.1.0", visibility=1)
MODULE: Final = SmartModuleSpec(ModuleMeta(PACKAGE, {}), payload=b"w")
WHOLE: Final = TopicSpec(
    ComputedReplicas(3, 2, ignore_rack=True),
    topic_specs.SegmentPolicy(60),
    TopicStorage(2_000, 3_000),
    topic_specs.TopicCompression.ZSTD,
    Deduplication(1, None, "m"),
    system=True,
)
REQUESTS: Final[tuple[tuple[Api[Any, Any], Any], ...]] = (
    (apis.CREATE, CreateRequest(specs.TOPIC, "t", WHOLE, dry_run=True, timeout_ms=7)),
    (apis.CREATE, CreateRequest(specs.TOPIC, "t", TopicSpec(MIRROR))),
    (apis.CREATE, CreateRequest(specs.SMARTMODULE, "m", MODULE)),
    (apis.DELETE, DeleteRequest(specs.TOPIC, "t", force=True)),
    (apis.DELETE, DeleteRequest(specs.SMARTMODULE, "m")),
    (apis.LIST, ListRequest(specs.PARTITION, ("t",), summary=True, system=True)),
    (apis.WATCH, WatchRequest(specs.SMARTMODULE, summary=True)),
    (apis.UPDATE, UpdateRequest(specs.TOPIC, "t", AddPartitions(3))),
    (apis.UPDATE, UpdateRequest(specs.TOPIC, "t", AddMirror("edge", home_to_mirror=True))),
)


def negotiated(table: dict[int, Api[Any, Any]], ranges: Ranges) -> tuple[Any, Any]:
    """Return both ends of a connection after the exchange of versions."""
    client, server = ClientConnection("me"), ServerConnection(table)
    (hello,) = server.receive(bytes(client.hello()))
    listed = tuple(ApiRange(key, *each) for key, each in ranges.items())
    reply = encode_response(hello, ApiVersionsResponse(NO_ERROR, listed, PLATFORM))
    client.receive(bytes(reply))
    return client, server


def as_known_at(version: int, body: Any) -> Any:
    """Return the fields of a request that a server of that version knows."""
    if not isinstance(body, CreateRequest):
        return body
    spec = body.spec
    if version < 18 and spec == TopicSpec(MIRROR):
        assert isinstance(MIRROR, MirrorReplicas)
        home = MIRROR.config
        assert isinstance(home, HomeMirror)
        partitions = tuple(replace(each, source=False) for each in home.partitions)
        spec = replace(
            spec,
            replicas=MirrorReplicas(replace(home, partitions=partitions, source=False)),
        )
    if version < 19 and isinstance(spec, SmartModuleSpec) and spec.meta is not None:
        package = replace(spec.meta.package, visibility=0)
        spec = replace(spec, meta=replace(spec.meta, package=package))
    return replace(body, spec=spec)


@pytest.mark.parametrize("version", ADMIN_VERSIONS)
@pytest.mark.parametrize(
    ("api", "body"), REQUESTS, ids=lambda each: each.name if isinstance(each, Api) else ""
)
def test_a_request_is_sent_in_the_version_of_the_server(
    api: Api[Any, Any], body: Any, version: int
) -> None:
    client, server = negotiated(SC_APIS, sc_of(version))
    (request,) = server.receive(bytes(client.send(api, body)[1]))
    assert (request.version, request.api) == (version, api)
    assert request.body == as_known_at(version, body)


def test_a_new_version_changes_only_the_bytes_of_its_new_fields() -> None:
    """Version 18 added two flags of a mirror, version 19 the visibility of a package."""
    sizes = {
        index: [len(encode(api.request, body, version)) for version in ADMIN_VERSIONS]
        for index, (api, body) in enumerate(REQUESTS)
    }
    growth = {
        index: [later - earlier for earlier, later in pairwise(each)]
        for index, each in sizes.items()
    }
    assert growth.pop(1) == [0, 0, 2, 0]
    assert growth.pop(2) == [0, 0, 0, 1]
    assert set(map(tuple, growth.values())) == {(0, 0, 0, 0)}


@pytest.mark.parametrize("version", ADMIN_VERSIONS)
def test_a_partition_of_an_old_server_has_no_first_offset(version: int) -> None:
    status = specs.PartitionStatus(
        specs.PartitionResolution.ONLINE, specs.ReplicaStatus(1, 5, 6), size_bytes=9, base_offset=3
    )
    item = Metadata("t-0", specs.PartitionSpec(1, (1,)), status)
    data = encode(apis.LIST.response, ListResponse(specs.PARTITION, (item,)), version)
    (found,) = decode(apis.LIST.response, data, version).items
    info = partition_info(found)
    assert (info.size_bytes, info.log_end) == (9, 6)
    assert info.base_offset == (3 if version >= 16 else 0)


# --- Older SCs ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", ADMIN_VERSIONS)
async def test_admin_calls_work_with_an_sc_of_any_version(
    cluster: BrokerProcess, version: int
) -> None:
    name, module = f"of-{next(_numbers)}", f"old-module-{next(_numbers)}"
    with server_of(cluster, sc_of(version)) as server, anyio.fail_after(SOON_S):
        async with (
            Client.connect(server.address) as client,
            client.admin.watch_topics() as topics,
            client.admin.watch_smartmodules() as modules,
        ):
            assert isinstance(await anext(topics), Listed)
            assert isinstance(await anext(modules), Listed)
            await client.admin.create_topic(name, 2, retention=60, compression="lz4")
            found = await client.admin.describe_topic(name)
            assert (found.partitions, found.retention_s, found.compression) == (2, 60, "lz4")
            assert len(await client.admin.add_partitions(name)) == 1
            assert [spu.id for spu in await client.admin.list_spus()] == [5001]
            assert len(await client.admin.list_partitions(name)) == 3
            await client.admin.create_smartmodule(module, wasm.module())
            assert len(await client.admin.list_smartmodules(module)) == 1
            await client.admin.delete_smartmodule(module)
            await client.admin.delete_topic(name)
            mine = [type(event) for event in [await anext(modules), await anext(modules)]]
            assert mine == [Added, Removed]
            events = [await anext(topics)]
            while not (isinstance(events[-1], Removed) and events[-1].item.name == name):
                events.append(await anext(topics))
    assert {key: server.sc_asked[key] for key in SC_MINIMA} == {key: {version} for key in SC_MINIMA}


# --- Older SPUs --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [23, 24, 25])
async def test_records_are_written_and_read_at_every_version(
    cluster: BrokerProcess, version: int
) -> None:
    name = f"of-{next(_numbers)}"
    values = [b"%d" % number for number in range(300)]
    with server_of(cluster, spu=spu_of(version)) as server, anyio.fail_after(SOON_S):
        async with Client.connect(server.address) as client:
            await client.admin.create_topic(name)
            async with client.producer(name, compression="gzip", batch_size=500) as producer:
                await producer.send_many(values)
            assert await values_of(client, name, max_bytes=600) == values
            async with client.consumer(name, consumer_id=name, until_end=True) as consumer:
                async for record in consumer:
                    if record.offset == 99:
                        await consumer.commit(record)
            assert await values_of(client, name, consumer_id=name) == values[100:]
            assert [each.offset for each in await client.admin.delete_consumer(name)] == [99]
            await client.admin.delete_topic(name)
    for api in SPU_APIS.values():
        if api.key not in (apis.API_VERSIONS.key, apis.UPDATE_OFFSETS.key, apis.FETCH.key):
            assert server.spu_asked[api.key] == {version}, api.name
    assert server.spu_asked[apis.UPDATE_OFFSETS.key] == {0}


@pytest.mark.parametrize("version", range(17, 26))
async def test_streams_are_read_at_every_version(cluster: BrokerProcess, version: int) -> None:
    name = f"of-{next(_numbers)}"
    ranges = spu_of(25) | {apis.STREAM_FETCH.key: (0, version)}
    with server_of(cluster, spu=ranges) as server, anyio.fail_after(SOON_S):
        async with Client.connect(server.address) as client:
            await client.admin.create_topic(name)
            async with client.producer(name) as producer:
                await producer.send_many([b"a", b"b"])
            assert await values_of(client, name) == [b"a", b"b"]
            await client.admin.delete_topic(name)
    assert server.spu_asked[apis.STREAM_FETCH.key] == {version}


# --- Servers that are too old or too new -------------------------------------------------


async def use(client: Client, call: Callable[[Client], Awaitable[object]]) -> str:
    with pytest.raises(UnsupportedServer) as caught:
        await call(client)
    assert caught.value.hint
    return str(caught.value)


async def consume(client: Client, **options: Any) -> None:
    async with client.consumer("versions", until_end=True, **options) as consumer:
        async for record in consumer:
            if "consumer_id" in options:
                await consumer.commit(record)


async def acknowledge(client: Client) -> None:
    """Read more than fits in one response, so that a second one must be requested."""
    await consume(client, max_bytes=1)


async def send(client: Client) -> None:
    async with client.producer("versions") as producer:
        await (await producer.send(b"x"))


async def flush(client: Client) -> None:
    producer = client.producer("versions")
    await producer.open()
    await producer.send(b"x")
    try:
        await producer.flush()
    finally:
        await producer.close(deadline_s=0)


SC_USES: Final[dict[str, tuple[Api[Any, Any], Callable[[Client], Awaitable[object]]]]] = {
    "create": (apis.CREATE, lambda client: client.admin.create_topic("never")),
    "delete": (apis.DELETE, lambda client: client.admin.delete_smartmodule("never")),
    "list": (apis.LIST, lambda client: client.admin.list_spus()),
    "update": (apis.UPDATE, lambda client: client.admin.add_mirror("never", "edge")),
}
SPU_USES: Final[dict[str, tuple[Api[Any, Any], Callable[[Client], Awaitable[object]]]]] = {
    "send": (apis.PRODUCE, send),
    "flush": (apis.PRODUCE, flush),
    "offsets": (apis.FETCH_OFFSETS, consume),
    "stream": (apis.STREAM_FETCH, consume),
    "acknowledge": (apis.UPDATE_OFFSETS, acknowledge),
}


@pytest.fixture
async def topic(cluster: BrokerProcess) -> None:
    """A topic with at least two batches."""
    async with Client.connect(cluster.address) as client:
        if "versions" not in [each.name for each in await client.admin.list_topics()]:
            await client.admin.create_topic("versions")
        for _ in range(2):
            async with client.producer("versions") as producer:
                await producer.send(b"x")


def without(ranges: Ranges, api: Api[Any, Any]) -> Ranges:
    return {key: each for key, each in ranges.items() if key != api.key}


def words_for(api: Api[Any, Any], low: int, high: int) -> str:
    ours = api.min_version, api.max_version
    spoken = [f"version {a}" if a == b else f"versions {a} to {b}" for a, b in ((low, high), ours)]
    return f"(version {PLATFORM}) speaks {spoken[0]} of {api.name}, this client speaks {spoken[1]}"


@pytest.mark.parametrize("name", SC_USES)
@pytest.mark.parametrize("is_new", [False, True], ids=["old", "new"])
async def test_an_sc_without_a_common_version_is_reported_at_the_first_use(
    cluster: BrokerProcess, name: str, is_new: bool
) -> None:
    api, call = SC_USES[name]
    low, high = (api.max_version + 1, 99) if is_new else (0, api.min_version - 1)
    with server_of(cluster, sc_of(19) | {api.key: (low, high)}) as server, anyio.fail_after(SOON_S):
        async with Client.connect(server.address) as client:
            text = await use(client, call)
    assert text == f"{server.address} {words_for(api, low, high)}"


@pytest.mark.parametrize("name", SPU_USES)
async def test_an_spu_without_a_common_version_is_reported_at_the_first_use(
    cluster: BrokerProcess, name: str, topic: None
) -> None:
    api, call = SPU_USES[name]
    # Produce and UpdateOffsets are supported from version 0, so no server is too old for them. For
    # FetchOffsets the advertised minimum is ignored.
    is_new = api in (apis.PRODUCE, apis.UPDATE_OFFSETS)
    low, high = (api.max_version + 1, 99) if is_new else (0, api.min_version - 1)
    with (
        server_of(cluster, spu=spu_of(25) | {api.key: (low, high)}) as server,
        anyio.fail_after(SOON_S),
    ):
        async with Client.connect(server.address) as client:
            text = await use(client, call)
    assert words_for(api, low, high) in text


@pytest.mark.parametrize("name", [*SC_USES, *SPU_USES])
async def test_a_server_that_does_not_list_an_api_is_also_reported(
    cluster: BrokerProcess, name: str, topic: None
) -> None:
    api, call = (SC_USES | SPU_USES)[name]
    with (
        server_of(cluster, without(sc_of(19), api), without(spu_of(25), api)) as server,
        anyio.fail_after(SOON_S),
    ):
        # The SC and the SPU share some keys; here only one of the two gets requests.
        async with Client.connect(server.address) as client:
            text = await use(client, call)
    assert f"does not serve {api.name}; this client speaks version" in text


async def test_an_spu_without_stored_offsets_can_be_read_but_not_committed_to(
    cluster: BrokerProcess, topic: None
) -> None:
    ranges = spu_of(25) | {apis.STREAM_FETCH.key: (0, 22)}
    with server_of(cluster, spu=ranges) as server, anyio.fail_after(SOON_S):
        async with Client.connect(server.address) as client:
            assert b"x" in await values_of(client, "versions")
            listing = await use(client, lambda client: client.admin.list_consumers())
            storing = await use(client, lambda client: consume(client, consumer_id="c"))
    assert words_for(apis.FETCH_CONSUMER_OFFSETS, 0, 22) in listing
    assert "versions 0 to 22 of" in storing


async def test_a_cluster_with_another_watch_version_is_refused_immediately(
    cluster: BrokerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with (
        server_of(cluster, sc_of(19) | {apis.WATCH.key: (1, 14)}) as server,
        anyio.fail_after(SOON_S),
        pytest.raises(UnsupportedServer) as caught,
    ):
        async with Client.connect(server.address):
            pass
    assert words_for(apis.WATCH, 1, 14) in str(caught.value)
    assert not caplog.records
