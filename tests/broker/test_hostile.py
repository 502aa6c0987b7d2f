"""Invalid and slow clients lose their own connection and do not affect other clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from streamkit.broker.broker import Broker
from streamkit.env import SystemClock
from streamkit.limits import (
    FIRST_FRAME_BYTES_MAX,
    FRAME_BYTES_MAX,
    FRAME_S_MAX,
    HANDSHAKE_S_MAX,
    IDLE_S_MAX,
    PENDING_REQUESTS_MAX,
    STREAMS_PER_CONNECTION_MAX,
    TOPIC_NAME_BYTES_MAX,
)
from streamkit.protocol import apis, specs
from streamkit.protocol.control_plane import ApiVersionsRequest, WatchRequest
from streamkit.protocol.data_plane import StreamFetchRequest
from tests.broker.running import (
    batch_of,
    create,
    fetch,
    fetch_request,
    produce,
    produce_request,
    running,
)
from tests.broker.wire import Wire

HELLO = ApiVersionsRequest("0.50.2")
# First bytes of invalid connections, and the text in the log.
INVALID_STARTS = {
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS hello"),
    "TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", "a TLS alert"),
    "HTTP request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "an HTTP request"),
    "huge length": (b"\x7f\xff\xff\xff", "frame length 2147483647"),
    "negative length": (b"\xff\xff\xff\xff", "frame length -1"),
    "zero length": (bytes(4), "frame length 0"),
    "first frame too long": (
        (FIRST_FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        f"frame length {FIRST_FRAME_BYTES_MAX + 1}",
    ),
    "unknown request": (b"\0\0\0\x0a\x27\x0f\0\0\0\0\0\x01\0\0", "unknown request 9999"),
    "negative version": (b"\0\0\0\x0a\0\x12\xff\xff\0\0\0\x01\0\0", "request version -1"),
    "cut short": (b"\0\0\0\x0a\0\x12\0\x02\0\0\0\x01\0\0", "announced"),
}


@pytest.fixture
async def spu(broker: Broker) -> AsyncIterator[Wire]:
    """A correct client that must keep working."""
    async with await Wire.open(broker.sc_address) as sc:
        await create(sc, "t")
    async with await Wire.open(broker.spu_address) as spu:
        assert await produce(spu, "t", batch_of(b"first")) == (0, 0)
        yield spu
        assert (await produce(spu, "t", batch_of(b"last")))[0] == 0


# --- Frames ------------------------------------------------------------------------


@pytest.mark.parametrize("start", INVALID_STARTS)
@pytest.mark.parametrize("port", ["sc", "spu"])
async def test_a_client_of_another_protocol_is_logged_and_disconnected(
    broker: Broker, spu: Wire, port: str, start: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, words = INVALID_STARTS[start]
    address = {"sc": broker.sc_address, "spu": broker.spu_address}[port]
    with caplog.at_level(logging.WARNING, "streamkit.broker"):
        async with await Wire.open(address) as wire:
            wire.send(data)
            assert await wire.until_closed() == b""
    assert words in caplog.text


@pytest.mark.parametrize(
    ("size", "is_accepted"), [(FRAME_BYTES_MAX, True), (FRAME_BYTES_MAX + 1, False)]
)
async def test_a_frame_length_is_checked_before_the_bytes_arrive(
    broker: Broker, spu: Wire, size: int, is_accepted: bool
) -> None:
    async with await Wire.open(broker.spu_address) as wire:
        await wire.call(apis.API_VERSIONS, HELLO)
        wire.send(size.to_bytes(4, "big"))
        if is_accepted:
            wire.end_writing()
        assert await wire.until_closed() == b""


@pytest.mark.parametrize("count", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x09"])
async def test_a_count_larger_than_the_request_closes_the_connection(
    broker: Broker, spu: Wire, count: bytes
) -> None:
    """The number of topics in a Produce request."""
    body = b"\0" + b"\0\x01" + b"\0\0\x05\xdc" + count
    payload = b"\0\0" + b"\0\x19" + b"\0\0\0\x01" + b"\0\x05probe" + body
    async with await Wire.open(broker.spu_address) as wire:
        wire.send(len(payload).to_bytes(4, "big") + payload)
        assert await wire.until_closed() == b""


async def test_random_bytes_never_harm_the_broker(broker: Broker, spu: Wire, is_deep: bool) -> None:
    random = Random(7)
    for _ in range(2_000 if is_deep else 100):
        async with await Wire.open(random.choice((broker.sc_address, broker.spu_address))) as wire:
            payload = random.randbytes(random.randrange(4, 60))
            if random.random() < 0.8:  # a known request header, then random bytes
                key = random.choice((0, 1, 18, 1001, 1002, 1003, 1004, 1005, 1006, 1008))
                version = random.randrange(26)
                payload = key.to_bytes(2, "big") + version.to_bytes(2, "big") + payload
            wire.send(len(payload).to_bytes(4, "big") + payload)
            wire.end_writing()
            await wire.until_closed()
    assert (await fetch(spu, "t")).high_watermark == 1


async def test_a_request_sent_byte_by_byte_gets_a_response(broker: Broker, spu: Wire) -> None:
    async with await Wire.open(broker.spu_address) as wire:
        payload = b"\0\x12\0\x02\0\0\0\x01\0\x05probe\0\x016\0\0\0\0"
        for byte in len(payload).to_bytes(4, "big") + payload:
            wire.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await wire.frame())[4:8] == b"\0\0\0\x01"


# --- Time --------------------------------------------------------------------------


class AdjustableClock(SystemClock):
    """The time of the machine plus ``ahead_s``."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


@pytest.mark.parametrize(
    ("limit_s", "sent"),
    [
        pytest.param(HANDSHAKE_S_MAX, b"", id="nothing"),
        pytest.param(HANDSHAKE_S_MAX, b"\0\0\0\x20\0\x12", id="part of a first frame"),
    ],
)
async def test_a_client_without_a_first_request_is_disconnected_after_the_timeout(
    tmp_path: Path, limit_s: float, sent: bytes
) -> None:
    clock = AdjustableClock()
    async with (
        running(tmp_path, clock=clock) as broker,
        await Wire.open(broker.spu_address) as slow,
        await Wire.open(broker.spu_address) as known,
    ):
        slow.send(sent)
        await known.call(apis.API_VERSIONS, HELLO)
        clock.ahead_s += limit_s + 1
        assert await slow.until_closed() == b""
        await known.call(apis.API_VERSIONS, HELLO)


async def test_a_slow_first_frame_does_not_extend_the_timeout(tmp_path: Path) -> None:
    """Received bytes do not extend the timeout of the first request."""
    clock = AdjustableClock()
    async with (
        running(tmp_path, clock=clock) as broker,
        await Wire.open(broker.spu_address) as slow,
        await Wire.open(broker.spu_address) as known,
    ):
        for byte in b"\0\0\0\x20\0\x12":
            slow.send(bytes([byte]))
            await known.call(apis.API_VERSIONS, HELLO)
            clock.ahead_s += HANDSHAKE_S_MAX / 4
        async with asyncio.timeout(HANDSHAKE_S_MAX / 2):
            assert await slow.until_closed() == b""


async def test_a_slow_frame_is_disconnected_after_the_timeout(tmp_path: Path) -> None:
    clock = AdjustableClock()
    async with (
        running(tmp_path, clock=clock) as broker,
        await Wire.open(broker.spu_address) as slow,
        await Wire.open(broker.spu_address) as known,
    ):
        await slow.call(apis.API_VERSIONS, HELLO)
        slow.send(b"\0\0\0\x20\0\x12")
        await known.call(apis.API_VERSIONS, HELLO)
        clock.ahead_s += FRAME_S_MAX + 1
        assert await slow.until_closed() == b""


async def test_an_idle_connection_is_closed_but_an_idle_stream_is_not(tmp_path: Path) -> None:
    clock = AdjustableClock()
    async with (
        running(tmp_path, clock=clock) as broker,
        await Wire.open(broker.sc_address) as sc,
        await Wire.open(broker.spu_address) as spu,
        await Wire.open(broker.spu_address) as idle,
    ):
        await create(sc, "t")
        watch = sc.start(apis.WATCH, WatchRequest(specs.TOPIC))
        await sc.response(watch)
        stream = spu.start(apis.STREAM_FETCH, StreamFetchRequest("t", 0, 0, 100))
        await spu.call(apis.API_VERSIONS, HELLO)
        await idle.call(apis.API_VERSIONS, HELLO)
        clock.ahead_s += IDLE_S_MAX + 1
        assert await idle.until_closed() == b""
        await create(sc, "u")
        assert (await sc.response(watch)).changes[0].item.name == "u"
        await produce(spu, "t", batch_of(b"x"))
        assert (await spu.response(stream)).partition.records


# --- Limits ------------------------------------------------------------------------


async def test_requests_above_the_limit_wait_and_all_get_a_response(
    broker: Broker, spu: Wire
) -> None:
    count = PENDING_REQUESTS_MAX * 4
    sent = [
        spu.start(apis.PRODUCE, produce_request("t", (0, batch_of(b"x")))) for _ in range(count)
    ]
    responses = [await spu.response(each) for each in sent]
    offsets = [response.topics[0].partitions[0].base_offset for response in responses]
    assert offsets == list(range(1, count + 1))


@pytest.mark.parametrize("more", [0, 1])
async def test_the_streams_of_a_connection_are_limited(
    broker: Broker, spu: Wire, more: int
) -> None:
    async with await Wire.open(broker.spu_address) as wire:
        for _ in range(STREAMS_PER_CONNECTION_MAX + more):
            wire.start(apis.STREAM_FETCH, StreamFetchRequest("t", 0, 1, 100))
        if more:
            assert await wire.until_closed() == b""
        else:
            await wire.call(apis.API_VERSIONS, HELLO)


@pytest.mark.parametrize(
    ("length", "code"), [(TOPIC_NAME_BYTES_MAX, 0), (TOPIC_NAME_BYTES_MAX + 1, 2006)]
)
async def test_the_length_of_a_topic_name_is_limited(
    broker: Broker, length: int, code: int
) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        assert (await create(sc, "n" * length)).error.code == code


async def test_a_client_that_never_reads_does_not_block_the_others(
    broker: Broker, spu: Wire
) -> None:
    big = batch_of(bytes(1_000_000))
    for _ in range(8):
        await produce(spu, "t", big)
    async with await Wire.open(broker.spu_address) as greedy:
        for _ in range(PENDING_REQUESTS_MAX):
            greedy.start(apis.FETCH, fetch_request("t", 0, 0, 9_000_000))
        assert await produce(spu, "t", batch_of(b"x")) == (0, 9)
    async with await Wire.open(broker.spu_address) as next_one:
        assert (await fetch(next_one, "t", offset=9)).high_watermark == 10
