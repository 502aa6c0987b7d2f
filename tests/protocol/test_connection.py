"""Client and server side of a connection: versions, correlation ids, streams, limits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamkit.errors import LocalProtocolError, RemoteProtocolError, UnsupportedServer
from streamkit.limits import (
    FIRST_FRAME_BYTES_MAX,
    FRAME_BYTES_MAX,
    PENDING_REQUESTS_MAX,
    STREAMS_PER_CONNECTION_MAX,
)
from streamkit.protocol import apis
from streamkit.protocol.apis import SC_APIS, SPU_APIS, Api, ResponseCount
from streamkit.protocol.connection import (
    ClientConnection,
    DecodedResponse,
    IncomingRequest,
    ServerConnection,
    check_platform,
    encode_response,
    following_id,
)
from streamkit.protocol.control_plane import ApiRange, ApiVersionsRequest, ApiVersionsResponse
from streamkit.protocol.data_plane import (
    FetchablePartition,
    OffsetUpdate,
    OffsetUpdateStatus,
    PartitionProduceData,
    ProduceRequest,
    StreamFetchRequest,
    StreamFetchResponse,
    TopicProduceData,
    UpdateOffsetsRequest,
    UpdateOffsetsResponse,
)
from streamkit.protocol.error_codes import NO_ERROR
from streamkit.protocol.frames import frame
from tests.protocol.recorded import pieces

REQUEST: Final = UpdateOffsetsRequest((OffsetUpdate(3, 1),))
RESPONSE: Final = UpdateOffsetsResponse((OffsetUpdateStatus(1),))
STREAM: Final = StreamFetchRequest("t", 0, 0, 1_000)
SLICE: Final = StreamFetchResponse("t", 1, FetchablePartition(0))


# What an SPU advertises. Source: docs/protocol/frames.md, "Requests to an SPU".
ADVERTISED: Final = ((0, 0, 25), (1, 0, 25), (1002, 25, 25), (1003, 0, 25), (1005, 0, 0))


class Pair:
    """A client and a server that exchange bytes directly, without a network."""

    def __init__(
        self, *advertised: tuple[int, int, int], platform: str = "0.0.0", advertises: bool = True
    ) -> None:
        ranges = advertised or (ADVERTISED if advertises else ())
        self.client, self.server = ClientConnection("me"), ServerConnection(SPU_APIS)
        (hello,) = self.server.receive(self.client.hello())
        body = ApiVersionsResponse(NO_ERROR, tuple(ApiRange(*each) for each in ranges), platform)
        self.received = self.client.receive(encode_response(hello, body))

    def send(self, api: Api[Any, Any], body: Any) -> IncomingRequest:
        (request,) = self.server.receive(self.client.send(api, body)[1])
        return request


# --- Starting --------------------------------------------------------------


def test_a_client_sends_its_version_and_stores_those_of_the_server() -> None:
    client, server = ClientConnection("me"), ServerConnection(SPU_APIS)
    (hello,) = server.receive(client.hello())
    assert (hello.api, hello.version, hello.correlation_id) == (apis.API_VERSIONS, 2, 1)
    assert (hello.client_id, hello.body) == (
        "me",
        ApiVersionsRequest("0.50.2", "linux", "x86_64"),
    )
    assert not client.is_ready
    body = ApiVersionsResponse(NO_ERROR, (ApiRange(0, 0, 24),), "0.18.1")
    assert client.receive(encode_response(hello, body)) == [DecodedResponse(1, body, is_last=True)]
    assert client.is_ready
    assert client.platform_version == "0.18.1"
    assert client.version_of(apis.PRODUCE) == 24


def test_the_first_request_reuses_the_correlation_id_of_the_hello() -> None:
    pair = Pair()
    assert [pair.send(apis.UPDATE_OFFSETS, REQUEST).correlation_id for _ in range(3)] == [1, 2, 3]


def test_the_correlation_id_after_the_largest_is_1() -> None:
    largest = 2**31 - 1
    assert [following_id(each) for each in (1, largest - 1, largest)] == [2, largest, 1]


def test_a_client_id_longer_than_a_string_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="string of 40000 bytes"):
        ClientConnection("x" * 40_000)


@pytest.mark.parametrize(
    ("api", "advertised", "version"),
    [
        (apis.PRODUCE, (0, 25), 25),
        (apis.PRODUCE, (0, 24), 24),
        (apis.PRODUCE, (0, 99), 25),
        (apis.FETCH_OFFSETS, (25, 25), 25),
        (apis.FETCH_OFFSETS, (22, 24), 24),
        (apis.FETCH_OFFSETS, (26, 26), 25),  # the advertised minimum is not the real one
        (apis.UPDATE_OFFSETS, (0, 0), 0),
        (apis.STREAM_FETCH, (0, 25), 25),
        (apis.STREAM_FETCH, (0, 22), 22),
        (apis.STREAM_FETCH, (0, 17), 17),
        (apis.WATCH, (15, 19), 19),
        (apis.WATCH, (15, 16), 16),
        (apis.WATCH, (0, 99), 19),
        (apis.CREATE, (9, 18), 18),
    ],
)
def test_the_newest_common_version_is_used(
    api: Api[Any, Any], advertised: tuple[int, int], version: int
) -> None:
    assert Pair((api.key, *advertised)).client.version_of(api) == version


OF_CONSUMERS: Final = (
    apis.UPDATE_CONSUMER_OFFSET,
    apis.DELETE_CONSUMER_OFFSET,
    apis.FETCH_CONSUMER_OFFSETS,
)


@pytest.mark.parametrize("api", OF_CONSUMERS, ids=lambda api: api.name)
@pytest.mark.parametrize("newest", [23, 24, 25])
def test_consumer_offset_requests_have_the_version_of_stream_fetch(
    api: Api[Any, Any], newest: int
) -> None:
    assert Pair((1003, 0, newest)).client.version_of(api) == newest


@pytest.mark.parametrize(
    ("api", "advertised", "words"),
    [
        (apis.PRODUCE, (26, 99), "versions 26 to 99 of Produce, this client speaks versions 0 to"),
        (apis.FETCH_OFFSETS, (0, 22), "0 to 22 of FetchOffsets, this client speaks versions 23"),
        (apis.STREAM_FETCH, (0, 15), "0 to 15 of StreamFetch, this client speaks versions 17"),
        (apis.UPDATE_OFFSETS, (1, 1), "version 1 of UpdateOffsets, this client speaks version 0"),
        (apis.LIST, (0, 14), "versions 0 to 14 of List, this client speaks versions 15 to 19"),
        (apis.WATCH, (20, 21), "versions 20 to 21 of Watch, this client speaks versions 15 to 19"),
    ],
)
def test_a_server_without_a_common_version_is_refused_with_both_ranges(
    api: Api[Any, Any], advertised: tuple[int, int], words: str
) -> None:
    pair = Pair((api.key, *advertised), platform="0.7.1")
    with pytest.raises(UnsupportedServer, match=words) as caught:
        pair.client.version_of(api)
    assert "version 0.7.1" in str(caught.value)
    is_newer = advertised[0] > api.max_version
    assert caught.value.hint == ("upgrade streamkit" if is_newer else "upgrade the cluster")


@pytest.mark.parametrize("api", OF_CONSUMERS, ids=lambda api: api.name)
def test_a_server_older_than_consumer_offsets_is_refused(api: Api[Any, Any]) -> None:
    with pytest.raises(UnsupportedServer, match=r"versions 0 to 22 of .*Consumer.* 23 to 25"):
        Pair((1003, 0, 22)).client.version_of(api)


def test_a_request_that_the_server_does_not_advertise_is_refused() -> None:
    with pytest.raises(UnsupportedServer, match="does not serve StreamFetch"):
        Pair(advertises=False).client.send(apis.STREAM_FETCH, STREAM)


def test_a_request_is_encoded_in_the_negotiated_version() -> None:
    pair = Pair((1003, 0, 22))
    request = pair.send(apis.STREAM_FETCH, replace(STREAM, consumer_id="c"))
    assert request.version == 22
    assert request.body == STREAM, "version 22 has no consumer id"


# docs/protocol/frames.md, "ApiVersions".
PLATFORMS: Final = {
    "0.9.0": None,
    "0.9.0+x": None,
    "0.9.1-alpha": None,
    "0.18.1": None,
    "0.18.2-dev-1": None,
    "1.0.0-rc.1+build.5": None,
    "99.0.0": None,
    "0.8.9": "the oldest supported is 0.9.0",
    "0.9.0-alpha.1": "the oldest supported is 0.9.0",
    "0.0.0": "the oldest supported is 0.9.0",
    "": "server version '' is not valid",
    "abc": "server version 'abc' is not valid",
    "0.18": "server version '0.18' is not valid",
    "01.2.3": "server version '01.2.3' is not valid",
    "1.2.3-01": "is not valid",
    "1.2.3-": "is not valid",
    "1.2.3-a..b": "is not valid",
    "1.2.3\n": "is not valid",
    "\N{ARABIC-INDIC DIGIT ONE}.2.3": "is not valid",
    "9" * 5_000 + ".0.0": "is not valid",
}


@pytest.mark.parametrize(("version", "why"), PLATFORMS.items(), ids=lambda text: str(text)[:30])
def test_a_cluster_with_an_old_or_invalid_version_is_refused(version: str, why: str | None) -> None:
    if why is None:
        check_platform(version)
    else:
        with pytest.raises(UnsupportedServer, match=why):
            check_platform(version)


def test_the_error_for_an_old_cluster_has_a_hint() -> None:
    with pytest.raises(UnsupportedServer) as caught:
        check_platform("0.8.9")
    assert caught.value.hint == "upgrade the cluster"


# --- Responses -------------------------------------------------------------


def test_responses_in_any_order_are_matched_to_their_requests() -> None:
    pair = Pair()
    requests = [pair.send(apis.UPDATE_OFFSETS, REQUEST) for _ in range(3)]
    assert pair.client.unanswered == 3
    data = b"".join(encode_response(request, RESPONSE) for request in reversed(requests))
    assert pair.client.receive(data) == [
        DecodedResponse(n, RESPONSE, is_last=True) for n in (3, 2, 1)
    ]
    assert pair.client.unanswered == 0


def test_a_request_gets_one_response_and_a_stream_gets_any_number() -> None:
    pair = Pair()
    stream, one = pair.send(apis.STREAM_FETCH, STREAM), pair.send(apis.UPDATE_OFFSETS, REQUEST)
    assert stream.api.response_count is ResponseCount.STREAM
    data = encode_response(one, RESPONSE) + encode_response(stream, SLICE) * 3
    assert pair.client.receive(data) == [
        DecodedResponse(2, RESPONSE, is_last=True),
        *[DecodedResponse(1, SLICE, is_last=False)] * 3,
    ]


@pytest.mark.parametrize("times", [1, 2])
def test_a_response_to_an_unknown_request_is_a_protocol_error(times: int) -> None:
    """Otherwise the client would wait forever for the response to its real request."""
    pair = Pair()
    one = pair.send(apis.UPDATE_OFFSETS, REQUEST)
    data = bytearray(encode_response(one, RESPONSE) * times)
    data[7] ^= 0x40 * (times == 1)
    with pytest.raises(RemoteProtocolError, match="response to unknown request"):
        pair.client.receive(bytes(data))


def test_late_responses_to_forgotten_requests_are_dropped() -> None:
    pair = Pair()
    stream, one = pair.send(apis.STREAM_FETCH, STREAM), pair.send(apis.UPDATE_OFFSETS, REQUEST)
    for request in (stream, one):
        pair.client.forget(request.correlation_id)
        pair.client.forget(request.correlation_id)
    assert pair.client.unanswered == 0
    assert (
        pair.client.receive(encode_response(stream, SLICE) * 2 + encode_response(one, RESPONSE))
        == []
    )


def test_only_responses_to_forgotten_requests_are_dropped() -> None:
    pair = Pair()
    forgotten = pair.send(apis.STREAM_FETCH, STREAM)
    pair.client.forget(forgotten.correlation_id)
    never_sent = replace(forgotten, correlation_id=99)
    with pytest.raises(RemoteProtocolError, match="99"):
        pair.client.receive(encode_response(never_sent, SLICE))


def test_a_response_that_cannot_be_decoded_is_a_protocol_error() -> None:
    pair = Pair()
    pair.send(apis.UPDATE_OFFSETS, REQUEST)
    with pytest.raises(RemoteProtocolError, match="elements announced, 0 bytes left"):
        pair.client.receive(frame(b"\0\0\0\x01" + b"\0\0\0\x01"))


def test_a_connection_that_ends_inside_a_response_is_a_protocol_error() -> None:
    pair = Pair()
    response = encode_response(pair.send(apis.UPDATE_OFFSETS, REQUEST), RESPONSE)
    pair.client.receive_eof()
    pair.client.receive(response[:-1])
    with pytest.raises(RemoteProtocolError, match="ends inside a frame"):
        pair.client.receive_eof()


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_the_network_may_split_the_bytes_anywhere(cuts: list[int]) -> None:
    pair = Pair()
    sent = [
        pair.client.send(apis.STREAM_FETCH, STREAM)[1],
        *[pair.client.send(apis.UPDATE_OFFSETS, REQUEST)[1] for _ in range(3)],
    ]
    requests = cut_at(cuts, b"".join(sent), pair.server.receive)
    assert [request.body for request in requests] == [STREAM, REQUEST, REQUEST, REQUEST]
    responses = [
        encode_response(request, SLICE if request.body == STREAM else RESPONSE)
        for request in requests
    ]
    received = cut_at(cuts, b"".join(responses), pair.client.receive)
    assert [response.body for response in received] == [SLICE, RESPONSE, RESPONSE, RESPONSE]


def cut_at(cuts: list[int], data: bytes, receive: Any) -> list[Any]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [message for start, end in pairwise(edges) for message in receive(data[start:end])]


# --- Limits ----------------------------------------------------------------


def test_the_number_of_open_requests_is_limited() -> None:
    pair = Pair()
    requests = [pair.send(apis.UPDATE_OFFSETS, REQUEST) for _ in range(PENDING_REQUESTS_MAX)]
    with pytest.raises(
        LocalProtocolError, match=f"{PENDING_REQUESTS_MAX} requests are already open"
    ):
        pair.client.send(apis.UPDATE_OFFSETS, REQUEST)
    pair.send(apis.STREAM_FETCH, STREAM)  # has its own limit
    pair.client.receive(encode_response(requests[0], RESPONSE))
    assert pair.send(apis.UPDATE_OFFSETS, REQUEST).correlation_id == PENDING_REQUESTS_MAX + 2


def test_the_number_of_open_streams_is_limited() -> None:
    pair = Pair()
    streams = [pair.send(apis.STREAM_FETCH, STREAM) for _ in range(STREAMS_PER_CONNECTION_MAX)]
    assert pair.client.unanswered == 0
    with pytest.raises(
        LocalProtocolError, match=f"{STREAMS_PER_CONNECTION_MAX} streams are already open"
    ):
        pair.client.send(apis.STREAM_FETCH, STREAM)
    pair.client.receive(encode_response(streams[0], SLICE))
    pair.client.forget(streams[0].correlation_id)
    pair.send(apis.STREAM_FETCH, STREAM)


def test_a_request_that_cannot_be_encoded_changes_nothing() -> None:
    pair = Pair()
    for _ in range(PENDING_REQUESTS_MAX + 1):
        with pytest.raises(LocalProtocolError):
            pair.client.send(apis.STREAM_FETCH, replace(STREAM, topic="x" * 40_000))
    assert pair.client.unanswered == 0
    assert pair.send(apis.UPDATE_OFFSETS, REQUEST).correlation_id == 1


def hello_of(size_bytes: int) -> bytes:
    """Return the first frame of a client, extended to this size; the extra bytes are ignored."""
    hello = ClientConnection().hello()[4:]
    return frame(hello + bytes(size_bytes - len(hello)))


def test_the_first_frame_has_a_small_size_limit() -> None:
    server = ServerConnection(SPU_APIS)
    assert not server.has_received_request
    (request,) = server.receive(hello_of(FIRST_FRAME_BYTES_MAX))
    assert server.has_received_request
    assert request.size_bytes == FIRST_FRAME_BYTES_MAX
    with pytest.raises(RemoteProtocolError, match=f"frame length {FIRST_FRAME_BYTES_MAX + 1}"):
        ServerConnection(SPU_APIS).receive(hello_of(FIRST_FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("size", [1 << 30, 1_000])
def test_a_large_frame_may_follow_the_first_immediately(size: int) -> None:
    server = ServerConnection(SPU_APIS)
    data = hello_of(100) + hello_of(FIRST_FRAME_BYTES_MAX + 1)
    assert len([r for piece in pieces(data, size) for r in server.receive(piece)]) == 2


def test_a_server_accepts_frames_up_to_its_limit() -> None:
    server = ServerConnection(SPU_APIS, frame_bytes_max=1_000)
    server.receive(hello_of(100))
    server.receive(hello_of(1_000))
    with pytest.raises(RemoteProtocolError, match="frame length 1001"):
        server.receive(hello_of(1_001))
    connected = ServerConnection(SPU_APIS)
    connected.receive(hello_of(100))
    assert connected.receive(FRAME_BYTES_MAX.to_bytes(4, "big")) == []
    assert connected.held_bytes == 4


# --- What a server refuses -------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("0012000200", "request header cut short"),
        ("270f 0000 00000001 0000", "unknown request 9999"),
        ("0000 ffff 00000001 0000", "request version -1"),
        ("03ed 0000 00000001 0002", "2 bytes announced, 0 left"),
        ("03ed 0000 00000001 8000", "string length -32768"),
        ("03ed 0000 00000001 0000", "4 bytes announced, 0 left"),
        ("03ed 0000 00000001 0000 7fffffff", "2147483647 elements announced, 0 bytes left"),
    ],
)
def test_an_invalid_request_is_refused(payload: str, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        ServerConnection(SPU_APIS).receive(frame(bytes.fromhex(payload)))


def test_the_two_ports_use_the_same_keys_for_different_requests() -> None:
    assert SC_APIS[1003] is apis.LIST
    assert SPU_APIS[1003] is apis.STREAM_FETCH
    assert {key: SPU_APIS[key].name for key in SPU_APIS} == {
        18: "ApiVersions",
        0: "Produce",
        1: "Fetch",
        1002: "FetchOffsets",
        1003: "StreamFetch",
        1005: "UpdateOffsets",
        1006: "UpdateConsumerOffset",
        1007: "DeleteConsumerOffset",
        1008: "FetchConsumerOffsets",
    }
    assert set(SC_APIS) == {18, 1001, 1002, 1003, 1004, 1006}
    streams = {api for table in (SC_APIS, SPU_APIS) for api in table.values()}
    assert {api.name for api in streams if api.response_count is ResponseCount.STREAM} == {
        "StreamFetch",
        "Watch",
    }


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "a TLS hello: this port speaks plain Fluvio"),
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request: this port speaks Fluvio"),
    ],
)
def test_a_server_recognises_a_client_of_another_protocol(data: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        ServerConnection(SPU_APIS).receive(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x15\x03\x03\x00\x02\x02", "a TLS alert: the other side speaks TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP response: the other side is a web server"),
    ],
)
def test_a_client_recognises_a_server_of_another_protocol(data: bytes, words: str) -> None:
    client = ClientConnection()
    client.hello()
    with pytest.raises(RemoteProtocolError, match=words):
        client.receive(data)


def test_a_request_with_bytes_left_after_a_damaged_length_is_refused() -> None:
    """Otherwise the server ignores them and confirms the records as stored."""
    pair = Pair()
    records = bytes(8) + b"records"
    data = TopicProduceData("t", (PartitionProduceData(0, records),))
    _, frame = pair.client.send(apis.PRODUCE, ProduceRequest(topics=(data,)))
    at = frame.index(records) - 4
    frame[at] ^= 0x80
    with pytest.raises(RemoteProtocolError, match="bytes left after the request"):
        pair.server.receive(bytes(frame))


def test_a_produce_request_with_one_byte_too_many_is_refused() -> None:
    pair = Pair()
    data = TopicProduceData("t", (PartitionProduceData(0, b"records"),))
    _, sent = pair.client.send(apis.PRODUCE, ProduceRequest(topics=(data,)))
    with pytest.raises(RemoteProtocolError, match="1 bytes left after the request"):
        pair.server.receive(frame(sent[4:] + b"\0"))
