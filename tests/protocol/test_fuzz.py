"""Arbitrary bytes are decoded or refused, and a small message uses little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.protocol import consumer_offset_log, smartmodule_io
from streamkit.protocol.apis import Api
from streamkit.protocol.batch import decode_batch, whole_batches
from streamkit.protocol.connection import ClientConnection, ServerConnection
from streamkit.protocol.control_plane import ApiRange, ApiVersionsResponse, UnknownObject
from streamkit.protocol.error_codes import ERROR_CODE, NO_ERROR
from streamkit.protocol.frames import FrameDecoder, frame
from streamkit.protocol.schema import Wire, decode, encode, struct
from tests.lanes import examples
from tests.protocol.recorded import (
    APIS,
    SESSIONS,
    body_at,
    pieces,
    session,
    speaking,
    vectors,
)

VERSIONS_MAX: Final = {"sc": 19, "spu": 25}
WIRES: Final[dict[str, Wire[Any]]] = {
    **{
        f"{port} {api.name} {what}": wire
        for port, table in APIS.items()
        for api in table.values()
        for what, wire in (("request", api.request), ("response", api.response))
    },
    "error code": ERROR_CODE,
    "consumer offset entry": consumer_offset_log.ENTRY,
    "smartmodule input": smartmodule_io.SMARTMODULE_INPUT,
    "smartmodule output": smartmodule_io.SMARTMODULE_OUTPUT,
    "aggregate input": smartmodule_io.AGGREGATE_INPUT,
    "aggregate output": smartmodule_io.AGGREGATE_OUTPUT,
    "look back output": smartmodule_io.LOOK_BACK_OUTPUT,
}
# Boundary values of lengths, and bytes that are frequent in messages.
BYTES: Final = st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF]) | st.integers(0, 255)
GARBAGE: Final = st.lists(BYTES, max_size=120).map(bytes)


@st.composite
def damaged(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """Change a few bytes of real data, and truncate or extend it."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(BYTES)
    cut = draw(st.integers(0, len(data)))
    return bytes(draw(st.sampled_from([data, data[:cut], data[:cut] + draw(GARBAGE)])))


@cache
def frames(port: str, kind: str) -> list[bytes]:
    is_client = kind == "request"
    recorded = {
        line.data
        for name in SESSIONS
        for line in session(name)
        if line.port == port and line.is_client == is_client
    }
    written = {
        vector.data
        for vector in vectors("data_plane.json", "control_plane.json")
        if vector.kind == f"frame_{kind}" and vector.raw["port"] == port
    }
    return sorted(recorded | written)


@cache
def bodies(port: str, kind: str) -> list[bytes]:
    return [data[body_at(data, kind) :] for data in frames(port, kind) if len(data) > 12]


def corpus_of(name: str) -> list[bytes]:
    port, _, kind = name.partition(" ")
    if port in APIS:
        return bodies(port, kind.split()[-1])
    return [vector.data for vector in vectors("data_plane.json")]


def outcome(receive: Callable[[bytes], list[Any]], data: bytes, size: int) -> tuple[Any, str]:
    """Return the messages and the text of the error; no other class of error is allowed."""
    found: list[Any] = []
    try:
        for piece in pieces(data, size):
            found += receive(piece)
    except RemoteProtocolError as error:
        return found, str(error)
    return found, ""


def check_cuts(make: Callable[[], Callable[[bytes], list[Any]]], data: bytes) -> None:
    """Receive the data in one call and byte by byte; both must give the same result.

    Messages before an invalid frame are returned only if an earlier call received them. If both a
    message and a later frame are invalid, one call reports the frame.
    """
    whole, error_of_whole = outcome(make(), data, len(data) or 1)
    singly, error_of_bytes = outcome(make(), data, 1)
    assert bool(error_of_whole) == bool(error_of_bytes)
    assert error_of_whole == error_of_bytes or "frame" in error_of_whole
    assert whole == ([] if error_of_whole else singly)


# --- Streams of bytes ------------------------------------------------------


@given(data=GARBAGE | st.binary(max_size=100) | st.lists(GARBAGE.map(frame)).map(b"".join))
def test_any_bytes_are_read_as_frames_or_refused(data: bytes) -> None:
    check_cuts(lambda: FrameDecoder().receive, data)


@pytest.mark.parametrize("port", APIS)
@given(data=st.data())
def test_any_bytes_are_read_as_requests_or_refused(port: str, data: st.DataObject) -> None:
    corpus = frames(port, "request")
    stream = data.draw(
        GARBAGE
        | GARBAGE.map(frame)
        | damaged(corpus)
        | st.lists(st.sampled_from(corpus) | damaged(corpus).map(frame), max_size=3).map(b"".join)
    )
    check_cuts(lambda: ServerConnection(APIS[port]).receive, stream)


def client_waiting_for(port: str, api: Api[Any, Any], version: int, data: bytes) -> Any:
    """Return the `receive` method of a client with open requests of this type."""
    body = next(
        request.body
        for line in frames(port, "request")
        if (request := first_request(port, line)) is not None and request.api is api
        if not isinstance(request.body, UnknownObject)  # old versions have no names for types
    )
    client = ClientConnection()
    client.hello()
    client.receive(HELLO_RESPONSE)
    for _ in range(3):
        client.send(speaking(api, version), body)
    return client.receive


# The hello response of a server that serves every request in every version.
HELLO_RESPONSE: Final = frame(
    (1).to_bytes(4, "big")
    + encode(
        struct(ApiVersionsResponse),
        ApiVersionsResponse(
            NO_ERROR, tuple(ApiRange(key, 0, 99) for table in APIS.values() for key in table), ""
        ),
        0,
    )
)


@cache
def first_request(port: str, data: bytes) -> Any:
    try:
        found = ServerConnection(APIS[port]).receive(data)
    except RemoteProtocolError:
        return None
    return found[0] if found else None


RECORDED: Final = [
    (port, api)
    for port, table in APIS.items()
    for api in table.values()
    if any(
        request is not None and request.api is api
        for request in (first_request(port, data) for data in frames(port, "request"))
    )
]


def test_every_request_type_was_recorded() -> None:
    assert [(port, api) for port, table in APIS.items() for api in table.values()] == RECORDED


@pytest.mark.parametrize(
    ("port", "api"), RECORDED, ids=[f"{port} {api.name}" for port, api in RECORDED]
)
@examples(40)
@given(data=st.data())
def test_any_bytes_are_read_as_responses_or_refused(
    port: str, api: Api[Any, Any], data: st.DataObject
) -> None:
    def numbered(body: bytes) -> bytes:
        return frame(data.draw(st.integers(1, 3)).to_bytes(4, "big") + body)

    version = data.draw(st.integers(api.min_version, api.max_version))
    stream = data.draw(
        GARBAGE
        | damaged(bodies(port, "response")).map(numbered)
        | st.lists(damaged(bodies(port, "response")).map(numbered), max_size=2).map(b"".join)
    )
    check_cuts(lambda: client_waiting_for(port, api, version, stream), stream)


# --- Bodies ----------------------------------------------------------------


@pytest.mark.parametrize("name", WIRES)
@examples(50)
@given(data=st.data())
def test_any_bytes_are_read_as_a_body_or_refused(name: str, data: st.DataObject) -> None:
    """A decoded value can be encoded and decodes to the same value again."""
    wire = WIRES[name]
    version = data.draw(st.integers(0, VERSIONS_MAX.get(name.partition(" ")[0], 25)))
    body = data.draw(GARBAGE | damaged(corpus_of(name)))
    try:
        value = decode(wire, body, version)
    except RemoteProtocolError:
        return  # the only error that is allowed
    assert decode(wire, encode(wire, value, version), version) == value


@pytest.mark.parametrize("kind", ["request", "response"])
@pytest.mark.parametrize("port", APIS)
def test_every_truncated_message_is_refused(port: str, kind: str) -> None:
    for vector in vectors("data_plane.json", "control_plane.json"):
        if vector.kind != f"frame_{kind}" or vector.raw["port"] != port:
            continue
        wire = vector.api.request if kind == "request" else vector.api.response
        body = vector.data[body_at(vector.data, kind) :]
        for end in range(len(body)):
            with pytest.raises(RemoteProtocolError):
                decode(wire, body[:end], vector.version)


# --- Batches ---------------------------------------------------------------


@given(data=damaged([vector.data for vector in vectors("data_plane.json")]) | GARBAGE)
def test_any_bytes_are_read_as_batches_or_refused(data: bytes) -> None:
    try:
        for header, at in whole_batches(data):
            decode_batch(data, at, header)
    except (RemoteProtocolError, CorruptBatch):
        pass  # in a header; in the records


# --- Memory ----------------------------------------------------------------


@pytest.mark.parametrize("count", [2**31 - 1, 2**24, 70_000])
@pytest.mark.parametrize("name", WIRES)
def test_an_announced_count_allocates_no_memory(name: str, count: int) -> None:
    """A huge count, anywhere in a real message, is refused before memory is allocated."""
    wire, corpus = WIRES[name], corpus_of(name)[:20]
    tracemalloc.start()
    try:
        for body in corpus:
            for at in range(min(len(body), 60) - 4):
                changed = body[:at] + count.to_bytes(4, "big") + body[at + 4 :]
                try:
                    decode(wire, changed, 25)
                except RemoteProtocolError:
                    pass  # the only error that is allowed
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
