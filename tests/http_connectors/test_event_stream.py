"""Server-sent events: the format however it is cut, and the source over real sockets."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.connectors.http import ServerSentEvents
from streamkit.connectors.http.event_stream import Event, EventStream
from streamkit.errors import StreamKitError, UsageError
from tests.http_connectors.scripted import (
    Asked,
    Run,
    read_all,
    read_chunks,
    read_rows,
    reply,
    scripted,
)

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "Connection": "close"}
STREAM = (
    b"\xef\xbb\xbf: a comment\n"
    b"id: 1\ndata: one\n\n"
    b"event: order\r\ndata: two\r\ndata:  lines\r\nid: 2\r\n\r\n"
    b"data\rdata\rretry: 250\r\r"
    b"id: 4\n\n"
    b"id: bad\0id\nunknown: x\ndata:no space\n\n"
    b"data: incomplete"
)
EXPECTED = [
    Event(b"one", "message", "1"),
    Event(b"two\n lines", "order", "2"),
    Event(b"\n", "message", "2"),
    Event(b"no space", "message", "4"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_the_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    stream = EventStream(max_event_bytes=100)
    edges = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[a:b] for a, b in pairwise(edges)]
    assert [event for part in parts for event in stream.feed(part)] == EXPECTED
    assert stream.retry_s == 0.25


def test_every_byte_may_come_alone() -> None:
    stream = EventStream(max_event_bytes=100)
    found = [event for at in range(len(STREAM)) for event in stream.feed(STREAM[at : at + 1])]
    assert found == EXPECTED


@pytest.mark.parametrize("data", [b"data: " + b"x" * 200, b"data: 1234567890\n" * 20])
def test_an_event_that_is_too_large_is_refused(data: bytes) -> None:
    with pytest.raises(StreamKitError, match="larger than 100 bytes"):
        EventStream(max_event_bytes=100).feed(data)


def numbered(after: int, count: int, last: int = 9) -> bytes:
    events = range(after + 1, min(after + count, last) + 1)
    return b"".join(b"id: %d\ndata: %d\n\n" % (each, each) for each in events)


def stream_of_nine(asked: Asked) -> bytes:
    """Lose the connection in the middle of each third event."""
    after = int(asked.headers.get("last-event-id", "0"))
    if after == 9:
        return reply(b"", 204)
    return reply(numbered(after, 2) + b"data: cut", headers=EVENTS, length=9_999)


async def test_a_stream_is_resumed_after_its_last_event() -> None:
    run = Run(until_end=False)
    async with scripted(stream_of_nine) as server:
        rows = await read_all(ServerSentEvents(server.url).reader(run.env))
        assert rows == [b"%d" % each for each in range(1, 10)]
        asked = [each.headers.get("last-event-id") for each in server.asked]
        assert asked == [None, "2", "4", "6", "8", "9"]


@pytest.mark.parametrize("count", range(1, 9))
async def test_a_run_resumes_after_every_event(count: int) -> None:
    async with scripted(stream_of_nine) as server:
        source = ServerSentEvents(server.url)
        first, position = await read_rows(source.reader(Run(until_end=False).env), count, {})
        second, _ = await read_rows(source.reader(Run(until_end=False).env), 99, position)
    assert first + second == [b"%d" % each for each in range(1, 10)]


async def test_the_server_sets_the_time_until_the_stream_is_requested_again() -> None:
    answers = [reply(b"retry: 1500\n\n", headers=EVENTS), reply(b"", 204)]
    run = Run(until_end=False)
    async with scripted(lambda asked: answers.pop(0)) as server:
        await read_all(ServerSentEvents(server.url).reader(run.env))
    assert run.clock.slept == [1.5]


async def test_a_run_until_the_end_reads_one_stream() -> None:
    async with scripted(lambda asked: reply(numbered(0, 3), headers=EVENTS)) as server:
        assert await read_all(ServerSentEvents(server.url).reader(Run().env)) == [b"1", b"2", b"3"]


async def test_the_type_of_an_event_is_the_key_and_can_be_chosen() -> None:
    body = b"event: a\ndata: 1\n\nevent: b\ndata: 2\n\n"
    async with scripted(lambda asked: reply(body, headers=EVENTS)) as server:
        chunks = await read_chunks(ServerSentEvents(server.url, events=("b",)).reader(Run().env))
    assert [(row, key) for c in chunks for row, key in zip(c.values, c.keys, strict=True)] == [
        (b"2", b"b")
    ]


async def test_a_response_that_is_not_events_ends_the_job() -> None:
    async with scripted(lambda asked: reply({"a": 1})) as server:
        with pytest.raises(StreamKitError, match="with the type ''"):
            await read_all(ServerSentEvents(server.url).reader(Run(until_end=False).env))


async def test_a_server_that_is_unavailable_is_asked_again() -> None:
    answers = [reply(b"", 503, {"Retry-After": "9"}), b"", reply(b"", 204)]
    run = Run(until_end=False)
    async with scripted(lambda asked: answers.pop(0)) as server:
        await read_all(ServerSentEvents(server.url).reader(run.env))
    assert run.clock.slept[0] == 9.0
    assert 0.5 <= run.clock.slept[1] <= 1.0


@pytest.mark.parametrize("options", [{"url": "http://"}, {"timeout": "soon"}, {"attempts": 0}])
def test_an_invalid_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ServerSentEvents(**{"url": "http://example.com", **options})
