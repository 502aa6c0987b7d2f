"""Services that respond in other ways than documented: no record is lost or changed in silence."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from streamkit.connectors.http import Cursor, HttpPoll, HttpSink, ServerSentEvents
from streamkit.errors import StreamKitError, UsageError
from streamkit.settings.secret import Secret
from tests.http_connectors.scripted import Asked, Run, read_all, reply, scripted
from tests.http_connectors.test_post import chunk, write


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def read(source: HttpPoll) -> list[bytes]:
    return await read_all(source.reader(Run().env))


async def test_numbers_keep_their_digits() -> None:
    body = (
        b'[{"n":12345678901234567.89},{"n":0.1000000000000000000001},{"n":1e400},'
        b'{"n":0.30000000000000004},{"n":-1.5},{"n":1.10},{"n":18446744073709551616}]'
    )
    async with scripted(lambda asked: reply(body)) as server:
        rows = await read(HttpPoll(server.url))
    expected = [each["n"] for each in json.loads(body, parse_float=Decimal, parse_int=Decimal)]
    found = [json.loads(each, parse_float=Decimal, parse_int=Decimal)["n"] for each in rows]
    assert found == expected
    Row = msgspec.defstruct("Row", [("n", Decimal)])
    assert [msgspec.json.decode(each, type=Row).n for each in rows] == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("marks", "is_refused"),
    [
        (["ord-003", "ord-002", "ord-001"], True),
        ([3.5, 2.5], True),
        (["3.5", "2.5"], True),
        (["ord-8", "ord-9", "ord-10"], False),
        (["item-9", "item-10"], False),
        (["12e3", "95"], False),
        (["b", "a"], False),
        ([1.5, 2.5], False),
    ],
)
async def test_the_newest_records_first_are_refused(marks: list[Any], is_refused: bool) -> None:
    def script(asked: Asked) -> bytes:
        return reply([] if asked.query else [{"at": each} for each in marks])

    async with scripted(script) as server:
        source = HttpPoll(server.url, cursor=Cursor("after", record="at"))
        if is_refused:
            with pytest.raises(StreamKitError, match="the records must ascend"):
                await read(source)
        else:
            assert len(await read(source)) == len(marks)


@pytest.mark.parametrize("following", ["same", None])
async def test_a_service_that_has_more_but_no_new_cursor_is_refused(following: str | None) -> None:
    def script(asked: Asked) -> bytes:
        return reply({"rows": [1, 2], "next": following, "more": True})

    cursor = Cursor("cursor", body="next", more="more")
    async with scripted(script) as server:
        with pytest.raises(StreamKitError, match="has more records after more='more'"):
            await read(HttpPoll(server.url, records="rows", cursor=cursor))


async def test_more_records_with_one_value_than_on_a_page_are_refused() -> None:
    rows = [{"at": 7, "n": number} for number in range(5)]
    cursor = Cursor("since", record="at", more="more")
    async with scripted(lambda asked: reply({"rows": rows[:3], "more": True})) as server:
        with pytest.raises(StreamKitError, match="were read before"):
            await read(HttpPoll(server.url, records="rows", cursor=cursor))


@pytest.mark.parametrize(
    ("cursor", "text"),
    [
        (Cursor("offset", counts="records"), "has the same records as page 0"),
        (Cursor("after", record="at"), "which is before it"),
    ],
)
async def test_a_parameter_that_the_service_ignores_does_not_repeat_the_page_for_ever(
    cursor: Cursor, text: str
) -> None:
    rows = [{"at": number} for number in range(5)]
    async with scripted(lambda asked: reply(rows)) as server:
        with pytest.raises(StreamKitError, match=text):
            await read(HttpPoll(server.url, cursor=cursor))
    assert len(server.asked) == 2


async def test_a_response_without_a_body_is_retried() -> None:
    pages = [reply({"rows": [1], "next": "b"}), reply(b""), reply({"rows": [2], "next": None})]
    async with scripted(lambda asked: pages.pop(0)) as server:
        source = HttpPoll(server.url, records="rows", cursor=Cursor("cursor", body="next"))
        assert await read(source) == [b"1", b"2"]


async def test_204_has_no_records() -> None:
    async with scripted(lambda asked: reply(b"", 204)) as server:
        assert await read(HttpPoll(server.url)) == []


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"\x0b\x02\x80", 503, {"Content-Encoding": "br"}),
        reply(b"x" * 2_000, 503),
    ],
    ids=["encoded", "large"],
)
async def test_the_body_of_an_error_does_not_matter(answer: bytes) -> None:
    answers = [answer, reply([1])]
    async with scripted(lambda asked: answers.pop(0)) as server:
        assert await read(HttpPoll(server.url, max_body_bytes=1_000)) == [b"1"]


async def test_an_etag_that_is_not_ascii_is_not_sent_back() -> None:
    async with scripted(lambda asked: reply([1], headers={"ETag": '"\xe9"'})) as server:
        source = HttpPoll(server.url)
        reader = source.reader(Run().env)
        await reader.open({})
        found = await reader.next()
        assert found is not None
        key, position = reader.position_after(found)
        await reader.close()
        assert await read_all(source.reader(Run().env), {key: position}) == []


@pytest.mark.parametrize("target", ["http://127.0.0.1:99999/", "http://[::1/"])
@pytest.mark.parametrize("way", ["redirect", "link", "next"])
async def test_a_url_that_is_none_is_named(target: str, way: str) -> None:
    headers = {"Location": target} if way == "redirect" else {"Link": f'<{target}>; rel="next"'}
    body: Any = {"rows": [1], "next": target} if way == "next" else [1]
    answer = reply(body, 302 if way == "redirect" else 200, {} if way == "next" else headers)
    options: dict[str, Any] = {"next_url": "next", "records": "rows"} if way == "next" else {}
    async with scripted(lambda asked: answer) as server:
        with pytest.raises(StreamKitError, match="which is no URL"):
            await read(HttpPoll(server.url, **options))


async def test_json_that_is_nested_too_deeply_is_not_valid() -> None:
    async with scripted(lambda asked: reply(b"[" * 100_000)) as server:
        with pytest.raises(StreamKitError, match="nested too deeply"):
            await read(HttpPoll(server.url, attempts=1))


def test_a_header_that_is_not_ascii_is_named() -> None:
    for make in (HttpPoll, HttpSink):
        with pytest.raises(UsageError, match=r"header X-Name has .* not ASCII"):
            make("http://example.com", headers={"X-Name": "ö"})


@pytest.mark.parametrize(
    "login",
    [{"bearer": Secret("t0ken")}, {"auth": ("joe", Secret("hunter2"))}],
    ids=["bearer", "auth"],
)
async def test_a_secret_that_the_service_repeats_is_not_shown(login: dict[str, Any]) -> None:
    def script(asked: Asked) -> bytes:
        return reply(f"{asked.headers['authorization']}, {asked.headers['x-key']}".encode(), 403)

    async with scripted(script) as server:
        source = HttpPoll(server.url, headers={"X-Key": Secret("k3y")}, **login)
        with pytest.raises(StreamKitError, match=r": (Bearer|Basic) \*\*\*, \*\*\*"):
            await read(source)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3]])
async def test_equal_values_of_one_source_record_have_their_own_keys(order: list[int]) -> None:
    """A branch with an async stage may be later than another one by some source records."""
    async with scripted(lambda asked: reply()) as server:
        sink = HttpSink(server.url, idempotency="K")
        first = [0, 0, 1, 1]
        await write(sink, *(chunk(b"book", first=first[each]) for each in order))
    assert len({asked.headers["k"] for asked in server.asked}) == 4


@pytest.mark.parametrize("value", [b"", b"a\nb"])
def test_bytes_that_are_not_one_line_are_refused(value: bytes) -> None:
    encode = HttpSink("http://example.com", batch=2, body="lines").encoder(bytes, None).dumps
    assert encode(b"{}") == b"{}"
    with pytest.raises(ValueError, match="are not one line"):
        encode(value)


EVENTS = {"Content-Type": "text/event-stream"}


async def test_the_end_of_the_stream_completes_an_event_with_carriage_returns() -> None:
    async with scripted(lambda asked: reply(b"data: 1\r\rdata: 2\r\r", headers=EVENTS)) as server:
        source = ServerSentEvents(server.url)
        assert await read_all(source.reader(Run().env)) == [b"1", b"2"]


async def test_events_that_are_encoded_are_refused() -> None:
    headers = {**EVENTS, "Content-Encoding": "gzip"}
    async with scripted(lambda asked: reply(b"data: 1\n\n", headers=headers)) as server:
        with pytest.raises(StreamKitError, match="have the encoding 'gzip'"):
            await read_all(ServerSentEvents(server.url).reader(Run().env))


async def test_a_server_cannot_ask_for_connections_without_a_pause() -> None:
    def script(asked: Asked) -> bytes:
        is_last = len(server.asked) == 4
        return reply(b"", 204) if is_last else reply(b"retry: 0\n\n", headers=EVENTS)

    run = Run(until_end=False)
    async with scripted(script) as server:
        await read_all(ServerSentEvents(server.url).reader(run.env))
    assert run.clock.slept == [0.5, 0.5, 0.5]
