"""Recorded sessions with a real cluster, replayed to our broker over real sockets.

The frames of the recorded clients are sent unchanged and in order; the responses are compared
field by field. Times, watch epochs, ports, and other topics of that cluster are not compared. For a
watch, only the order in which objects appear and disappear and their last state are compared: a
stock SC also sends intermediate states. ``DIFFERENT`` lists responses that differ on purpose,
``EXTRA`` lists additional responses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from streamkit.broker.broker import Broker
from streamkit.broker.smartmodules import NOT_RUN
from streamkit.protocol import apis, specs
from streamkit.protocol.apis import API_VERSIONS, Api
from streamkit.protocol.batch import whole_batches
from streamkit.protocol.connection import ServerConnection
from streamkit.protocol.control_plane import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    ListResponse,
    Metadata,
    WatchResponse,
)
from streamkit.protocol.data_plane import (
    FetchConsumerOffsetsResponse,
    ProduceResponse,
    StreamFetchResponse,
)
from streamkit.protocol.error_codes import Code, ErrorCode, evicted, other
from streamkit.protocol.schema import decode
from streamkit.protocol.topic_specs import TopicCompression, TopicSpec
from tests.broker.running import create, running, topic_spec
from tests.broker.wire import APIS, Wire
from tests.protocol.recorded import Line, session

TOPICS: Final[dict[str, dict[str, TopicSpec]]] = {
    "raw-create-validation": {},
    "raw-produce-errors": {
        "pe": topic_spec(),
        "pegz": topic_spec(compression=TopicCompression.GZIP),
        "peseg": topic_spec(segment_bytes=2048),
        "peshort": topic_spec(),
    },
    "raw-read-errors": {"re": topic_spec()},
    "raw-flow-control": {"flow": topic_spec()},
    "raw-max-bytes": {"mb": topic_spec()},
    "raw-header-fields": {"hf": topic_spec()},
    "raw-consumer-offsets": {"co": topic_spec(2)},
    "raw-add-partition": {},
    "raw-garbage": {},
    "py-topic-admin-with-watch": {},
    "py-topic-deleted-during-stream": {},
    "py-produce-codecs": {},
    "py-consumer-offsets-manual": {},
    "py-errors": {},
    "py-smartmodule-admin": {},
    "node-session": {},
}
# A topic of the recorded cluster that the session does not use.
UNRELATED_TOPIC: Final = "short"
Connection = tuple[str, int]


@dataclass
class Result:
    """The responses of both sides, those of the recorded cluster first."""

    responses: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    watches: list[tuple[list[Any], list[Any]]] = field(default_factory=list)
    extra: list[tuple[Connection, Any]] = field(default_factory=list)


class Replay:
    """Sends the frames of the clients of one recording and compares the responses."""

    def __init__(self, broker: Broker) -> None:
        self._addresses = {"sc": broker.sc_address, "spu": broker.spu_address}
        self._wires: dict[Connection, Wire] = {}
        self._requests: dict[tuple[Connection, int], tuple[Api[Any, Any], int]] = {}
        self._deltas: dict[tuple[Connection, int], list[Any]] = defaultdict(list)
        self._alls: dict[tuple[Connection, int], tuple[Any, Any]] = {}
        self._result = Result()

    async def play(self, lines: tuple[Line, ...]) -> Result:
        for line in lines:
            if line.name in CLOSED:
                await self._expect_close(line)
            elif line.name in SKIPPED:
                continue
            elif line.is_client:
                await self._send(line)
            else:
                await self._compare(line)
        for connection, wire in self._wires.items():
            await self._finish(connection, wire)
        return self._result

    async def _expect_close(self, line: Line) -> None:
        async with await Wire.open(self._addresses[line.port]) as wire:
            wire.send(line.data)
            wire.end_writing()
            assert await wire.until_closed() == b""

    async def _send(self, line: Line) -> None:
        if line.connection not in self._wires:
            self._wires[line.connection] = await Wire.open(self._addresses[line.port])
        (request,) = ServerConnection(APIS[line.port]).receive(line.data)
        self._requests[line.connection, line.correlation_id] = request.api, request.version
        self._wires[line.connection].send(line.data)

    async def _compare(self, line: Line) -> None:
        api, version = self._requests[line.connection, line.correlation_id]
        recorded = masked(decode(api.response, line.data, version, at=8))
        if isinstance(recorded, WatchResponse) and recorded.changes:
            self._deltas[line.connection, line.correlation_id].append(recorded)
            return
        data = await self._wires[line.connection].frame_for(line.correlation_id)
        ours = masked(decode(api.response, data, version, at=8))
        self._result.responses[line.n] = recorded, ours
        if api is apis.WATCH:
            self._alls[line.connection, line.correlation_id] = recorded, ours

    async def _finish(self, connection: Connection, wire: Wire) -> None:
        """Read the responses that the recording does not have at this point."""
        await wire.call(API_VERSIONS, ApiVersionsRequest("0.0.0"))
        for (of, correlation_id), (api, version) in self._requests.items():
            if of != connection:
                continue
            late = [
                masked(decode(api.response, data, version, at=8))
                for data in wire.unread_frames(correlation_id)
            ]
            if api is apis.WATCH:
                recorded, ours = self._alls[of, correlation_id]
                deltas = self._deltas[of, correlation_id]
                self._result.watches.append(([recorded, *deltas], [ours, *late]))
            else:
                self._result.extra += [(connection, body) for body in late]
        wire.close()


# --- What is not compared --------------------------------------------------------


def masked(body: Any) -> Any:
    match body:
        case ApiVersionsResponse():  # another version, no mirroring, no old envelope of Update
            return replace(body, platform_version="", api_keys=body.api_keys[:4])
        case ListResponse(items=items):
            return replace(body, items=masked_objects(items))
        case WatchResponse(all=items):
            changes = tuple(replace(each, item=masked_object(each.item)) for each in body.changes)
            return replace(body, epoch=0, all=masked_objects(items), changes=changes)
        case FetchConsumerOffsetsResponse(consumers=consumers):
            timeless = [replace(each, modified_time_s=0) for each in consumers]
            return replace(body, consumers=tuple(sorted(timeless, key=str)))
    return body


def masked_objects(items: tuple[Metadata, ...]) -> tuple[Metadata, ...]:
    mine = [masked_object(item) for item in items if not item.name.startswith(UNRELATED_TOPIC)]
    return tuple(sorted(mine, key=lambda item: item.name))


def masked_object(item: Metadata) -> Metadata:
    match item.spec:
        case specs.SpuSpec() | specs.CustomSpuSpec():
            public = replace(item.spec.public_endpoint, port=0)
            private = replace(item.spec.private_endpoint, port=0)
            spec = replace(item.spec, public_endpoint=public, private_endpoint=private)
            return replace(item, spec=spec)
        case specs.PartitionSpec():
            leader = replace(item.status.leader, high_watermark=0, log_end=0)
            return replace(item, status=replace(item.status, leader=leader, size_bytes=0))
    return item


def steps(responses: list[WatchResponse]) -> tuple[dict[str, list[bool]], dict[str, Any]]:
    """Return for each object when it existed and when not, and its last state."""
    order: dict[str, list[bool]] = {}
    last = {}
    for response in responses:
        for item in response.all:
            order[item.name] = [True]
        for change in response.changes:
            there = order.setdefault(change.item.name, [])
            if not there or there[-1] == change.is_delete:
                there.append(not change.is_delete)
            last[change.item.name] = change.item
    return order, last


# --- Deliberate differences --------------------------------------------------------


def refused(text: str) -> Callable[[Any, Any], bool]:
    """A stock server stores this batch or fails on it; ours refuses it."""

    def check(recorded: ProduceResponse, ours: ProduceResponse) -> bool:
        (entry,) = ours.topics[0].partitions
        return entry.base_offset == 0 and entry.error == other(f"corrupt batch: {text}")

    return check


def with_offset_lower_by(records: int) -> Callable[[Any, Any], bool]:
    """The offset is lower because batches before this one were refused."""

    def check(recorded: ProduceResponse, ours: ProduceResponse) -> bool:
        (theirs,), (entry,) = recorded.topics[0].partitions, ours.topics[0].partitions
        return entry == replace(theirs, base_offset=theirs.base_offset - records)

    return check


def payloads(response: StreamFetchResponse) -> list[bytes]:
    data = response.partition.records
    return [
        data[at + header.records_at : at + header.size_bytes] for header, at in whole_batches(data)
    ]


def without_the_refused(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
    theirs = payloads(recorded)
    return payloads(ours) == theirs[:2] + theirs[5:] and ours.partition.high_watermark == 5


def whole_batches_of(count: int) -> Callable[[Any, Any], bool]:
    """A stock server truncates a batch; ours sends only complete batches, and at least one."""

    def check(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
        mine, theirs = ours.partition.records, recorded.partition.records
        sizes = [header.size_bytes for header, _ in whole_batches(mine)]
        alike = mine.startswith(theirs) or theirs.startswith(mine)
        return len(sizes) == count and sum(sizes) == len(mine) and alike

    return check


def stored(recorded: ProduceResponse, ours: ProduceResponse) -> bool:
    """A stock server closes a partition after a batch that it could not store."""
    (entry,) = ours.topics[0].partitions
    return not entry.error and entry.base_offset == 0


def pushed_already(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
    """Our broker sends this once more: an acknowledgement beyond the end does not stop it."""
    offsets = [header.base_offset for header, _ in whole_batches(ours.partition.records)]
    return offsets == [2] and not ours.partition.error


def not_run(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
    """A stock server runs the module or reports that it is missing; ours runs none."""
    return ours.partition.error == other(NOT_RUN) and not ours.partition.records


DIFFERENT: Final[dict[tuple[str, int], Callable[[Any, Any], bool]]] = {
    ("raw-produce-errors", 14): refused("checksum is 0xc6ac98be, the header has 0x00000001"),
    ("raw-produce-errors", 16): refused("magic 1, expected 2"),
    ("raw-produce-errors", 22): refused("1 records, the header has 6"),
    **{("raw-produce-errors", n): with_offset_lower_by(8) for n in (24, 26, 28, 32, 34, 36, 38)},
    ("raw-produce-errors", 30): without_the_refused,
    ("raw-produce-errors", 40): refused("invalid last offset delta -1"),
    ("raw-produce-errors", 42): stored,
    ("raw-max-bytes", 14): whole_batches_of(3),
    ("raw-max-bytes", 23): whole_batches_of(1),
    ("raw-max-bytes", 29): whole_batches_of(1),
    ("raw-flow-control", 28): pushed_already,
    **{("py-smartmodule-admin", n): not_run for n in (66, 70)},
}
# Frames for which our broker closes the connection. The stock SC closes it too, or waits for
# bytes that never arrive.
CLOSED: Final = {
    ("raw-create-validation", 69),
    ("raw-produce-errors", 43),
    *(("raw-garbage", n) for n in (1, 4, 8, 10, 13, 16, 19, 23, 25, 28)),
}
# Frames without a counterpart, and why.
SKIPPED: Final = {
    ("raw-consumer-offsets", 43): "our broker stores offsets in their own journal,",
    ("raw-consumer-offsets", 44): "so the topic in which stock servers store them is empty",
}


# Responses of our broker that the recorded cluster did not send.
def error_is(error: ErrorCode) -> Callable[[Any], bool]:
    return lambda body: body.partition.error == error


def is_hello(body: Any) -> bool:
    return isinstance(body, ApiVersionsResponse) and not body.error


def is_resent(body: Any) -> bool:
    return [header.base_offset for header, _ in whole_batches(body.partition.records)] == [0]


EXTRA: Final[dict[str, list[tuple[Connection, Callable[[Any], bool]]]]] = {
    # The stock SC closes the connection of a client that sends no version.
    "raw-garbage": [(("sc", 6), is_hello), (("sc", 8), is_hello)],
    # See `pushed_already`: our broker sends one more response, so the last one is extra.
    "raw-flow-control": [(("spu", 2), error_is(evicted(-5, 0)))],
    # The recorded clients had closed the connection before this response.
    "raw-max-bytes": [(("spu", 3), is_resent), (("spu", 4), is_resent)],
    "node-session": [(("spu", 1), error_is(ErrorCode(Code.TOPIC_DELETED)))],
}


@pytest.mark.parametrize("name", TOPICS)
async def test_recorded_clients_get_the_recorded_responses(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        for topic, spec in TOPICS[name].items():
            assert not (await create(sc, topic, spec)).error
        result = await Replay(broker).play(session(name))
    for n, (recorded, ours) in result.responses.items():
        differs = DIFFERENT.get((name, n))
        assert recorded != ours if differs else recorded == ours, f"line {n}"
        assert differs is None or differs(recorded, ours), f"line {n}: {ours}"
    for recorded_watch, our_watch in result.watches:
        assert steps(our_watch) == steps(recorded_watch)
    expected = EXTRA.get(name, [])
    assert [connection for connection, _ in result.extra] == [each for each, _ in expected]
    assert all(is_so(body) for (_, body), (_, is_so) in zip(result.extra, expected, strict=True))


def test_every_listed_difference_belongs_to_a_recorded_line() -> None:
    recorded = {line.name for name in TOPICS for line in session(name)}
    assert set(DIFFERENT) | CLOSED | set(SKIPPED) <= recorded
