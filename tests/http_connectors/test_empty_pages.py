"""`HttpPoll` of services that give a new cursor on each page, also on those without records."""

from __future__ import annotations

import asyncio

import pytest

from streamkit.connectors.http import Cursor, HttpPoll
from streamkit.errors import StreamKitError
from tests.http_connectors.scripted import Asked, Run, read_all, reply, scripted
from tests.http_connectors.test_poll import AS_JSON, ROWS


async def test_new_cursors_on_empty_pages_do_not_keep_a_pass_open() -> None:
    """Records that come later are read, because the next pass continues at the last cursor."""
    rows = [ROWS[:3], *[[]] * 25, ROWS[3:]]

    def script(asked: Asked) -> bytes:
        at = int(asked.query.get("cursor", "0"))
        return reply({"rows": rows[at] if at < len(rows) else [], "next": str(at + 1)})

    async with scripted(script) as server:
        run = Run(until_end=False)
        source = HttpPoll(server.url, records="rows", cursor=Cursor("cursor", body="next"))
        reader = source.reader(run.env)
        await reader.open({})
        found: list[bytes] = []
        while len(found) < len(ROWS):
            chunk = await reader.next()
            assert chunk is not None
            found += chunk.values
        await reader.close()
        assert found == AS_JSON
        assert run.clock.slept == [60.0] * 6  # after 20 pages, and after each that follows
        assert len(run.notes) == 1
        assert "20 pages of " in run.notes[0]


async def test_pages_without_records_are_not_requested_again_by_the_next_run() -> None:
    def script(asked: Asked) -> bytes:
        at = int(asked.query.get("cursor", "0"))
        rows = ROWS if at == 0 else []
        return reply({"rows": rows, "next": str(at + 1) if at < 30 else None})

    async with scripted(script) as server:
        source = HttpPoll(server.url, records="rows", cursor=Cursor("cursor", body="next"))
        reader = source.reader(Run().env)
        await reader.open({})
        chunk = await reader.next()
        assert chunk is not None
        reading = asyncio.create_task(reader.next())
        assert await reading is None
        assert reader.skipped_positions() == {}  # the rows before are not processed yet
        reader.position_after(chunk)
        skipped = dict(reader.skipped_positions())
        assert (
            reader.skipped_positions() == {}
        )  # otherwise an idle job would commit again and again
        await reader.close()
        before = len(server.asked)
        assert await read_all(source.reader(Run().env), skipped) == []
        assert len(server.asked) == before + 1


async def test_a_run_until_the_end_fails_if_pages_without_records_never_end() -> None:
    def script(asked: Asked) -> bytes:
        return reply({"rows": [], "next": str(len(server.asked))})

    async with scripted(script) as server:
        source = HttpPoll(server.url, records="rows", cursor=Cursor("cursor", body="next"))
        with pytest.raises(StreamKitError, match=r"1000 pages of .* in a row have no records"):
            await read_all(source.reader(Run().env))


@pytest.mark.parametrize(
    ("body", "records"),
    [
        ({"rows": None}, "rows"),
        ({"data": None}, "data.rows"),
        ({"data": {"rows": None}}, "data.rows"),
        (None, None),
    ],
)
async def test_null_is_an_empty_list(body: object, records: str | None) -> None:
    async with scripted(lambda asked: reply(body)) as server:
        source = HttpPoll(server.url, records=records)
        assert await read_all(source.reader(Run().env), {}) == []


@pytest.mark.parametrize("body", [{"row": [1]}, {"rows": {}}, {"data": {"rows": []}}, []])
async def test_a_body_without_a_list_of_records_is_an_error(body: object) -> None:
    async with scripted(lambda asked: reply(body)) as server:
        source = HttpPoll(server.url, records="rows")
        with pytest.raises(StreamKitError, match="records='rows'") as failed:
            await read_all(source.reader(Run().env), {})
    assert "set records= to the path of the list" in failed.value.hint
