"""`HttpPoll` of services whose pages have numbers, or begin after a number of records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamkit.connectors.http import Cursor, HttpPoll
from streamkit.errors import StreamKitError, UsageError
from tests.http_connectors.scripted import Asked, Run, read_all, reply, scripted

PAGES = Cursor("page", counts="pages")
RECORDS = Cursor("offset", counts="records")


def as_rows(numbers: range) -> list[dict[str, int]]:
    return [{"id": number} for number in numbers]


def as_json(numbers: range) -> list[bytes]:
    return [json.dumps(row, separators=(",", ":")).encode() for row in as_rows(numbers)]


@pytest.mark.parametrize("cursor", [PAGES, RECORDS], ids=["pages", "records"])
async def test_a_later_pass_reads_what_was_added_to_the_last_page(cursor: Cursor) -> None:
    """With 3 records on a page, one pass ends within a page and another at the end of one."""
    totals = [0, 2, 2, 3, 7, 7, 9, 10]
    passes = 0

    def script(asked: Asked) -> bytes:
        nonlocal passes
        at = int(asked.query.get("offset", 3 * (int(asked.query.get("page", 1)) - 1)))
        rows = as_rows(range(at, min(at + 3, totals[passes])))
        passes += not rows and passes < len(totals) - 1
        return reply(rows)

    async with scripted(script) as server:
        reader = HttpPoll(server.url, cursor=cursor).reader(Run(until_end=False).env)
        await reader.open({})
        rows: list[Any] = []
        while len(rows) < totals[-1]:
            chunk = await reader.next()
            assert chunk is not None
            rows += chunk.values
        await reader.close()
    assert rows == as_json(range(totals[-1]))
    assert passes == len(totals) - 1


async def test_a_page_with_the_records_of_the_page_before_is_refused() -> None:
    """A service that does not know the parameter returns its first page again and again."""
    async with scripted(lambda asked: reply(as_rows(range(3)))) as server:
        source = HttpPoll(f"{server.url}/rows", cursor=PAGES)
        with pytest.raises(StreamKitError, match=r"page 2 of .* has the same records as page 1"):
            await read_all(source.reader(Run().env))


async def test_a_field_can_say_that_a_page_is_the_last_one() -> None:
    def script(asked: Asked) -> bytes:
        number = min(int(asked.query["page"]), 2)  # the last page is repeated
        rows = as_rows(range(3 * number - 3, 3 * number))
        return reply({"rows": rows, "page": number, "pages": 2})

    cursor = Cursor("page", counts="pages", more=lambda body: body["page"] < body["pages"])
    async with scripted(script) as server:
        source = HttpPoll(server.url, records="rows", cursor=cursor)
        assert await read_all(source.reader(Run().env)) == as_json(range(6))
        assert [asked.query["page"] for asked in server.asked] == ["1", "2"]


async def test_numbers_begin_at_the_start() -> None:
    def script(asked: Asked) -> bytes:
        return reply(as_rows(range(3)) if asked.query["page"] == "0" else [])

    async with scripted(script) as server:
        source = HttpPoll(server.url, cursor=Cursor("page", counts="pages", start=0))
        assert await read_all(source.reader(Run().env)) == as_json(range(3))


async def test_a_page_that_does_not_exist_is_noted_as_the_end() -> None:
    def script(asked: Asked) -> bytes:
        is_first = asked.query["page"] == "1"
        return reply(as_rows(range(3))) if is_first else reply({"error": "no such page"}, 404)

    run = Run()
    async with scripted(script) as server:
        assert await read_all(HttpPoll(server.url, cursor=PAGES).reader(run.env)) == as_json(
            range(3)
        )
    (note,) = run.notes
    assert "404" in note
    assert note.endswith("so the page before it is taken as the last one")


@pytest.mark.parametrize("cursor", [PAGES, RECORDS, Cursor("page", body="next", start=3)])
async def test_a_first_page_that_does_not_exist_ends_the_job(cursor: Cursor) -> None:
    async with scripted(lambda asked: reply({"error": "no such path"}, 404)) as server:
        with pytest.raises(StreamKitError, match="404"):
            await read_all(HttpPoll(server.url, cursor=cursor).reader(Run().env))


async def test_the_url_of_the_next_page_must_be_a_text_of_the_same_origin() -> None:
    pages: list[Any] = [{"rows": [], "next": 7}, {"rows": [], "next": "http://example.com/rows"}]
    async with scripted(lambda asked: reply(pages.pop(0))) as server:
        source = HttpPoll(server.url, records="rows", next_url="next")
        with pytest.raises(StreamKitError, match="must be a text, but next_url='next' is int"):
            await read_all(source.reader(Run().env))
        with pytest.raises(StreamKitError, match="at another origin"):
            await read_all(source.reader(Run().env))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"body": "next", "counts": "pages"},
        {"header": "Next", "record": "id"},
        {"counts": "rows"},
        {"counts": "pages", "start": "first"},
        {"counts": "records", "start": -1},
    ],
)
def test_an_invalid_cursor_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Cursor("page", **options)
