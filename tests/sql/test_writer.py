"""Sinks: each committed row is in the table once, wherever a run ends."""

from __future__ import annotations

import datetime as dt
import random
import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest

from streamkit.connectors import transactional
from streamkit.connectors.sql import SqlSink
from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.decoding import row_decoder
from streamkit.connectors.sql.queries import Statement
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import ConfigError, DataError, StateMismatch, TopologyError
from tests.postgres.server import PostgresServer
from tests.proxy import Cut, Proxy
from tests.sql.databases import TestDatabase, sqlite_database
from tests.sql.kinds import EDGES, Everything, Level, Total, TotalDict
from tests.sql.writing import End, Job

STEPS: tuple[End, ...] = get_args(End)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "spool", Total)


def rows(database: TestDatabase, table: str = "totals") -> list[tuple[Any, ...]]:
    return sorted(database.run(f"SELECT id, name, total FROM {table}"))


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
@pytest.mark.parametrize("until", STEPS)
@pytest.mark.parametrize("mode", ["insert", "upsert"])
async def test_a_run_that_ends_at_any_step_writes_each_row_once(
    database: TestDatabase,
    job: Job,
    until: End,
    mode: Any,
    kept_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactional, "_KEPT_BYTES_MAX", kept_bytes)
    sink = SqlSink(database.url, "totals", mode=mode, key="id" if mode == "upsert" else None)
    async with job.run(sink) as run:
        await run.write([Total(1, "a"), Total(2, "b")])
        await run.commit()
        await run.write([Total(3, "c"), Total(4, "d", 1.5)])
        await run.write([Total(5, "e")])
        await run.commit(until)
    first = [(1, "a", None), (2, "b", None)]
    second = [(3, "c", None), (4, "d", 1.5), (5, "e", None)]
    assert rows(database) == (first + second if until == "published" else first)
    is_committed = until in ("stored", "published")
    async with job.run(sink) as run:
        assert rows(database) == (first + second if is_committed else first)
        if not is_committed:  # the source gives them again, in other chunks
            for row in second:
                await run.write([Total(*row)])
            await run.commit()
        await run.write([Total(6, "f")])
        await run.commit(is_last=True)
    assert rows(database) == [*first, *second, (6, "f", None)]
    assert list(job.folder.iterdir()) == []
    assert database.run("SELECT app, sink, lane, number FROM streamkit_positions") == [
        ("app", "totals", "0", 3)
    ]


async def test_rows_of_every_type_survive_a_crash_in_the_file(
    database: TestDatabase, tmp_path: Path
) -> None:
    job = Job(tmp_path / "spool", Everything)
    sink = SqlSink(database.url, "everything")
    async with job.run(sink) as run:
        await run.write(EDGES)
        await run.commit("stored")
    assert database.run("SELECT count(*) FROM everything") == [(0,)]
    async with job.run(sink):
        pass
    with database.session() as session:
        found = session.query(Statement("SELECT * FROM everything"))
    decoder = row_decoder(row_type(Everything))
    values = [decoder.one(dict(zip(found.names, row, strict=True))) for row in found.rows]
    assert sorted(values, key=lambda each: each.order) == sorted(EDGES, key=lambda each: each.order)


async def test_a_crash_after_which_the_type_has_changed_loses_nothing(
    database: TestDatabase, tmp_path: Path
) -> None:
    sink = SqlSink(database.url, "totals", mode="upsert", key="id")
    job = Job(tmp_path / "spool", Total)
    async with job.run(sink) as run:
        await run.write([Total(1, "a")])
        await run.commit("stored")
    database.run("ALTER TABLE totals ADD COLUMN more text")
    More = msgspec.defstruct("More", [("id", int), ("name", str), ("more", str | None)])
    async with replace(job, kind=More).run(sink) as run:
        await run.write([More(2, "b", "c")])
        await run.commit()
    assert sorted(database.run("SELECT id, name, more FROM totals")) == [
        (1, "a", None),
        (2, "b", "c"),
    ]


async def test_only_the_last_row_of_a_key_is_written(database: TestDatabase, job: Job) -> None:
    sink = SqlSink(database.url, "totals", mode="upsert", key="id")
    async with job.run(sink) as run:
        await run.write([Total(1, "a"), Total(2, "b"), Total(1, "c"), Total(1, "d")])
        await run.write([Total(2, "e")])
        await run.commit()
        assert rows(database) == [(1, "d", None), (2, "e", None)]
        await run.write([Total(2, "f")])
        await run.commit()
    assert rows(database) == [(1, "d", None), (2, "f", None)]


async def test_a_row_that_exists_is_kept_if_the_mode_is_ignore(
    database: TestDatabase, job: Job
) -> None:
    sink = SqlSink(database.url, "totals", mode="ignore", key=("id",))
    async with job.run(sink) as run:
        await run.write([Total(1, "first"), Total(1, "second")])
        await run.commit()
        await run.write([Total(1, "third"), Total(2, "b")])
        await run.commit()
    assert rows(database) == [(1, "first", None), (2, "b", None)]


async def test_none_deletes_the_row_of_the_key(database: TestDatabase, job: Job) -> None:
    sink = SqlSink(database.url, "totals", mode="upsert", key="id")
    async with job.run(sink) as run:
        await run.write([Total(number, "a") for number in range(1, 6)])
        await run.commit()
        await run.write(
            [None, Total(2, "b"), None, Total(3, "b"), None, None],
            [b"1", None, b"2", b"3", b"3", b"99"],
        )
        await run.write([Total(3, "c"), None], [None, b"4"])
        await run.commit("stored")
    async with job.run(sink):
        pass
    assert rows(database) == [(3, "c", None), (5, "a", None)]


KEYS: list[tuple[Any, Any, bytes]] = [
    (int, -5, b"-5"),
    (str, "ä,\"'", "ä,\"'".encode()),
    (str, "5", b"5"),
    (bytes, b"\x00\xff", b"\x00\xff"),
    (UUID, UUID(int=5), str(UUID(int=5)).encode()),
    (Decimal, Decimal("1.10"), b"1.10"),
    (dt.date, dt.date(2024, 2, 29), b"2024-02-29"),
    (dt.datetime, dt.datetime(2024, 2, 29, 1, tzinfo=dt.UTC), b"2024-02-29 02:00:00+01:00"),
    (Level, Level.HIGH, b"2"),
]


@pytest.mark.parametrize(("kind", "value", "key"), KEYS)
async def test_keys_of_records_are_keys_of_rows(
    database: TestDatabase, tmp_path: Path, kind: Any, value: Any, key: bytes
) -> None:
    Row = msgspec.defstruct("Row", [("key", kind), ("name", str)])
    job = Job(tmp_path / "spool", Row)
    async with job.run(SqlSink(database.url, "t", mode="upsert", key="key")) as run:
        await run.write([Row(value, "a")])
        await run.commit()
        assert len(database.run("SELECT * FROM t")) == 1
        await run.write([None], [key])
        await run.commit()
    assert database.run("SELECT * FROM t") == []


async def test_a_key_of_several_columns_is_a_list(database: TestDatabase, tmp_path: Path) -> None:
    Row = msgspec.defstruct("Row", [("day", dt.date), ("name", str), ("n", int)])
    job = Job(tmp_path / "spool", Row)
    async with job.run(SqlSink(database.url, "t", mode="upsert", key=("name", "day"))) as run:
        await run.write([Row(dt.date(2024, 1, 1), "a", 1), Row(dt.date(2024, 1, 2), "a", 2)])
        await run.write([None], [b'["a","2024-01-01"]'])
        await run.commit()
        assert database.run("SELECT n FROM t") == [(2,)]
        for wrong in (b'["a"]', b'["a",5]', b"a", b"\xff", None):
            with pytest.raises(RowFailed):
                run.writer.on_chunk(run.chunk([None], [wrong]))


@pytest.mark.parametrize(
    ("values", "keys", "row", "text"),
    [
        ([Total(1, "a"), Total(2, "\ud800"), None], [None] * 3, 1, "column 'name'"),
        ([None, None], [b"1", None], 1, "the record has no key"),
        ([Total(1, "a"), None, Total("x", "b")], [None, b"x", None], 1, "is not a key"),  # type: ignore[arg-type]
        ([None, Total(1, "a"), 5], [b"1", None, None], 2, "has not all columns"),
    ],
)
async def test_a_record_that_cannot_be_written_fails_alone(
    database: TestDatabase, job: Job, values: Any, keys: Any, row: int, text: str
) -> None:
    async with job.run(SqlSink(database.url, "totals", mode="upsert", key="id")) as run:
        with pytest.raises(RowFailed) as failed:
            run.writer.on_chunk(run.chunk(values, keys))
        assert failed.value.row == row
        assert text in str(failed.value.__cause__)
        await run.writer.write(failed.value.before)
        await run.commit()
    assert len(rows(database)) == sum(value is not None for value in values[:row])


async def test_none_is_refused_where_nothing_is_deleted(database: TestDatabase, job: Job) -> None:
    for sink in (
        SqlSink(database.url, "totals"),
        SqlSink(database.url, "other", mode="upsert", key="id", deletes=False),
    ):
        async with job.run(sink) as run:
            with pytest.raises(RowFailed) as failed:
                run.writer.on_chunk(run.chunk([Total(1, "a"), None], [None, b"1"]))
            assert failed.value.row == 1
        job.positions.clear()


async def test_a_row_that_a_constraint_refuses_stops_the_job_before_its_commit(
    database: TestDatabase, job: Job
) -> None:
    database.run(
        "CREATE TABLE totals (id bigint, name text CHECK (name <> 'bad'), total double precision)"
    )
    sink = SqlSink(database.url, "totals")
    async with job.run(sink) as run:
        await run.write([Total(1, "a")])
        await run.commit()
        await run.write([Total(2, "b"), Total(3, "bad")])
        with pytest.raises(DataError, match="refused a statement") as refused:
            await run.commit()
        if not database.url.startswith("sqlite+"):  # others say which row it is in their errors
            assert "bad" in str(refused.value)
    async with job.run(sink) as run:
        await run.write([Total(2, "b")])
        await run.commit()
    assert rows(database) == [(1, "a", None), (2, "b", None)]


async def test_a_missing_table_is_created_only_if_it_may_be(
    database: TestDatabase, job: Job
) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        async with job.run(SqlSink(database.url, "totals", create=False)):
            pass
    async with job.run(SqlSink(database.url, "totals")):
        pass
    async with job.run(SqlSink(database.url, "totals", create=False)):
        pass


async def test_a_table_that_does_not_match_is_refused(database: TestDatabase, job: Job) -> None:
    database.run("CREATE TABLE totals (id bigint, total double precision)")
    with pytest.raises(TopologyError, match="has no column 'name'"):
        async with job.run(SqlSink(database.url, "totals")):
            pass


async def test_a_second_copy_of_a_job_is_stopped(
    database: TestDatabase, job: Job, tmp_path: Path
) -> None:
    sink = SqlSink(database.url, "totals")
    async with job.run(sink) as run:
        await run.write([Total(1, "a")])
        await run.commit()
    copy = Job(tmp_path / "copy", Total, positions=dict(job.positions))
    async with job.run(sink) as run, copy.run(sink) as other:
        await run.write([Total(2, "b")])
        await run.commit()
        await other.write([Total(2, "b")])
        with pytest.raises(StateMismatch, match="another copy of the job"):
            await other.commit()
    with pytest.raises(StateMismatch, match="has commit 2"):
        async with copy.run(sink):
            pass
    assert rows(database) == [(1, "a", None), (2, "b", None)]


async def test_a_restored_database_or_a_lost_file_is_refused(
    database: TestDatabase, job: Job
) -> None:
    sink = SqlSink(database.url, "totals")
    async with job.run(sink) as run:
        for number in range(3):
            await run.write([Total(number, "a")])
            await run.commit()
    database.run("UPDATE streamkit_positions SET number = 1")
    with pytest.raises(StateMismatch, match=r"has commit 1 .* continues after commit 3"):
        async with job.run(sink):
            pass
    database.run("UPDATE streamkit_positions SET number = 2")
    with pytest.raises(StateMismatch, match="No such file"):
        async with job.run(sink):
            pass


async def test_a_run_without_state_continues_the_numbers_of_the_database(
    database: TestDatabase, job: Job
) -> None:
    sink = SqlSink(database.url, "totals")
    async with job.run(sink) as run:
        await run.write([Total(1, "a")])
        await run.commit()
        await run.write([Total(2, "b")])
        await run.commit("stored")
    job.positions.clear()
    async with job.run(sink) as run:
        await run.write([Total(3, "c")])
        await run.commit()
    assert rows(database) == [(1, "a", None), (3, "c", None)]


async def test_apps_and_sinks_have_their_own_numbers(
    database: TestDatabase, job: Job, tmp_path: Path
) -> None:
    sink = SqlSink(database.url, "totals")
    other = Job(tmp_path / "other", Total, app="other")
    async with job.run(sink) as run, other.run(sink) as second:
        for each in (run, second):
            await each.write([Total(1, "a")])
            await each.commit()
    assert database.run("SELECT app, number FROM streamkit_positions ORDER BY app") == [
        ("app", 1),
        ("other", 1),
    ]


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
async def test_a_damaged_file_is_never_written(
    database: TestDatabase, job: Job, damage: str
) -> None:
    sink = SqlSink(database.url, "totals")
    async with job.run(sink) as run:
        await run.write([Total(1, "a"), Total(2, "b")])
        await run.commit("stored")
    (file,) = job.folder.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        data[-3] ^= 1
        file.write_bytes(data[:-1] if damage == "cut" else data)
    with pytest.raises(StateMismatch, match="cannot be read"):
        async with job.run(sink):
            pass
    assert rows(database) == []


async def test_a_typed_dict_is_written_by_its_type(database: TestDatabase, tmp_path: Path) -> None:
    job = Job(tmp_path / "spool", TotalDict)
    async with job.run(SqlSink(database.url, "totals")) as run:
        await run.write([TotalDict(id=1, name="a"), TotalDict(id=2, name="b", total=0.5)])
        await run.commit()
    assert rows(database) == [(1, "a", None), (2, "b", 0.5)]


async def test_a_server_that_is_killed_between_the_steps_is_waited_for(
    postgres: PostgresServer, postgres_only: TestDatabase, job: Job
) -> None:
    sink = SqlSink(postgres_only.url, "totals")

    def start_later() -> None:
        job.clock.passed_s = 0.0

        def start(seconds: float) -> None:
            if job.clock.passed_s > 10:
                job.clock.on_sleep = lambda seconds: None
                postgres.start()

        job.clock.on_sleep = start

    async with job.run(sink) as run:
        await run.write([Total(1, "a")])
        postgres.kill()
        start_later()
        prepared = run.writer.prepare_commit(is_last=False)
        await prepared.wait()
        postgres.kill()
        start_later()
        assert prepared.publish is not None
        await prepared.publish()
        job.positions.update(prepared.positions)
        await run.write([Total(2, "b")])
        await run.commit()
    assert rows(postgres_only) == [(1, "a", None), (2, "b", None)]
    assert len(job.notes) == 4


@pytest.mark.parametrize("mode", ["insert", "upsert"])
async def test_a_connection_that_is_cut_anywhere_writes_each_row_once(
    postgres: PostgresServer, postgres_only: TestDatabase, tmp_path: Path, mode: Any
) -> None:
    name = postgres_only.url.rpartition("/")[2]
    key = "id" if mode == "upsert" else None

    async def run_with(proxy: Proxy, *faults: Cut) -> None:
        proxy.restart(*faults)
        table = f"totals_{len(tables)}"
        tables.append(table)
        job = Job(tmp_path / table, Total, app=table)
        sink = SqlSink(postgres.url(name, port=proxy.port), table, mode=mode, key=key)
        async with job.run(sink) as run:
            for count in range(2):
                await run.write([Total(count * 5 + each, "a" * 20) for each in range(5)])
                await run.commit()
        assert [row[0] for row in rows(postgres_only, table)] == list(range(10))

    tables: list[str] = []
    places = random.Random(4711)
    with Proxy(postgres.port, postgres.port, is_framed=False) as proxy:
        await run_with(proxy)
        whole = dict(proxy.carried)
        for flow in ("sc up", "sc down") * 20:
            # The last bytes are those of closing the connection.
            cut = Cut(flow, places.randrange(whole[flow] - 100))
            await run_with(proxy, cut)
            assert cut.fired == 1


async def test_a_commit_whose_answer_is_lost_is_not_repeated(
    postgres: PostgresServer, postgres_only: TestDatabase, job: Job
) -> None:
    name = postgres_only.url.rpartition("/")[2]
    with Proxy(postgres.port, postgres.port, is_framed=False) as proxy:
        sink = SqlSink(postgres.url(name, port=proxy.port), "totals")
        async with job.run(sink) as run:
            await run.write([Total(1, "a")])
            prepared = run.writer.prepare_commit(is_last=False)
            await prepared.wait()
            # The server commits, but the first byte of its answer does not arrive.
            cut = Cut("sc down", proxy.carried["sc down"])
            proxy._faults = (cut,)
            assert prepared.publish is not None
            await prepared.publish()
            assert cut.fired == 1
    assert rows(postgres_only) == [(1, "a", None)]


async def test_another_process_that_locks_the_file_is_waited_for(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    job = Job(tmp_path / "spool", Total)
    async with job.run(SqlSink(database.url, "totals")) as run:
        await run.write([Total(1, "a")])
        other = sqlite3.connect(
            tmp_path / "test database.db", isolation_level=None, check_same_thread=False
        )
        other.execute("BEGIN IMMEDIATE")

        def release(seconds: float) -> None:
            if job.notes:
                other.execute("ROLLBACK")
                job.clock.on_sleep = lambda seconds: None

        job.clock.on_sleep = release
        await run.commit()
        other.close()
    assert rows(database) == [(1, "a", None)]
    assert "database is locked" in job.notes[0]


@pytest.mark.parametrize("publishes_first", [0, 1])
@pytest.mark.parametrize("tables", [("totals", "totals"), ("totals", "others")])
async def test_sinks_of_one_job_do_not_wait_for_each_other(
    database: TestDatabase, tmp_path: Path, tables: tuple[str, str], publishes_first: int
) -> None:
    shared: dict[object, Any] = {}
    jobs = [
        Job(tmp_path / str(number), Total, app=f"app-{number}", shared=shared)
        for number in range(2)
    ]
    sinks = [SqlSink(database.url, table, mode="upsert", key="id") for table in tables]
    async with jobs[0].run(sinks[0]) as one, jobs[1].run(sinks[1]) as other:
        for number in range(3):
            prepared = []
            for run, name in ((one, "one"), (other, "other")):
                await run.write([Total(each, f"{name} {number}") for each in range(5)])
                prepared.append(run.writer.prepare_commit(is_last=False))
            for part in prepared:  # the engine publishes only after all of them
                await part.wait()
            for part in prepared[publishes_first:] + prepared[:publishes_first]:
                assert part.publish is not None
                await part.publish()
    assert {name.split()[1] for _, name, _ in rows(database, tables[1])} == {"2"}
    assert len(rows(database, tables[1])) == 5
    assert database.run("SELECT number FROM streamkit_positions") == [(3,), (3,)]
