"""Arrays of PostgreSQL: lists of numbers, texts and other simple values."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from streamkit.connectors.sql import SqlSink, SqlTable
from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.decoding import row_decoder
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import TopologyError
from tests.sql.databases import TestDatabase
from tests.sql.reading import read_all
from tests.sql.test_copy import copy
from tests.sql.writing import End, Job

pytestmark = pytest.mark.anyio
NOW = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)


class Color(Enum):
    RED = "red"


class Lists(msgspec.Struct):
    id: int
    counts: list[int]
    names: list[str | None]
    amounts: tuple[float, ...] | None
    flags: list[bool]
    times: list[dt.datetime]
    prices: list[Decimal]
    ids: list[UUID]
    colors: list[Color]
    nested: list[list[int]]


TABLE = (
    "CREATE TABLE lists (id bigint PRIMARY KEY, counts int[] NOT NULL, "
    "names varchar(5)[] NOT NULL, "
    "amounts double precision[], flags boolean[] NOT NULL, times timestamptz[] NOT NULL, "
    "prices numeric(6,2)[] NOT NULL, ids uuid[] NOT NULL, colors text[] NOT NULL, "
    "nested jsonb NOT NULL)"
)
FULL = Lists(
    *(1, [1, -(2**31)], ["a", None, "", '{"}\\,'], (0.5, -1.0), [True, False], [NOW]),
    *([Decimal("1.50")], [UUID(int=7)], [Color.RED], [[1], []]),
)
EMPTY = Lists(2, [], [], None, [], [], [], [], [], [])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("until", ["published", "stored"])
@pytest.mark.parametrize("mode", ["insert", "upsert"])
async def test_lists_are_written_to_arrays_and_read(
    postgres_only: TestDatabase, tmp_path: Path, mode: Any, until: End
) -> None:
    postgres_only.run(TABLE)
    key = "id" if mode == "upsert" else None
    sink = SqlSink(postgres_only.url, "lists", mode=mode, key=key)
    job = Job(tmp_path / "job", Lists)
    async with job.run(sink) as run:
        await run.write([FULL, EMPTY])
        await run.commit(until)
    async with job.run(sink):  # writes what only the file of the job has
        pass
    decode = row_decoder(row_type(Lists))
    rows = await read_all(SqlTable(postgres_only.url, "lists"))
    assert list(decode.many(rows)) == [FULL, EMPTY]
    assert postgres_only.run("SELECT counts[2], array_length(names, 1) FROM lists") == [
        (-(2**31), 4),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"counts": [1, 2**31]}, "its item 1: 2147483648 is too large"),
        ({"counts": [None]}, "its item 0: it is None"),
        ({"names": ["123456"]}, "its item 0: it has 6 characters, but the column allows 5"),
        ({"names": ["a\0"]}, "its item 0: text in PostgreSQL cannot contain the character NUL"),
        ({"prices": [Decimal("10000")]}, "its item 0: 10000 is too large"),
        ({"flags": "yes"}, "is str, not a list"),
    ],
)
async def test_an_item_that_does_not_fit_refuses_only_its_record(
    postgres_only: TestDatabase, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    postgres_only.run(TABLE)
    bad = msgspec.structs.replace(FULL, **change)
    async with Job(tmp_path / "job", Lists).run(SqlSink(postgres_only.url, "lists")) as run:
        with pytest.raises(RowFailed) as failed:
            run.writer.on_chunk(run.chunk([EMPTY, bad]))
    assert failed.value.row == 1
    assert problem in str(failed.value.__cause__)


class Wrong(msgspec.Struct):
    id: int
    counts: list[str]
    nested: list[list[int]]


async def test_arrays_that_do_not_match_are_listed(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run("CREATE TABLE lists (id bigint, counts int[], nested int[][])")
    with pytest.raises(TopologyError) as refused:
        async with Job(tmp_path / "job", Wrong).run(SqlSink(postgres_only.url, "lists")):
            pass
    assert "the column 'counts' is integer[]" in str(refused.value)
    assert "the column 'nested' is integer[]" in str(refused.value)


# With char, all values are copied as text; otherwise as binary values.
@pytest.mark.parametrize("text", ["char(10)", "varchar(10)"])
def test_arrays_of_every_type_are_copied_to_another_table(
    postgres_only: TestDatabase, tmp_path: Path, text: str
) -> None:
    """kafka-connect-jdbc #835, #1677, pgjdbc #3784."""
    postgres_only.run_all(
        f"CREATE TABLE a (id SERIAL PRIMARY KEY, sint smallint[], big bigint[], chars {text}[], "
        "varchars varchar(10)[], fixed numeric(10,7)[], free numeric[3], singles real[], "
        "data bytea[], ids uuid[], times time[], took interval[], local timestamp[], "
        "at timestamptz[])",
        "INSERT INTO a (sint, big, chars, varchars, fixed, free, singles, data, ids, times, took, "
        "local, at) VALUES ('{1,2}', '{1550166368505037572}', '{cone}', '{vcone,NULL}', "
        "'{1.2,NaN}', '{1.1,NaN}', '{1.5,Infinity}', '{\\\\x00ff}', "
        "'{00000000-0000-0000-0000-000000000007}', '{10:00}', '{1 day}', "
        "'{2024-02-29 10:00}', '{2024-02-29 10:00+00}')",
        "CREATE TABLE b (LIKE a)",
    )
    url = postgres_only.url
    done = copy(tmp_path, f"{url}#a", f"{url}#b")
    assert done.code == 0, done.err
    assert postgres_only.run("SELECT b::text FROM b") == postgres_only.run("SELECT a::text FROM a")


def test_arrays_are_copied_to_json_and_back(postgres_only: TestDatabase, tmp_path: Path) -> None:
    postgres_only.run_all(
        "CREATE TABLE a (id int PRIMARY KEY, n int[], t text[], p numeric[], d date[])",
        "INSERT INTO a VALUES (1, '{1,2}', '{x,NULL}', '{1.5}', '{2024-02-29}'), "
        "(2, NULL, '{}', NULL, NULL)",
        "CREATE TABLE b (LIKE a)",
        "CREATE TABLE c (LIKE a)",
    )
    (tmp_path / "in.csv").write_text(
        'id,n,t,p,d\n1,"[1,2]","[""x"",null]","[1.5]","[""2024-02-29""]"\n2,,[],,\n'
    )
    url = postgres_only.url
    for ends in ((f"{url}#a", "out.jsonl"), ("out.jsonl", f"{url}#b"), ("in.csv", f"{url}#c")):
        done = copy(tmp_path, *ends)
        assert done.code == 0, done.err
    rows = postgres_only.run("SELECT * FROM a ORDER BY id")
    assert postgres_only.run("SELECT * FROM b ORDER BY id") == rows
    assert postgres_only.run("SELECT * FROM c ORDER BY id") == rows
