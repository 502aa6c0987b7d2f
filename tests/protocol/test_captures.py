"""Recorded sessions with a real cluster, replayed to our client and our server.

Some values are not compared, because our client sends others: correlation ids, client ids, and
the version, system and machine in ApiVersions.
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

# Frames of clients that our server refuses, and the error text. The stock SC closed the
# connection for them too.
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
# Record sets that the server truncated: the number of complete batches, their size in bytes,
# and the full size of the truncated batch.
TRUNCATED: Final = {
    ("py-max-bytes-data-loss", 43): (2, 1978, 989),
    ("raw-max-bytes", 14): (3, 834, 278),
    ("raw-max-bytes", 23): (0, 0, 278),
    ("raw-max-bytes", 29): (0, 0, 57),
}
# Corrupt batches that a hand-written client sent, and why they cannot be decoded.
CORRUPT: Final = {
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
    return "accepted"


def test_all_recorded_sessions_are_present() -> None:
    assert len(SESSIONS) == 30
    assert sum(len(session(name)) for name in SESSIONS) == 1_471


# --- What clients sent -----------------------------------------------------


@each_size
@each_session
def test_a_server_decodes_and_encodes_recorded_requests(name: str, size: int) -> None:
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


def test_every_frame_listed_as_refused_was_recorded() -> None:
    lines = {line.name for name in SESSIONS for line in session(name) if line.is_client}
    assert set(REFUSED) < lines


# --- What servers sent -----------------------------------------------------

HELLO_RESPONSES: Final = {
    vector.raw["port"]: vector.data
    for vector in vectors("data_plane.json", "control_plane.json")
    if vector.id in ("api-versions-response-spu", "sc-api-versions-response")
}


class Replay:
    """One recorded connection, with our client instead of the recorded one."""

    def __init__(self, port: str, size: int) -> None:
        self.size = size
        self.server = ServerConnection(APIS[port])
        self.client = ClientConnection()
        self.port = port
        self.requests: dict[int, list[tuple[int, IncomingRequest]]] = defaultdict(list)

    def send(self, line: Line) -> None:
        (request,) = self.server.receive(line.data)
        is_first = not self.requests
        if request.api is API_VERSIONS and is_first:
            self.client.hello()
            self.requests[request.correlation_id].append((1, request))
            return
        if is_first:  # some hand-written clients do not send ApiVersions
            self.client.hello()
            self.client.receive(HELLO_RESPONSES[self.port])
        api = speaking(request.api, request.version)
        correlation_id, sent = self.client.send(api, request.body)
        assert sent[4:8] == line.data[4:8], "key and version"
        assert sent[body_at(bytes(sent), "request") :] == line.data[body_at(line.data, "request") :]
        assert int.from_bytes(sent[:4], "big") == len(sent) - 4
        self.requests[request.correlation_id].append((correlation_id, request))

    def respond(self, line: Line) -> tuple[IncomingRequest, DecodedResponse]:
        waiting = self.requests[line.correlation_id]
        correlation_id, request = waiting[0]
        if request.api.response_count is ResponseCount.ONE:
            waiting.pop(0)
        data = line.data[:4] + correlation_id.to_bytes(4, "big") + line.data[8:]
        (response,) = [
            response for piece in pieces(data, self.size) for response in self.client.receive(piece)
        ]
        assert response.correlation_id == correlation_id
        assert response.is_last == (request.api.response_count is ResponseCount.ONE)
        return request, response


def responses(name: str, size: int) -> Iterator[tuple[Line, IncomingRequest, DecodedResponse]]:
    replays: dict[tuple[str, int], Replay] = {}
    refused = {(line.connection, line.correlation_id) for line in refused_lines(name)}
    for line in session(name):
        replay = replays.setdefault(line.connection, Replay(line.port, size))
        if line.is_client:
            if line.name not in REFUSED:
                replay.send(line)
        elif (line.connection, line.correlation_id) not in refused:
            yield line, *replay.respond(line)


def refused_lines(name: str) -> list[Line]:
    return [line for line in session(name) if line.name in REFUSED and len(line.data) >= 12]


@each_size
@each_session
def test_a_client_sends_the_recorded_bytes_and_decodes_the_responses(name: str, size: int) -> None:
    for line, request, response in responses(name, size):
        assert encode_response(request, response.body) == line.data, line.note


def test_every_recorded_response_is_decoded() -> None:
    count = sum(not line.is_client for name in SESSIONS for line in session(name))
    assert sum(1 for name in SESSIONS for _ in responses(name, WHOLE)) == count


def test_recorded_servers_send_their_platform_version() -> None:
    platforms = {
        (line.port, response.body.platform_version)
        for name in SESSIONS
        for line, request, response in responses(name, WHOLE)
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
    for line, _, response in responses(name, WHOLE):
        for records in record_sets(response.body):
            yield line.name, records


def end_of_complete(records: bytes) -> tuple[int, int]:
    found = list(whole_batches(records))
    ends = [at + header.size_bytes for header, at in found]
    assert [at for _, at in found] == [0, *ends][: len(found)], "batches are contiguous"
    return len(found), ends[-1] if ends else 0


@each_session
def test_record_sets_are_complete_batches_unless_the_server_truncated_them(name: str) -> None:
    cut = {}
    for line_name, records in recorded_sets(name):
        count, end = end_of_complete(records)
        if end < len(records):
            cut[line_name] = (count, end, cut_batch_bytes(records, end, len(records)))
        else:
            assert cut_batch_bytes(records, end, len(records)) == 0
    assert cut == {line: what for line, what in TRUNCATED.items() if line[0] == name}


@pytest.mark.parametrize("name", sorted({name for name, _ in TRUNCATED}))
def test_only_complete_batches_of_a_truncated_record_set_are_read(name: str) -> None:
    sets = [records for line, records in recorded_sets(name) if line in TRUNCATED]
    assert sets
    for records in sets:
        count, end = end_of_complete(records)
        assert [header for header, _ in whole_batches(records)] == [
            header for header, _ in whole_batches(records[:end])
        ]
        assert end + cut_batch_bytes(records, end, len(records)) > len(records)
        for at in range(end):
            assert end_of_complete(records[:at])[0] < count


@each_session
def test_every_recorded_batch_except_the_corrupt_ones_is_decoded(name: str) -> None:
    corrupt = {}
    for line, records in recorded_sets(name):
        for header, at in whole_batches(records):
            try:
                columns = decode_batch(records, at, header)
            except CorruptBatch as error:
                corrupt[line] = error.reason
            else:
                assert len(columns.values) == len(columns.keys) == len(columns.timestamps_ms)
    expected = {line: why for line, why in CORRUPT.items() if line[0] == name}
    assert corrupt.keys() == expected.keys()
    assert all(why in corrupt[line] for line, why in expected.items())


def test_the_offsets_lost_in_a_recorded_session_are_in_the_truncated_batch() -> None:
    """The official client skipped offsets 39 to 47 here; they are in the truncated batch."""
    (records,) = [
        records
        for line, records in recorded_sets("py-max-bytes-data-loss")
        if line == ("py-max-bytes-data-loss", 43)
    ]
    last = list(whole_batches(records))[-1][0]
    _, end = end_of_complete(records)
    cut = read_batch_header(records, end)
    assert last.end_offset == cut.base_offset <= 39
    assert cut.end_offset == 48


def test_a_status_response_decodes_to_the_same_data_in_every_version() -> None:
    status = next(
        (request, line)
        for line, request, _ in responses("raw-create-validation", WHOLE)
        if request.api.name == "Create"
    )
    request, line = status
    bodies = {decode(request.api.response, line.data, version, at=8) for version in range(9, 20)}
    assert len(bodies) == 1
