"""Cutting a byte stream into frames."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.errors import RemoteProtocolError
from streamkit.limits import FRAME_BYTES_MAX, FRAME_BYTES_MIN
from streamkit.protocol.frames import FrameDecoder, frame
from tests.protocol.recorded import pieces

OTHER_PROTOCOLS = {
    b"\x16\x03\x01\x02": "a TLS hello: this port speaks plain Fluvio",
    b"\x15\x03\x03\x00": "a TLS alert: the other side speaks TLS",
    b"GET ": "an HTTP request: this port speaks Fluvio",
    b"POST": "an HTTP request: this port speaks Fluvio",
    b"HTTP": "an HTTP response: the other side is a web server",
}


def test_a_frame_is_its_length_and_its_payload() -> None:
    assert frame(b"abcd") == b"\0\0\0\x04abcd"
    assert FrameDecoder().receive(b"\0\0\0\x04abcd") == [b"abcd"]


@given(
    payloads=st.lists(st.binary(min_size=FRAME_BYTES_MIN, max_size=30), max_size=6),
    cuts=st.lists(st.integers(0, 200), max_size=10),
)
def test_the_network_may_split_the_bytes_anywhere(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    decoder = FrameDecoder()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [
        payload for start, end in pairwise(edges) for payload in decoder.receive(stream[start:end])
    ]
    assert found == payloads
    assert decoder.held_bytes == 0
    decoder.receive_eof()


@pytest.mark.parametrize("length", [-(2**31), -1, 0, FRAME_BYTES_MIN - 1, FRAME_BYTES_MAX + 1])
def test_an_invalid_length_is_refused_as_soon_as_its_four_bytes_arrive(length: int) -> None:
    prefix = length.to_bytes(4, "big", signed=True)
    decoder = FrameDecoder()
    assert decoder.receive(prefix[:3]) == []
    with pytest.raises(RemoteProtocolError, match=f"frame length {length}"):
        decoder.receive(prefix[3:])


@pytest.mark.parametrize("length", [FRAME_BYTES_MIN, FRAME_BYTES_MAX])
def test_a_decoder_waits_for_the_content_of_a_frame_of_valid_length(length: int) -> None:
    decoder = FrameDecoder()
    assert decoder.receive(length.to_bytes(4, "big")) == []
    assert decoder.held_bytes == 4


def test_the_first_frame_may_have_its_own_size_limit() -> None:
    small, large = frame(bytes(8)), frame(bytes(9))
    with pytest.raises(RemoteProtocolError, match="frame length 9"):
        FrameDecoder(first_frame_bytes_max=8).receive(large)
    for size in (1, 100):
        decoder = FrameDecoder(9, first_frame_bytes_max=8)
        found = [
            payload for piece in pieces(small + large, size) for payload in decoder.receive(piece)
        ]
        assert found == [bytes(8), bytes(9)]
        with pytest.raises(RemoteProtocolError, match="frame length 10"):
            decoder.receive(frame(bytes(10)))


@pytest.mark.parametrize(("prefix", "words"), OTHER_PROTOCOLS.items(), ids=str)
def test_the_error_names_another_known_protocol(prefix: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        FrameDecoder().receive(prefix + b"whatever")


def test_memory_grows_with_received_bytes_not_with_announced_bytes() -> None:
    tracemalloc.start()
    try:
        FrameDecoder().receive(FRAME_BYTES_MAX.to_bytes(4, "big") + bytes(100))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_a_stream_that_ends_inside_a_frame_is_refused(size: int) -> None:
    decoder = FrameDecoder()
    decoder.receive(frame(b"abcd") + frame(b"efgh")[:size])
    assert decoder.held_bytes == size
    with pytest.raises(RemoteProtocolError, match="ends inside a frame"):
        decoder.receive_eof()
