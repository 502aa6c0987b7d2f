"""`HttpSink`: what is sent, what is retried, and which records fail."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from streamkit import Secret
from streamkit.connectors import Chunk, WriteFailed
from streamkit.connectors.http import HttpSink
from streamkit.errors import StreamKitError, UsageError
from tests.http_connectors.scripted import Run, assert_doubles, reply, scripted


def chunk(*rows: bytes, first: int = 0) -> Chunk:
    count = len(rows)
    offsets = range(first, first + count)
    return Chunk(rows, [None] * count, [0] * count, offsets, "orders", 0)


async def write(sink: HttpSink, *chunks: Chunk, run: Run | None = None) -> list[int]:
    writer = sink.writer((run or Run()).env)
    await writer.open({})
    try:
        return [await writer.write(each, lambda: False) for each in chunks]
    finally:
        await writer.close()


async def test_each_record_is_a_request() -> None:
    async with scripted(lambda asked: reply(status=201)) as server:
        sink = HttpSink(server.url + "/x?a=1", method="PUT", bearer=Secret("t"))
        assert await write(sink, chunk(b"1", b"2")) == [2]
    assert [(e.method, e.target, e.body) for e in server.asked] == [
        ("PUT", "/x?a=1", b"1"),
        ("PUT", "/x?a=1", b"2"),
    ]
    assert server.asked[0].headers["content-type"] == "application/json"
    assert server.asked[0].headers["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("body", "sent"), [("array", [b"[1,2]", b"[3]"]), ("lines", [b"1\n2\n", b"3\n"])]
)
async def test_a_batch_is_one_request(body: Any, sent: list[bytes]) -> None:
    async with scripted(lambda asked: reply()) as server:
        await write(HttpSink(server.url, batch=2, body=body), chunk(b"1", b"2", b"3"))
    assert [each.body for each in server.asked] == sent


@pytest.mark.parametrize(
    "fault", [b"", b"HTTP/1.1 20", reply(status=500), reply(status=425), reply(status=408)]
)
async def test_a_fault_is_retried(fault: bytes) -> None:
    answers = [fault, fault, reply()]
    run = Run()
    async with scripted(lambda asked: answers.pop(0)) as server:
        assert await write(HttpSink(server.url), chunk(b"1"), run=run) == [1]
    assert [each.body for each in server.asked] == [b"1"] * 3
    assert_doubles(run.clock.slept)


async def test_half_of_a_wait_is_random() -> None:
    answers = [*[b""] * 40, reply()]
    run = Run()
    async with scripted(lambda asked: answers.pop(0)) as server:
        assert await write(HttpSink(server.url), chunk(b"1"), run=run) == [1]
    assert_doubles(run.clock.slept)
    longest = run.clock.slept[8:]
    assert 30 <= min(longest) < 45 < max(longest) <= 60
    assert len(set(longest)) > len(longest) / 2


async def test_retry_after_is_obeyed_but_not_for_days() -> None:
    answers = [reply(status=429, headers={"Retry-After": each}) for each in ("30", "999999")]
    answers.append(reply())
    run = Run()
    async with scripted(lambda asked: answers.pop(0)) as server:
        await write(HttpSink(server.url), chunk(b"1"), run=run)
    assert run.clock.slept == [30.0, 3600.0]


@pytest.mark.parametrize("answer", [reply(b"cut", length=99), reply(b"x" * 100_000)])
async def test_a_record_that_was_accepted_is_not_sent_again(answer: bytes) -> None:
    async with scripted(lambda asked: answer) as server:
        assert await write(HttpSink(server.url), chunk(b"1")) == [1]
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 400, 403, 404, 409, 413, 422])
async def test_a_record_that_is_refused_fails(status: int) -> None:
    answers = [reply(), reply(b"bad row", status)]
    async with scripted(lambda asked: answers.pop(0)) as server:
        with pytest.raises(WriteFailed) as found:
            await write(HttpSink(server.url), chunk(b"1", b"2", b"3"))
    assert (found.value.row, found.value.rows) == (1, 1)
    assert f"returned status {status}: bad row" in str(found.value.__cause__)


async def test_a_record_that_has_changed_nothing_is_not_written() -> None:
    async with scripted(lambda asked: reply(status=304)) as server:
        with pytest.raises(WriteFailed):
            await write(HttpSink(server.url, "PUT"), chunk(b"1"))


async def test_a_login_that_is_refused_is_not_an_error_of_a_record() -> None:
    async with scripted(lambda asked: reply(b"bad token", 401)) as server:
        with pytest.raises(StreamKitError, match="returned status 401: bad token") as found:
            await write(HttpSink(server.url), chunk(b"1", b"2"))
    assert not isinstance(found.value, WriteFailed)
    assert "bearer=" in found.value.hint
    assert len(server.asked) == 1


async def test_a_batch_that_is_refused_fails_as_a_whole() -> None:
    answers = [reply(), reply(status=400)]
    async with scripted(lambda asked: answers.pop(0)) as server:
        with pytest.raises(WriteFailed) as found:
            await write(HttpSink(server.url, batch=2), chunk(b"1", b"2", b"3", b"4", b"5"))
    assert (found.value.row, found.value.rows) == (2, 2)


async def test_a_record_fails_after_its_attempts() -> None:
    async with scripted(lambda asked: reply(status=503)) as server:
        with pytest.raises(WriteFailed) as found:
            await write(HttpSink(server.url, attempts=3), chunk(b"1"))
        assert len(server.asked) == 3
    assert "failed after 3 attempts" in str(found.value.__cause__)


async def test_the_idempotency_key_of_a_record_never_changes() -> None:
    sent: list[list[str]] = []
    for cuts in ([3], [1, 2]):
        answers = iter([b"", *[reply()] * 3])  # the first request is repeated
        async with scripted(partial(lambda left, asked: next(left), answers)) as server:
            sink = HttpSink(server.url, idempotency="Idempotency-Key")
            rows, chunks = [b"1", b"2", b"2"], []
            for size in cuts:
                chunks.append(chunk(*rows[:size], first=3 - len(rows)))
                rows = rows[size:]
            await write(sink, *chunks)
        sent.append([each.headers["idempotency-key"] for each in server.asked])
    assert sent[0] == sent[1]
    assert sent[0][0] == sent[0][1]
    assert len(set(sent[0])) == 3


async def test_a_write_ends_when_its_time_is_over() -> None:
    async with scripted(lambda asked: reply()) as server:
        writer = HttpSink(server.url).writer(Run().env)
        await writer.open({})
        assert await writer.write(chunk(b"1", b"2"), lambda: True) == 1
        await writer.close()


def test_passwords_are_not_shown() -> None:
    sink = HttpSink(
        "https://joe:hunter2@example.com/x?key=hunter2", auth=("joe", Secret("hunter2"))
    )
    assert "hunter2" not in repr(sink) + str(sink) + sink.writer(Run().env).description


@pytest.mark.parametrize(
    "options", [{"method": "GET"}, {"batch": 0}, {"attempts": 0}, {"idempotency": "a b"}]
)
def test_an_invalid_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HttpSink(**{"url": "http://example.com", **options})
