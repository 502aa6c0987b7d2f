"""`HttpPoll`: pages, cursors, conditions, faults, and positions after every row."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from streamkit import Secret
from streamkit.connectors.http import Cursor, HttpPoll
from streamkit.errors import StreamKitError, UsageError
from tests.http_connectors.scripted import (
    Asked,
    Run,
    assert_doubles,
    read_all,
    read_rows,
    reply,
    scripted,
)

ROWS = [{"id": number} for number in range(1, 8)]
AS_JSON = [json.dumps(row, separators=(",", ":")).encode() for row in ROWS]


def by_link(asked: Asked) -> bytes:
    at = int(asked.query.get("from", "0"))
    rest = at + 3 < len(ROWS)
    link = {"Link": f'</rows?from={at + 3}>; rel="next", </rows>; rel=first'} if rest else {}
    return reply({"data": {"rows": ROWS[at : at + 3]}}, headers=link)


def by_body(asked: Asked) -> bytes:
    at = int(asked.query.get("cursor", "0"))
    end = min(at + 3, len(ROWS))
    following = {"next": str(end)} if end < len(ROWS) else {"next": None}
    return reply({"data": {"rows": ROWS[at:end]}, "meta": following})


def by_record(asked: Asked) -> bytes:
    """Include the record at the cursor, as many services do."""
    after = int(asked.query.get("since", "0"))
    found = [row for row in ROWS if row["id"] >= after][:3]
    return reply({"data": {"rows": found}})


def by_header(asked: Asked) -> bytes:
    at = int(asked.query.get("page", "0"))
    following = {"NextPageToken": str(at + 3)} if at + 3 < len(ROWS) else {}
    return reply({"data": {"rows": ROWS[at : at + 3]}}, headers=following)


def by_link_in_body(asked: Asked) -> bytes:
    at = int(asked.query.get("skip", "0"))
    following = {"@odata.nextLink": f"rows?skip={at + 3}"} if at + 3 < len(ROWS) else {}
    return reply({"data": {"rows": ROWS[at : at + 3]}, **following})


def by_offset(asked: Asked) -> bytes:
    at = int(asked.query["offset"])
    return reply({"data": {"rows": ROWS[at : at + 3]}})


def by_page(asked: Asked) -> bytes:
    at = 3 * (int(asked.query["page"]) - 1)
    # A link that no number needs.
    return reply({"data": {"rows": ROWS[at : at + 3]}}, headers={"Link": "</rows>; rel=next"})


def by_page_or_404(asked: Asked) -> bytes:
    return by_page(asked) if int(asked.query["page"]) < 4 else reply({"detail": "none"}, 404)


WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "link": (by_link, {}),
    "body": (by_body, {"cursor": Cursor("cursor", body="meta.next")}),
    "record": (by_record, {"cursor": Cursor("since", record="id")}),
    "header": (by_header, {"cursor": Cursor("page", header="NextPageToken")}),
    "link in body": (by_link_in_body, {"next_url": "@odata.nextLink"}),
    "offset": (by_offset, {"cursor": Cursor("offset", counts="records")}),
    "page": (by_page, {"cursor": Cursor("page", counts="pages")}),
    "page or 404": (by_page_or_404, {"cursor": Cursor("page", counts="pages")}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_page_is_read_once(way: str) -> None:
    script, options = WAYS[way]
    async with scripted(script) as server:
        source = HttpPoll(server.url + "/rows", records="data.rows", **options)
        assert await read_all(source.reader(Run().env)) == AS_JSON


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", range(1, 7))
async def test_a_reader_resumes_after_every_row(way: str, count: int) -> None:
    script, options = WAYS[way]
    async with scripted(script) as server:
        source = HttpPoll(server.url + "/rows", records="data.rows", **options)
        first, position = await read_rows(source.reader(Run().env), count, {})
        assert first == AS_JSON[:count]
        second, _ = await read_rows(source.reader(Run().env), 99, position)
    assert first + second == AS_JSON


@pytest.mark.parametrize("way", ["body", "record", "header", "offset", "page", "page or 404"])
async def test_a_run_after_the_last_page_reads_only_new_rows(way: str) -> None:
    script, options = WAYS[way]
    async with scripted(script) as server:
        source = HttpPoll(server.url + "/rows", records="data.rows", **options)
        _, position = await read_rows(source.reader(Run().env), 99, {})
        assert await read_all(source.reader(Run().env), position) == []
        ROWS.append({"id": 8})
        try:
            assert await read_all(source.reader(Run().env), position) == [b'{"id":8}']
        finally:
            ROWS.pop()


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
async def test_a_page_that_has_not_changed_is_not_read_again(header: str) -> None:
    def script(asked: Asked) -> bytes:
        known = asked.headers.get("if-none-match") or asked.headers.get("if-modified-since")
        return reply(b"", 304) if known == "v1" else reply(ROWS, headers={header: "v1"})

    async with scripted(script) as server:
        source = HttpPoll(server.url)
        rows, position = await read_rows(source.reader(Run().env), 99, {})
        assert rows == AS_JSON
        assert await read_all(source.reader(Run().env), position) == []


async def test_a_page_with_the_same_bytes_is_not_read_again() -> None:
    async with scripted(lambda asked: reply(ROWS)) as server:
        source = HttpPoll(server.url)
        _, position = await read_rows(source.reader(Run().env), 99, {})
        assert await read_all(source.reader(Run().env), position) == []


async def test_a_page_that_changed_under_the_position_is_read_from_its_start() -> None:
    pages = [[{"id": 1}, {"id": 2}], [{"id": 9}, {"id": 1}, {"id": 2}]]
    async with scripted(lambda asked: reply(pages.pop(0))) as server:
        source = HttpPoll(server.url)
        _, position = await read_rows(source.reader(Run().env), 1, {})
        rows = await read_all(source.reader(Run().env), position)
    assert rows == [b'{"id":9}', b'{"id":1}', b'{"id":2}']


async def test_a_poll_asks_again_at_its_interval() -> None:
    pages = [[{"id": 1}], [{"id": 2}]]
    run = Run(until_end=False)
    async with scripted(lambda asked: reply(pages.pop(0))) as server:
        reader = HttpPoll(server.url, every="90s").reader(run.env)
        rows, _ = await read_rows(reader, 2, {})
    assert rows == [b'{"id":1}', b'{"id":2}']
    assert run.clock.slept == [90.0]


FAULTS = {
    "closed": b"",
    "cut in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut in the body": reply(ROWS, length=9_999),
    "not JSON": reply(b"<html>try later</html>"),
    "cut JSON": reply(b'[{"id": 1}, {"id'),
    "cut gzip": reply(
        gzip.compress(json.dumps(ROWS).encode())[:-9], 200, {"Content-Encoding": "gzip"}
    ),
    "not gzip": reply(b"plain", 200, {"Content-Encoding": "gzip"}),
    "500": reply(b"", 500),
    "503": reply(b"", 503, {"Retry-After": "7"}),
    "429": reply(b"", 429, {"Retry-After": "7"}),
    "408": reply(b"", 408),
    "not HTTP": b"\0\1\2 nonsense\r\n\r\n",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_retried_and_noted(fault: str) -> None:
    answers = [FAULTS[fault], FAULTS[fault], reply(ROWS)]
    run = Run()
    async with scripted(lambda asked: answers.pop(0)) as server:
        assert await read_all(HttpPoll(server.url).reader(run.env)) == AS_JSON
    if fault in ("429", "503"):
        assert run.clock.slept == [7.0, 7.0]
    else:
        assert_doubles(run.clock.slept)
    assert len(run.notes) == 2  # the first failure, and the end of the outage


async def test_a_date_in_retry_after_is_obeyed() -> None:
    # The clock of the test stands at 22:13:20 of that day.
    date = "Tue, 14 Nov 2023 22:14:00 GMT"
    answers = [reply(b"", 429, {"Retry-After": date}), reply(ROWS)]
    run = Run()
    async with scripted(lambda asked: answers.pop(0)) as server:
        await read_all(HttpPoll(server.url).reader(run.env))
    assert run.clock.slept == [40.0]


async def test_an_outage_ends_a_run_until_the_end_after_the_attempts() -> None:
    async with scripted(lambda asked: reply(b"", 500)) as server:
        reader = HttpPoll(server.url, attempts=3).reader(Run().env)
        with pytest.raises(StreamKitError, match=r"failed after 3 attempts.*status 500"):
            await read_all(reader)
        assert len(server.asked) == 3


async def test_a_slow_response_is_a_timeout() -> None:
    async def script(asked: Asked) -> bytes:
        if len(server.asked) == 1:
            await asyncio.Event().wait()
        return reply(ROWS)

    run = Run()
    async with scripted(script) as server:
        assert await read_all(HttpPoll(server.url, timeout="200ms").reader(run.env)) == AS_JSON
    assert "no complete response within 0.2 s" in run.notes[0] or "ReadTimeout" in run.notes[0]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_ends_the_job(status: int) -> None:
    async with scripted(lambda asked: reply(b"no\x1b[31m such key", status)) as server:
        with pytest.raises(StreamKitError, match=f"status {status}: no .31m such key"):
            await read_all(HttpPoll(server.url).reader(Run(until_end=False).env))


@pytest.mark.parametrize("is_gzip", [False, True])
async def test_a_body_that_is_too_large_is_refused(is_gzip: bool) -> None:
    data = b"[" + b" " * 50_000_000 + b"]"
    headers = {"Content-Encoding": "gzip"} if is_gzip else {}
    answer = reply(gzip.compress(data) if is_gzip else data, 200, headers)
    async with scripted(lambda asked: answer) as server:
        with pytest.raises(StreamKitError, match="larger than 1048576 bytes"):
            await read_all(HttpPoll(server.url, max_body_bytes="1MiB").reader(Run().env))


async def test_gzip_with_two_members_is_read() -> None:
    body = gzip.compress(b'[{"id":1},') + gzip.compress(b'{"id":2}]')
    async with scripted(lambda asked: reply(body, 200, {"Content-Encoding": "gzip"})) as server:
        assert await read_all(HttpPoll(server.url).reader(Run().env)) == AS_JSON[:2]


async def test_a_byte_order_mark_before_a_body_is_left_out() -> None:
    async with scripted(lambda asked: reply(b"\xef\xbb\xbf" + json.dumps(ROWS).encode())) as server:
        assert await read_all(HttpPoll(server.url).reader(Run().env)) == AS_JSON


async def test_secrets_are_sent_but_not_to_another_origin() -> None:
    async with scripted(lambda asked: reply(ROWS)) as other:
        link = {"Link": f"<{other.url}/rows>; rel=next"}
        away = {"Location": other.url}
        answers = [reply(ROWS, headers=link), reply(b"", 302, away)]
        async with scripted(lambda asked: answers.pop(0)) as server:
            source = HttpPoll(server.url, headers={"X-Key": Secret("k")}, bearer=Secret("t"))
            for _ in range(2):
                with pytest.raises(StreamKitError, match="another origin"):
                    await read_all(source.reader(Run().env))
            sent = server.asked[0].headers
        assert (sent["x-key"], sent["authorization"]) == ("k", "Bearer t")
        assert other.asked == []


async def test_a_redirect_within_the_origin_is_followed() -> None:
    def script(asked: Asked) -> bytes:
        return reply(b"", 307, {"Location": "/new"}) if asked.target == "/old" else reply(ROWS)

    async with scripted(script) as server:
        assert await read_all(HttpPoll(server.url + "/old").reader(Run().env)) == AS_JSON


async def test_a_cursor_that_does_not_change_ends_the_pass() -> None:
    def script(asked: Asked) -> bytes:
        rows = ROWS[:2] if "cursor" not in asked.query else ROWS[2:]
        return reply({"rows": rows, "next": "always"})

    async with scripted(script) as server:
        source = HttpPoll(server.url, records="rows", cursor=Cursor("cursor", body="next"))
        assert await read_all(source.reader(Run().env)) == AS_JSON
        assert len(server.asked) == 2


async def test_an_empty_page_with_a_cursor_is_not_the_last_one() -> None:
    def script(asked: Asked) -> bytes:
        pages = {"": ([], "a"), "a": ([], "b"), "b": (ROWS, None)}
        rows, following = pages[asked.query.get("cursor", "")]
        return reply({"rows": rows, "next": following})

    async with scripted(script) as server:
        source = HttpPoll(server.url, records="rows", cursor=Cursor("cursor", body="next"))
        assert await read_all(source.reader(Run().env)) == AS_JSON


async def test_a_field_can_say_that_no_page_follows() -> None:
    def script(asked: Asked) -> bytes:
        return reply({"rows": ROWS, "next": str(len(server.asked)), "has_more": False})

    cursor = Cursor("cursor", body="next", more="has_more")
    async with scripted(script) as server:
        source = HttpPoll(server.url, records="rows", cursor=cursor)
        assert await read_all(source.reader(Run().env)) == AS_JSON
        assert len(server.asked) == 1


async def test_records_with_the_same_cursor_value_are_not_lost() -> None:
    rows = [{"at": 1, "n": 1}, {"at": 2, "n": 2}, {"at": 2, "n": 3}, {"at": 2, "n": 4}]

    def script(asked: Asked) -> bytes:
        found = [row for row in rows if row["at"] >= int(asked.query.get("since", "0"))]
        return reply(found)

    async with scripted(script) as server:
        source = HttpPoll(server.url, cursor=Cursor("since", record="at"))
        first, position = await read_rows(source.reader(Run().env), 99, {})
        rows.append({"at": 2, "n": 5})
        second, _ = await read_rows(source.reader(Run().env), 99, position)
    assert [json.loads(row)["n"] for row in first + second] == [1, 2, 3, 4, 5]


async def test_the_newest_record_first_is_refused() -> None:
    async with scripted(lambda asked: reply(ROWS[::-1])) as server:
        source = HttpPoll(server.url, cursor=Cursor("since", record="id"))
        with pytest.raises(StreamKitError, match="must ascend by 'id'"):
            await read_all(source.reader(Run().env))


async def test_times_ascend_as_times_and_not_as_texts() -> None:
    times = ["10:00:00Z", "10:00:00.5Z", "10:00:01+00:00", "09:00:02-01:00"]
    rows = [{"at": f"2024-01-01T{each}"} for each in times]
    async with scripted(lambda asked: reply(rows if "since" not in asked.query else [])) as server:
        source = HttpPoll(server.url, cursor=Cursor("since", record="at"))
        assert len(await read_all(source.reader(Run().env))) == len(times)
        rows.reverse()
        with pytest.raises(StreamKitError, match="must ascend by 'at'"):
            await read_all(source.reader(Run().env))


async def test_a_page_that_is_gone_begins_the_pass_again() -> None:
    answers = [
        reply(ROWS[:2], headers={"Link": "</two>; rel=next"}),
        reply(b"expired", 410),
        reply(ROWS),
    ]
    run = Run()
    async with scripted(lambda asked: answers.pop(0)) as server:
        assert await read_all(HttpPoll(server.url).reader(run.env)) == AS_JSON[:2] + AS_JSON
    assert "begins again at the first page" in run.notes[0]


def test_passwords_are_not_shown() -> None:
    source = HttpPoll("https://joe:hunter2@example.com/x?api_key=hunter2", headers={"K": "hunter2"})
    assert "hunter2" not in repr(source) + str(source) + source.place("", 0, 1)
    assert "joe:***@example.com/x" in str(source)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://example.com"},
        {"url": "http://"},
        {"url": "http://example.com:99999"},
        {"url": "http://exa mple.com"},
        {"bearer": "plain"},
        {"bearer": Secret("a"), "auth": ("u", Secret("p"))},
        {"headers": {"Bad Name": "x"}},
        {"headers": {"X": "a\r\nY: b"}},
        {"every": 0},
        {"timeout": "soon"},
        {"max_body_bytes": 0},
        {"attempts": 0},
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HttpPoll(**{"url": "http://example.com", **options})
