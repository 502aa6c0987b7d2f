"""Measures the PostgreSQL sink and source against psycopg by hand, in rows per second.

python benchmarks/sql.py

It starts a PostgreSQL server of its own. The sink writes commits of 100,000 rows while it gets the
rows of the next one, as in a job; by hand there is one COPY per 100,000 rows. The sink copies
binary values, and also checks each value and keeps the rows in a file until they are committed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import anyio
import msgspec
import psycopg

from streamkit.connectors.sql import SqlSink, SqlTable
from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.dialects import POSTGRES
from streamkit.connectors.sql.sinks import Mode
from streamkit.connectors.sql.tables import create_table
from streamkit.dataflow.contracts import AcknowledgedWriter, ConnectorEnv, Prepared
from streamkit.env import SystemClock
from streamkit.record import Chunk
from tests.postgres.server import PostgresServer

COMMIT_ROWS: Final = 100_000
CHUNK_ROWS: Final = 4_096
NAMES: Final = ("id", "name", "amount", "at", "is_paid")
TYPES: Final = ("int8", "text", "float8", "timestamptz", "bool")
_numbers = count(1)


class Order(msgspec.Struct):
    id: int
    name: str
    amount: float
    at: dt.datetime
    is_paid: bool


def orders(rows: int) -> list[Order]:
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return [
        Order(each, f"name {each}", each / 2, start + dt.timedelta(seconds=each), each % 2 == 0)
        for each in range(rows)
    ]


def main(*, rows: int = 400_000, rounds: int = 5) -> list[str]:
    """Measure all sides in turns; return a line for each."""
    given = orders(rows)
    with PostgresServer(fsync="on") as server:
        url = server.url()
        sides: dict[str, Callable[[], float]] = {
            "COPY by hand": partial(copy_by_hand, url, given, ()),
            "binary COPY": partial(copy_by_hand, url, given, TYPES),
            "upsert by hand": partial(upsert_by_hand, url, given),
            "sink, insert": partial(write, url, given, "insert"),
            "sink, upsert": partial(write, url, given, "upsert"),
            "fetch by hand": partial(fetch_by_hand, url, given),
            "source": partial(read, url, given),
        }
        best = dict.fromkeys(sides, 0.0)
        for _ in range(rounds):
            for name, run in sides.items():
                best[name] = max(best[name], rows / run())
    bases = {"sink, insert": "COPY by hand", "sink, upsert": "upsert by hand"}
    bases |= {"binary COPY": "COPY by hand", "source": "fetch by hand"}
    return [
        f"{name:<14} {rate:>10,.0f} rows/s"
        + (f", {rate / best[bases[name]]:.2f} of {bases[name]}" if name in bases else "")
        for name, rate in best.items()
    ]


def new_table(url: str, *key: str) -> str:
    name = f"orders_{next(_numbers)}"
    with psycopg.connect(url) as connection:
        connection.execute(create_table(POSTGRES, name, row_type(Order), key).encode())
    return name


def check(url: str, table: str, given: list[Order]) -> None:
    with psycopg.connect(url) as connection:
        found = connection.execute(f"SELECT count(*), sum(id) FROM {table}".encode()).fetchone()
        assert found == (len(given), sum(each.id for each in given))
        connection.execute(f"DROP TABLE {table}".encode())


def copy_by_hand(url: str, given: list[Order], types: Sequence[str]) -> float:
    table = new_table(url)
    row_of = attrgetter(*NAMES)
    with psycopg.connect(url) as connection:
        started_s = perf_counter()
        for start in range(0, len(given), COMMIT_ROWS):
            text = f"COPY {table} FROM STDIN{' (FORMAT BINARY)' if types else ''}".encode()
            with connection.cursor() as cursor, cursor.copy(text) as copy:
                if types:
                    copy.set_types(types)
                for each in given[start : start + COMMIT_ROWS]:
                    copy.write_row(row_of(each))
            connection.commit()
        seconds = perf_counter() - started_s
    check(url, table, given)
    return seconds


def upsert_by_hand(url: str, given: list[Order]) -> float:
    table = new_table(url, "id")
    row_of = attrgetter(*NAMES)
    changed = ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])
    with psycopg.connect(url) as connection:
        started_s = perf_counter()
        for start in range(0, len(given), COMMIT_ROWS):
            connection.execute(
                f"CREATE TEMPORARY TABLE stage (LIKE {table}) ON COMMIT DROP".encode()
            )
            with connection.cursor() as cursor, cursor.copy("COPY stage FROM STDIN") as copy:
                for each in given[start : start + COMMIT_ROWS]:
                    copy.write_row(row_of(each))
            connection.execute(
                f"INSERT INTO {table} SELECT * FROM stage "
                f"ON CONFLICT (id) DO UPDATE SET {changed}".encode()
            )
            connection.commit()
        seconds = perf_counter() - started_s
    check(url, table, given)
    return seconds


def write(url: str, given: list[Order], mode: Mode) -> float:
    return anyio.run(_write, url, given, mode)


async def _write(url: str, given: list[Order], mode: Mode) -> float:
    key = () if mode == "insert" else ("id",)
    table = new_table(url, *key)
    with TemporaryDirectory() as folder:
        env = ConnectorEnv(table, "benchmark", Path(folder), SystemClock(), kind=Order)
        writer = SqlSink(url, table, mode=mode, key=key).writer(env)
        assert isinstance(writer, AcknowledgedWriter)
        await writer.open({})
        committed = anyio.Event()
        committed.set()
        started_s = perf_counter()
        async with anyio.create_task_group() as tasks:
            for start in range(0, len(given), COMMIT_ROWS):
                await add(writer, given[start : start + COMMIT_ROWS])
                await committed.wait()
                committed = anyio.Event()
                tasks.start_soon(commit, writer.prepare_commit(is_last=False), committed)
        seconds = perf_counter() - started_s
        await writer.close()
    check(url, table, given)
    return seconds


async def add(writer: AcknowledgedWriter, given: list[Order]) -> None:
    for start in range(0, len(given), CHUNK_ROWS):
        values = given[start : start + CHUNK_ROWS]
        rows = len(values)
        chunk = Chunk(values, [None] * rows, [0] * rows, range(rows))
        await writer.write(writer.on_chunk(chunk))


async def commit(prepared: Prepared, committed: anyio.Event) -> None:
    await prepared.wait()
    assert prepared.publish is not None
    await prepared.publish()
    committed.set()


def source_table(url: str, given: list[Order]) -> str:
    """Return a table with the rows, which is created once."""
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('source_orders')").fetchone() == (None,):
            text = create_table(POSTGRES, "source_orders", row_type(Order), ("id",))
            connection.execute(text.encode())
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY source_orders FROM STDIN") as copy,
            ):
                for each in given:
                    copy.write_row(msgspec.structs.astuple(each))
    return "source_orders"


def fetch_by_hand(url: str, given: list[Order]) -> float:
    table = source_table(url, given)
    found = 0
    with psycopg.connect(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        started_s = perf_counter()
        with connection.cursor("by_hand") as cursor:
            cursor.execute(
                f"SELECT id, name, amount, at, is_paid FROM {table} ORDER BY id".encode()
            )
            while rows := cursor.fetchmany(10_000):
                named = [dict(zip(NAMES, row, strict=True)) for row in rows]
                found += len(msgspec.convert(named, list[Order]))
        seconds = perf_counter() - started_s
    assert found == len(given)
    return seconds


def read(url: str, given: list[Order]) -> float:
    return anyio.run(_read, url, given)


async def _read(url: str, given: list[Order]) -> float:
    source = SqlTable(url, source_table(url, given))
    decoder = source.decoder(Order, None)
    assert decoder.many is not None
    reader = source.reader(ConnectorEnv("orders", "benchmark", Path(), SystemClock()))
    found = 0
    await reader.open({})
    started_s = perf_counter()
    while (chunk := await reader.next()) is not None:
        found += len(decoder.many(chunk.values))
        reader.position_after(chunk)
    seconds = perf_counter() - started_s
    await reader.close()
    assert found == len(given)
    return seconds


if __name__ == "__main__":
    print("\n".join(main()))
