"""Types and tables that only PostgreSQL has."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from streamkit.connectors.sql import SqlSink, SqlTable
from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.decoding import plain_row, row_decoder
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import StreamKitError
from streamkit.serde.json_values import dumps
from tests.postgres.server import PostgresServer
from tests.sql.databases import TestDatabase
from tests.sql.kinds import Total
from tests.sql.reading import read_all
from tests.sql.writing import Job

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def at(microsecond: int) -> dt.datetime:
    return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microsecond)


class Mood(Enum):
    SAD = "sad"
    OK = "o k"


class Feeling(msgspec.Struct):
    id: int
    mood: Mood
    other: Literal["sad"] | None
    name: str
    code: str


async def test_enums_and_domains_of_the_database_are_written(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run_all(
        "CREATE TYPE mood AS ENUM ('sad', 'o k')",
        "CREATE DOMAIN mood_now AS mood",
        "CREATE DOMAIN name_now AS varchar(5)",
        "CREATE TABLE feelings (id bigint PRIMARY KEY, mood mood NOT NULL, other mood_now, "
        "name name_now NOT NULL, code char(3))",
    )
    job = Job(tmp_path / "job", Feeling)
    async with job.run(SqlSink(postgres_only.url, "feelings", mode="upsert", key="id")) as run:
        first = Feeling(1, Mood.SAD, None, "a", "x")
        await run.write([first, Feeling(1, Mood.OK, "sad", "b", "yy")])
        await run.commit()
        with pytest.raises(RowFailed) as failed:
            run.writer.on_chunk(run.chunk([Feeling(2, Mood.OK, None, "abcdef", "x")]))
        assert "the column allows 5" in str(failed.value.__cause__)
    (row,) = await read_all(SqlTable(postgres_only.url, "feelings"))
    assert row_decoder(row_type(Feeling)).one(row) == Feeling(1, Mood.OK, "sad", "b", "yy ")


async def test_a_text_that_is_not_of_the_enum_fails_alone(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run_all(
        "CREATE TYPE level AS ENUM ('low', 'high')",
        "CREATE TABLE totals (id bigint, name level, total float8)",
    )
    async with Job(tmp_path / "job", Total).run(SqlSink(postgres_only.url, "totals")) as run:
        with pytest.raises(RowFailed) as failed:
            run.writer.on_chunk(run.chunk([Total(1, "low"), Total(2, "middle")]))
        assert failed.value.row == 1
        assert "'middle' is not one of low, high" in str(failed.value.__cause__)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("timestamp", "infinity"),
        ("timestamptz", "-infinity"),
        ("timestamptz", "20000-01-01 00:00:00+00"),
        ("timestamp", "0044-03-15 00:00:00 BC"),
        ("date", "infinity"),
        ("time", "24:00:00"),
        ("inet", "10.0.0.1/24"),
        ("int4range", "[1,5)"),
        ("datemultirange", "{[2024-01-01,2024-01-02)}"),
        ("money", "$1.50"),
        ("point", "(1,2)"),
    ],
)
async def test_values_that_python_does_not_have_are_texts(
    postgres_only: TestDatabase, kind: str, text: str
) -> None:
    postgres_only.run_all(
        f"CREATE TABLE odd (id int PRIMARY KEY, at timestamptz, odd {kind})",
        f"INSERT INTO odd VALUES (1, '2024-01-01 00:00+00', NULL), (2, NULL, '{text}')",
    )
    rows = await read_all(SqlTable(postgres_only.url, "odd", batch_rows=1))
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    assert rows == [{"id": 1, "at": start, "odd": None}, {"id": 2, "at": None, "odd": text}]
    assert dumps(plain_row(rows[1])["odd"]) == dumps(text)


async def test_a_time_that_python_does_not_have_fails_alone_if_the_field_is_a_time(
    postgres_only: TestDatabase,
) -> None:
    class Event(msgspec.Struct):
        id: int
        at: dt.datetime

    postgres_only.run_all(
        "CREATE TABLE events (id int PRIMARY KEY, at timestamptz)",
        "INSERT INTO events VALUES (1, 'infinity'), (2, '2024-01-01 00:00+00')",
    )
    bad, good = await read_all(SqlTable(postgres_only.url, "events"))
    decode = row_decoder(row_type(Event)).one
    with pytest.raises(msgspec.ValidationError, match=r"\$\.at"):
        decode(bad)
    assert decode(good) == Event(2, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))


async def test_reading_resumes_after_a_time_that_python_does_not_have(
    postgres_only: TestDatabase,
) -> None:
    postgres_only.run_all(
        "CREATE TABLE events (id int PRIMARY KEY, at timestamptz NOT NULL)",
        "INSERT INTO events VALUES (1, '-infinity'), (2, '2024-01-01 00:00+00'), (3, 'infinity'), "
        "(4, 'infinity')",
    )
    source = SqlTable(postgres_only.url, "events", incremental="at", batch_rows=1)
    assert [row["id"] for row in await read_all(source)] == [1, 2, 3, 4]


async def test_a_view_is_written_if_the_database_allows_it(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run_all(
        "CREATE TABLE stored (id bigint, name text, total float8, at timestamptz DEFAULT now())",
        "CREATE VIEW totals AS SELECT id, name, total FROM stored",
    )
    async with Job(tmp_path / "job", Total).run(SqlSink(postgres_only.url, "totals")) as run:
        for number in range(3):
            await run.write([Total(number, "a"), Total(number, "b")])
            await run.commit()
    assert postgres_only.run("SELECT count(*), count(at) FROM stored") == [(6, 6)]


async def test_a_user_who_may_not_create_tables_writes_to_existing_ones(
    postgres: PostgresServer, postgres_only: TestDatabase, tmp_path: Path
) -> None:
    admin = Job(tmp_path / "admin", Total, "admin")
    async with admin.run(SqlSink(postgres_only.url, "totals")):
        pass
    postgres_only.run_all(
        "CREATE ROLE clerk LOGIN PASSWORD 'pencil'",
        "GRANT SELECT, INSERT, UPDATE ON totals, streamkit_positions TO clerk",
    )
    name = postgres_only.url.rpartition("/")[2]
    url = f"postgresql://clerk:pencil@127.0.0.1:{postgres.port}/{name}"
    async with Job(tmp_path / "clerk", Total, "clerk").run(SqlSink(url, "totals")) as run:
        await run.write([Total(1, "a")])
        await run.commit()
    assert postgres_only.run("SELECT id FROM totals") == [(1,)]


async def test_partitions_and_odd_names_are_written_and_read(
    postgres_only: TestDatabase, tmp_path: Path
) -> None:
    postgres_only.run_all(
        'CREATE SCHEMA "Größe.1"',
        'CREATE TABLE "Größe.1"."Order" ("select" bigint, "Ünï %s" text, PRIMARY KEY ("select")) '
        'PARTITION BY HASH ("select")',
        'CREATE TABLE one PARTITION OF "Größe.1"."Order" FOR VALUES WITH (MODULUS 2, REMAINDER 0)',
        'CREATE TABLE two PARTITION OF "Größe.1"."Order" FOR VALUES WITH (MODULUS 2, REMAINDER 1)',
    )
    table = '"Größe.1".Order'
    sink = SqlSink(postgres_only.url, table, mode="upsert", key="select")
    rows: list[Any] = [{"select": number, "Ünï %s": "x"} for number in range(9)]
    async with Job(tmp_path / "job", dict[str, Any]).run(sink) as run:
        await run.write(rows)
        await run.commit()
        await run.write(rows)
        await run.commit()
    assert await read_all(SqlTable(postgres_only.url, table)) == rows


@pytest.mark.parametrize("mode", ["insert", "upsert"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER total TYPE bigint", None),
        ("ALTER total TYPE real", 0.5),
        ("ALTER total TYPE text", None),
        ("ALTER id TYPE integer", 0.5),
        ("ADD note text NOT NULL DEFAULT 'x'", 0.5),
        ("DROP total", None),
    ],
)
async def test_a_column_that_changes_while_the_job_runs_never_gets_other_values(
    postgres_only: TestDatabase, tmp_path: Path, mode: Any, change: str, expected: float | None
) -> None:
    key = None if mode == "insert" else "id"
    sink = SqlSink(postgres_only.url, "totals", mode=mode, key=key)
    async with Job(tmp_path / "job", Total).run(sink) as run:
        await run.write([Total(1, "a")])
        await run.commit()
        postgres_only.run(f"ALTER TABLE totals {change}")
        await run.write([Total(2, "b", 0.5)])
        if expected is None:
            with pytest.raises(StreamKitError, match=r"refused|does not fit"):
                await run.commit()
        else:
            await run.commit()
    found = postgres_only.run("SELECT * FROM totals ORDER BY id")
    assert [row[:3] for row in found[1:]] == ([] if expected is None else [(2, "b", expected)])


async def test_intervals_without_a_fixed_length_are_read_as_text(
    postgres_only: TestDatabase,
) -> None:
    postgres_only.run_all(
        "CREATE TABLE spans (id int PRIMARY KEY, span interval)",
        "INSERT INTO spans VALUES (1, '40 days -1 hour'), (2, '1 mon'), (3, '2 years 1 day')",
    )
    found = [row["span"] for row in await read_all(SqlTable(postgres_only.url, "spans"))]
    assert found == [dt.timedelta(days=40, hours=-1), "1 mon", "2 years 1 day"]


async def test_arrays_of_json_are_lists_of_values(postgres_only: TestDatabase) -> None:
    postgres_only.run_all(
        "CREATE TABLE lists (id int PRIMARY KEY, items jsonb[])",
        """INSERT INTO lists VALUES (1, ARRAY['{"a": 1}', NULL, '[2]']::jsonb[])""",
    )
    (row,) = await read_all(SqlTable(postgres_only.url, "lists"))
    assert plain_row(row)["items"] == [{"a": 1}, None, [2]]
    Lists = msgspec.defstruct("Lists", [("id", int), ("items", list[Any])])
    assert row_decoder(row_type(Lists)).one(row) == Lists(1, [{"a": 1}, None, [2]])


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("citext", ["a", "A", "b"]),
        ("char(3)", ["a", "a ", "b"]),
        ("varchar(9) COLLATE anycase", ["a", "A", "b"]),
        ("numeric(4, 1)", [Decimal("1.01"), Decimal("1.02"), Decimal("2")]),
        ("real", [0.1, 0.10000000001, 0.5]),
        ("timestamptz(0)", [at(0), at(1), at(5_000_000)]),
    ],
)
async def test_keys_that_only_the_database_finds_equal_replace_each_other(
    postgres_only: TestDatabase, tmp_path: Path, kind: str, keys: list[Any]
) -> None:
    postgres_only.run_all(
        "CREATE EXTENSION citext",
        "CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', "
        "deterministic = false)",
        f"CREATE TABLE keys (key {kind} PRIMARY KEY, number bigint)",
    )
    Row = msgspec.defstruct("Row", [("key", type(keys[0])), ("number", int)])
    rows = [Row(key, number) for number, key in enumerate(keys)]
    for mode, expected in (("ignore", [(0,), (2,)]), ("upsert", [(1,), (2,)])):
        sink = SqlSink(postgres_only.url, "keys", mode=mode, key="key")  # type: ignore[arg-type]
        async with Job(tmp_path / mode, Row, mode).run(sink) as run:
            await run.write(rows)
            await run.commit()
        assert postgres_only.run("SELECT number FROM keys ORDER BY number") == expected
