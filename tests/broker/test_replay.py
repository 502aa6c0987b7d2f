"""Recorded sessions with a real cluster, played to a broker of ours over real sockets.

The frames of the recorded clients go out as they are, in their order; the answers are compared
field by field. Masked: times, watch epochs, ports, and what other topics of that cluster show.
Of a watch the order in which objects appear and go is compared, and their last state: a stock
SC tells the steps between as well. What is answered differently on purpose stands in
``DIFFERENT``, what is sent in addition in ``MORE``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

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
# A topic that lives in the recorded cluster and plays no part.
STRANGER: Final = "short"
Connection = tuple[str, int]


@dataclass
class Played:
    """What both sides answered, the recorded cluster first."""

    answers: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    watches: list[tuple[list[Any], list[Any]]] = field(default_factory=list)
    more: list[tuple[Connection, Any]] = field(default_factory=list)


class Player:
    """Stand in for the clients of one recording."""

    def __init__(self, broker: Broker) -> None:
        self._addresses = {"sc": broker.sc_address, "spu": broker.spu_address}
        self._wires: dict[Connection, Wire] = {}
        self._asked: dict[tuple[Connection, int], tuple[Api[Any, Any], int]] = {}
        self._deltas: dict[tuple[Connection, int], list[Any]] = defaultdict(list)
        self._alls: dict[tuple[Connection, int], tuple[Any, Any]] = {}
        self._played = Played()

    async def play(self, lines: tuple[Line, ...]) -> Played:
        for line in lines:
            if line.name in CLOSED:
                await self._expect_close(line)
            elif line.name in UNANSWERED:
                continue
            elif line.is_client:
                await self._ask(line)
            else:
                await self._compare(line)
        for connection, wire in self._wires.items():
            await self._finish(connection, wire)
        return self._played

    async def _expect_close(self, line: Line) -> None:
        async with await Wire.open(self._addresses[line.port]) as wire:
            wire.send(line.data)
            wire.end_writing()
            assert await wire.until_closed() == b""

    async def _ask(self, line: Line) -> None:
        if line.connection not in self._wires:
            self._wires[line.connection] = await Wire.open(self._addresses[line.port])
        (request,) = ServerConnection(APIS[line.port]).receive(line.data)
        self._asked[line.connection, line.correlation_id] = request.api, request.version
        self._wires[line.connection].send(line.data)

    async def _compare(self, line: Line) -> None:
        api, version = self._asked[line.connection, line.correlation_id]
        recorded = masked(decode(api.response, line.data, version, at=8))
        if isinstance(recorded, WatchResponse) and recorded.changes:
            self._deltas[line.connection, line.correlation_id].append(recorded)
            return
        data = await self._wires[line.connection].frame_for(line.correlation_id)
        ours = masked(decode(api.response, data, version, at=8))
        self._played.answers[line.n] = recorded, ours
        if api is apis.WATCH:
            self._alls[line.connection, line.correlation_id] = recorded, ours

    async def _finish(self, connection: Connection, wire: Wire) -> None:
        """Take what came without being waited for."""
        await wire.ask(API_VERSIONS, ApiVersionsRequest("0.0.0"))
        for (of, correlation_id), (api, version) in self._asked.items():
            if of != connection:
                continue
            came = [
                masked(decode(api.response, data, version, at=8))
                for data in wire.set_aside(correlation_id)
            ]
            if api is apis.WATCH:
                recorded, ours = self._alls[of, correlation_id]
                told = self._deltas[of, correlation_id]
                self._played.watches.append(([recorded, *told], [ours, *came]))
            else:
                self._played.more += [(connection, body) for body in came]
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
    mine = [masked_object(item) for item in items if not item.name.startswith(STRANGER)]
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


def steps(answers: list[WatchResponse]) -> tuple[dict[str, list[bool]], dict[str, Any]]:
    """Return for each object when it was there and when not, and its last state."""
    order: dict[str, list[bool]] = {}
    last = {}
    for answer in answers:
        for item in answer.all:
            order[item.name] = [True]
        for change in answer.changes:
            there = order.setdefault(change.item.name, [])
            if not there or there[-1] == change.is_delete:
                there.append(not change.is_delete)
            last[change.item.name] = change.item
    return order, last


# --- What is different on purpose --------------------------------------------------


def refused(text: str) -> Callable[[Any, Any], bool]:
    """A batch that a stock server stores, or breaks on, and ours refuses."""

    def check(recorded: ProduceResponse, ours: ProduceResponse) -> bool:
        (entry,) = ours.topics[0].partitions
        return entry.base_offset == 0 and entry.error == other(f"corrupt batch: {text}")

    return check


def lower_by(records: int) -> Callable[[Any, Any], bool]:
    """The offset is lower because batches before this one were refused."""

    def check(recorded: ProduceResponse, ours: ProduceResponse) -> bool:
        (theirs,), (entry,) = recorded.topics[0].partitions, ours.topics[0].partitions
        return entry == replace(theirs, base_offset=theirs.base_offset - records)

    return check


def payloads(answer: StreamFetchResponse) -> list[bytes]:
    data = answer.partition.records
    return [
        data[at + header.records_at : at + header.size_bytes] for header, at in whole_batches(data)
    ]


def without_the_refused(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
    theirs = payloads(recorded)
    return payloads(ours) == theirs[:2] + theirs[5:] and ours.partition.high_watermark == 5


def whole_batches_of(count: int) -> Callable[[Any, Any], bool]:
    """A stock server cuts at a byte; ours at the end of a batch, and never before the first."""

    def check(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
        mine, theirs = ours.partition.records, recorded.partition.records
        sizes = [header.size_bytes for header, _ in whole_batches(mine)]
        alike = mine.startswith(theirs) or theirs.startswith(mine)
        return len(sizes) == count and sum(sizes) == len(mine) and alike

    return check


def stored(recorded: ProduceResponse, ours: ProduceResponse) -> bool:
    """A stock server shuts a partition after a batch that it could not store."""
    (entry,) = ours.topics[0].partitions
    return not entry.error and entry.base_offset == 0


def pushed_already(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
    """What an acknowledgement beyond the end does not hold back is sent once more here."""
    offsets = [header.base_offset for header, _ in whole_batches(ours.partition.records)]
    return offsets == [2] and not ours.partition.error


def not_run(recorded: StreamFetchResponse, ours: StreamFetchResponse) -> bool:
    """A stock server runs the module, or misses it."""
    return ours.partition.error == other(NOT_RUN) and not ours.partition.records


DIFFERENT: Final[dict[tuple[str, int], Callable[[Any, Any], bool]]] = {
    ("raw-produce-errors", 14): refused("checksum is 0xc6ac98be, the header says 0x00000001"),
    ("raw-produce-errors", 16): refused("magic 1, expected 2"),
    ("raw-produce-errors", 22): refused("1 records, the header says 6"),
    **{("raw-produce-errors", n): lower_by(8) for n in (24, 26, 28, 32, 34, 36, 38)},
    ("raw-produce-errors", 30): without_the_refused,
    ("raw-produce-errors", 40): refused("last offset delta -1"),
    ("raw-produce-errors", 42): stored,
    ("raw-max-bytes", 14): whole_batches_of(3),
    ("raw-max-bytes", 23): whole_batches_of(1),
    ("raw-max-bytes", 29): whole_batches_of(1),
    ("raw-flow-control", 28): pushed_already,
    **{("py-smartmodule-admin", n): not_run for n in (66, 70)},
}
# Frames that cost the connection here. The stock SC closes it for them as well, or waits for
# bytes that never come.
CLOSED: Final = {
    ("raw-create-validation", 69),
    ("raw-produce-errors", 43),
    *(("raw-garbage", n) for n in (1, 4, 8, 10, 13, 16, 19, 23, 25, 28)),
}
# Answers of the recorded cluster that have no counterpart.
UNANSWERED: Final = {
    ("raw-consumer-offsets", 43): "stored offsets are kept in a journal of their own here,",
    ("raw-consumer-offsets", 44): "and the topic that stock servers keep them in stays empty",
}


# What comes here and never came there.
def error_is(error: ErrorCode) -> Callable[[Any], bool]:
    return lambda body: body.partition.error == error


def introduces_itself(body: Any) -> bool:
    return isinstance(body, ApiVersionsResponse) and not body.error


def is_resent(body: Any) -> bool:
    return [header.base_offset for header, _ in whole_batches(body.partition.records)] == [0]


MORE: Final[dict[str, list[tuple[Connection, Callable[[Any], bool]]]]] = {
    # The stock SC closes the connection of a client that names no version.
    "raw-garbage": [(("sc", 6), introduces_itself), (("sc", 8), introduces_itself)],
    # See `pushed_already`: the last answer is one behind, so it is left over.
    "raw-flow-control": [(("spu", 2), error_is(evicted(-5, 0)))],
    # These clients had closed the connection by then.
    "raw-max-bytes": [(("spu", 3), is_resent), (("spu", 4), is_resent)],
    "node-session": [(("spu", 1), error_is(ErrorCode(Code.TOPIC_DELETED)))],
}


@pytest.mark.parametrize("name", TOPICS)
async def test_recorded_clients_get_the_recorded_answers(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        for topic, spec in TOPICS[name].items():
            assert not (await create(sc, topic, spec)).error
        played = await Player(broker).play(session(name))
    for n, (recorded, ours) in played.answers.items():
        differs = DIFFERENT.get((name, n))
        assert recorded != ours if differs else recorded == ours, f"line {n}"
        assert differs is None or differs(recorded, ours), f"line {n}: {ours}"
    for recorded_watch, our_watch in played.watches:
        assert steps(our_watch) == steps(recorded_watch)
    expected = MORE.get(name, [])
    assert [connection for connection, _ in played.more] == [each for each, _ in expected]
    assert all(is_so(body) for (_, body), (_, is_so) in zip(played.more, expected, strict=True))


def test_every_difference_that_is_listed_belongs_to_a_recorded_line() -> None:
    recorded = {line.name for name in TOPICS for line in session(name)}
    assert set(DIFFERENT) | CLOSED | set(UNANSWERED) <= recorded
