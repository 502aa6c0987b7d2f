"""Recorded sessions with a real cluster, played to both ends of a connection.

Not compared, because ours are not the recorded client's: correlation ids, client ids, and the
version, system and machine that a client introduces itself with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import pytest

from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.protocol.apis import API_VERSIONS, ResponseCount
from streamkit.protocol.batch import (
    cut_batch_bytes,
    decode_batch,
    read_batch_header,
    whole_batches,
)
from streamkit.protocol.connection import (
    ClientConnection,
    DecodedResponse,
    IncomingRequest,
    ServerConnection,
    encode_response,
)
from streamkit.protocol.data_plane import FetchResponse, ProduceRequest, StreamFetchResponse
from streamkit.protocol.schema import decode, encode
from tests.protocol.recorded import (
    APIS,
    SESSIONS,
    Line,
    body_at,
    pieces,
    session,
    speaking,
    vectors,
)

WHOLE: Final = 1 << 30
SIZES: Final = {"whole": WHOLE, "byte by byte": 1}

# Frames of a client that no server of ours answers, and the words of the refusal: what the stock
# SC closed the connection for, so do we.
REFUSED: Final = {
    ("raw-create-validation", 69): "unknown object type 'Foo'",
    ("raw-garbage", 1): "HTTP request",
    ("raw-garbage", 4): "frame length 0",
    ("raw-garbage", 8): "frame length -1",
    ("raw-garbage", 10): "unknown request 9999",
    ("raw-garbage", 13): "2 bytes announced, 0 left",
    ("raw-garbage", 16): "HTTP request",
    ("raw-garbage", 19): "frame length 0",
    ("raw-garbage", 23): "frame length -1",
    ("raw-garbage", 25): "unknown request 9999",
    ("raw-garbage", 28): "2 bytes announced, 0 left",
    ("raw-produce-errors", 43): "timeout of -1 ms",
}
# Record sets that the server cut: whole batches, bytes they take, size of the one that was cut.
CUT: Final = {
    ("py-max-bytes-data-loss", 43): (2, 1978, 989),
    ("raw-max-bytes", 14): (3, 834, 278),
    ("raw-max-bytes", 23): (0, 0, 278),
    ("raw-max-bytes", 29): (0, 0, 57),
}
# Batches that a hand-written client sent broken, and why they cannot be read.
BROKEN: Final = {
    ("raw-produce-errors", 9): "unknown codec 5",
    ("raw-produce-errors", 13): "checksum is 0xc6ac98be",
}

each_session = pytest.mark.parametrize("name", SESSIONS)
each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def refusal(connection: ServerConnection, data: bytes, size: int) -> str:
    try:
        for piece in pieces(data, size):
            connection.receive(piece)
    except RemoteProtocolError as error:
        return str(error)
    return "taken"


def test_the_sessions_are_the_recorded_ones() -> None:
    assert len(SESSIONS) == 30
    assert sum(len(session(name)) for name in SESSIONS) == 1_471


# --- What clients sent -----------------------------------------------------


@each_size
@each_session
def test_a_server_reads_and_can_write_what_recorded_clients_sent(name: str, size: int) -> None:
    servers: dict[tuple[str, int], ServerConnection] = {}
    for line in session(name):
        if not line.is_client or line.name in REFUSED:
            continue
        server = servers.setdefault(line.connection, ServerConnection(APIS[line.port]))
        (request,) = [
            request for piece in pieces(line.data, size) for request in server.receive(piece)
        ]
        body = encode(request.api.request, request.body, request.version)
        assert body == line.data[body_at(line.data, "request") :], line.note
        assert server.held_bytes == 0


@each_size
@pytest.mark.parametrize("name", sorted({name for name, _ in REFUSED}))
def test_a_server_refuses_recorded_garbage(name: str, size: int) -> None:
    for line in session(name):
        if line.name in REFUSED:
            server = ServerConnection(APIS[line.port])
            assert REFUSED[line.name] in refusal(server, line.data, size)


def test_every_frame_named_as_refused_was_recorded() -> None:
    lines = {line.name for name in SESSIONS for line in session(name) if line.is_client}
    assert set(REFUSED) < lines


# --- What servers sent -----------------------------------------------------

INTRODUCTIONS: Final = {
    vector.raw["port"]: vector.data
    for vector in vectors("data_plane.json", "control_plane.json")
    if vector.id in ("api-versions-response-spu", "sc-api-versions-response")
}


class Replay:
    """One recorded connection, with a client of ours in the place of the recorded one."""

    def __init__(self, port: str, size: int) -> None:
        self.size = size
        self.server = ServerConnection(APIS[port])
        self.client = ClientConnection()
        self.port = port
        self.asked: dict[int, list[tuple[int, IncomingRequest]]] = defaultdict(list)

    def ask(self, line: Line) -> None:
        (request,) = self.server.receive(line.data)
        is_first = not self.asked
        if request.api is API_VERSIONS and is_first:
            self.client.hello()
            self.asked[request.correlation_id].append((1, request))
            return
        if is_first:  # some hand-written clients do not introduce themselves
            self.client.hello()
            self.client.receive(INTRODUCTIONS[self.port])
        api = speaking(request.api, request.version)
        correlation_id, sent = self.client.send(api, request.body)
        assert sent[4:8] == line.data[4:8], "key and version"
        assert sent[body_at(bytes(sent), "request") :] == line.data[body_at(line.data, "request") :]
        assert int.from_bytes(sent[:4], "big") == len(sent) - 4
        self.asked[request.correlation_id].append((correlation_id, request))

    def answer(self, line: Line) -> tuple[IncomingRequest, DecodedResponse]:
        waiting = self.asked[line.correlation_id]
        correlation_id, request = waiting[0]
        if request.api.response_count is ResponseCount.ONE:
            waiting.pop(0)
        data = line.data[:4] + correlation_id.to_bytes(4, "big") + line.data[8:]
        (reply,) = [
            reply for piece in pieces(data, self.size) for reply in self.client.receive(piece)
        ]
        assert reply.correlation_id == correlation_id
        assert reply.is_last == (request.api.response_count is ResponseCount.ONE)
        return request, reply


def replies(name: str, size: int) -> Iterator[tuple[Line, IncomingRequest, DecodedResponse]]:
    replays: dict[tuple[str, int], Replay] = {}
    refused = {(line.connection, line.correlation_id) for line in refused_lines(name)}
    for line in session(name):
        replay = replays.setdefault(line.connection, Replay(line.port, size))
        if line.is_client:
            if line.name not in REFUSED:
                replay.ask(line)
        elif (line.connection, line.correlation_id) not in refused:
            yield line, *replay.answer(line)


def refused_lines(name: str) -> list[Line]:
    return [line for line in session(name) if line.name in REFUSED and len(line.data) >= 12]


@each_size
@each_session
def test_a_client_sends_the_recorded_bytes_and_reads_the_answers(name: str, size: int) -> None:
    for line, request, reply in replies(name, size):
        assert encode_response(request, reply.body) == line.data, line.note


def test_every_recorded_answer_is_read() -> None:
    answers = sum(not line.is_client for name in SESSIONS for line in session(name))
    assert sum(1 for name in SESSIONS for _ in replies(name, WHOLE)) == answers


def test_recorded_servers_introduce_themselves_with_their_versions() -> None:
    platforms = {
        (line.port, reply.body.platform_version)
        for name in SESSIONS
        for line, request, reply in replies(name, WHOLE)
        if request.api is API_VERSIONS
    }
    assert platforms == {("sc", "0.18.2-dev-1"), ("spu", "0.0.0")}


# --- Record sets -----------------------------------------------------------


def record_sets(body: Any) -> list[bytes]:
    match body:
        case ProduceRequest(topics=topics) | FetchResponse(topics=topics):
            return [partition.records for topic in topics for partition in topic.partitions]
        case StreamFetchResponse(partition=partition):
            return [partition.records]
    return []


def recorded_sets(name: str) -> Iterator[tuple[tuple[str, int], bytes]]:
    for line in session(name):
        if line.is_client and line.name not in REFUSED:
            (request,) = ServerConnection(APIS[line.port]).receive(line.data)
            for records in record_sets(request.body):
                yield line.name, records
    for line, _, reply in replies(name, WHOLE):
        for records in record_sets(reply.body):
            yield line.name, records


def end_of_whole(records: bytes) -> tuple[int, int]:
    found = list(whole_batches(records))
    ends = [at + header.size_bytes for header, at in found]
    assert [at for _, at in found] == [0, *ends][: len(found)], "batches lie side by side"
    return len(found), ends[-1] if ends else 0


@each_session
def test_a_record_set_is_whole_batches_but_for_the_ones_that_servers_cut(name: str) -> None:
    cut = {}
    for line_name, records in recorded_sets(name):
        count, end = end_of_whole(records)
        if end < len(records):
            cut[line_name] = (count, end, cut_batch_bytes(records, end, len(records)))
        else:
            assert cut_batch_bytes(records, end, len(records)) == 0
    assert cut == {line: what for line, what in CUT.items() if line[0] == name}


@pytest.mark.parametrize("name", sorted({name for name, _ in CUT}))
def test_of_a_cut_record_set_nothing_past_the_whole_batches_is_taken(name: str) -> None:
    sets = [records for line, records in recorded_sets(name) if line in CUT]
    assert sets
    for records in sets:
        count, end = end_of_whole(records)
        assert [header for header, _ in whole_batches(records)] == [
            header for header, _ in whole_batches(records[:end])
        ]
        assert end + cut_batch_bytes(records, end, len(records)) > len(records)
        for at in range(end):
            assert end_of_whole(records[:at])[0] < count


@each_session
def test_every_recorded_batch_is_read_but_for_the_broken_ones(name: str) -> None:
    broken = {}
    for line, records in recorded_sets(name):
        for header, at in whole_batches(records):
            try:
                columns = decode_batch(records, at, header)
            except CorruptBatch as error:
                broken[line] = error.reason
            else:
                assert len(columns.values) == len(columns.keys) == len(columns.timestamps_ms)
    expected = {line: why for line, why in BROKEN.items() if line[0] == name}
    assert broken.keys() == expected.keys()
    assert all(why in broken[line] for line, why in expected.items())


def test_the_offsets_behind_a_recorded_data_loss_are_seen_as_cut() -> None:
    """The official client skipped offsets 39 to 47 here; they lie in the batch that was cut."""
    (records,) = [
        records
        for line, records in recorded_sets("py-max-bytes-data-loss")
        if line == ("py-max-bytes-data-loss", 43)
    ]
    last = list(whole_batches(records))[-1][0]
    _, end = end_of_whole(records)
    cut = read_batch_header(records, end)
    assert last.end_offset == cut.base_offset <= 39
    assert cut.end_offset == 48


def test_a_status_reads_alike_in_every_version() -> None:
    status = next(
        (request, line)
        for line, request, _ in replies("raw-create-validation", WHOLE)
        if request.api.name == "Create"
    )
    request, line = status
    bodies = {decode(request.api.response, line.data, version, at=8) for version in range(9, 20)}
    assert len(bodies) == 1
