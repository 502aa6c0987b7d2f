"""Tables are created for a type, and an existing table is compared with it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from streamkit.connectors.sql.columns import row_type
from streamkit.connectors.sql.decoding import row_decoder
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.rows import row_encoder
from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.statements import Target
from streamkit.connectors.sql.tables import (
    Limits,
    Table,
    create_table,
    limits_of,
    refuse_mismatches,
)
from streamkit.errors import DataError, TopologyError
from tests.sql.databases import TestDatabase, sqlite_database
from tests.sql.kinds import EDGES, USUAL, Everything, Level, Total, TotalDict


def described(session: Session, table: str) -> Table:
    found = session.describe(table)
    assert found is not None
    return found


def mismatches(session: Session, table: str, kind: Any, *key: str) -> list[str]:
    try:
        refuse_mismatches(session.dialect, table, described(session, table), row_type(kind), key)
    except TopologyError as error:
        return str(error).splitlines()[1:]
    return []


def write(session: Session, table: str, kind: Any, values: list[Any], *key: str) -> None:
    rows = row_type(kind)
    encoder = row_encoder(
        rows, session.dialect, limits_of(session.dialect, described(session, table), rows)
    )
    session.begin()
    session.write(Target(session.dialect, table, rows.names, key), encoder.encode(values))
    session.commit()


def read(session: Session, table: str, kind: Any, order: str) -> list[Any]:
    quoted = session.dialect.quoted
    found = session.query(
        Statement(f"SELECT * FROM {session.dialect.table(table)} ORDER BY {quoted(order)}")
    )
    decoder = row_decoder(row_type(kind))
    rows = [dict(zip(found.names, row, strict=True)) for row in found.rows]
    one_by_one = list(map(decoder.one, rows))
    assert list(decoder.many(rows)) == one_by_one
    return one_by_one


@pytest.mark.parametrize("table", ["everything", "Select", 'odd."na.me %s"'])
@pytest.mark.parametrize("key", [(), ("Order",)])
def test_every_value_is_read_as_it_was_written(
    database: TestDatabase, table: str, key: tuple[str, ...]
) -> None:
    if "." in table:
        if not database.is_postgres:
            table = '"na.me `%s"'
        else:
            database.run("CREATE SCHEMA odd")
    with database.session() as session:
        for _ in range(2):
            session.execute(
                Statement(create_table(session.dialect, table, row_type(Everything), key))
            )
        assert mismatches(session, table, Everything, *key) == []
        write(session, table, Everything, EDGES, *key)
        assert read(session, table, Everything, "Order") == sorted(
            EDGES, key=lambda each: each.order
        )


def test_a_missing_key_of_a_typed_dict_stays_missing(database: TestDatabase) -> None:
    values = [TotalDict(id=1, name="a"), TotalDict(id=2, name="b", total=1.5)]
    with database.session() as session:
        session.execute(Statement(create_table(session.dialect, "t", row_type(TotalDict), ["id"])))
        write(session, "t", TotalDict, values, "id")
        assert read(session, "t", TotalDict, "id") == values


def test_a_missing_table_is_not_described(database: TestDatabase) -> None:
    database.run("CREATE TABLE orders (id bigint)")
    with database.session() as session:
        assert session.describe("order") is None
        assert session.describe('"or`d""er%s"') is None


def test_everything_that_does_not_match_is_listed(database: TestDatabase) -> None:
    text = "text" if database.is_postgres else "REAL"
    database.run(
        f"CREATE TABLE totals (id {text}, total double precision NOT NULL, must int NOT NULL, "
        "may int, set_by_default int NOT NULL DEFAULT 1, "
        "name text GENERATED ALWAYS AS ('a') STORED)"
    )
    integer = "bigint" if database.is_postgres else "INTEGER"
    with database.session() as session:
        assert mismatches(session, "totals", Total, "id") == [
            f"  - the column 'id' is {text}, but its field has whole numbers ({integer})",
            "  - the database generates the column 'name', so it cannot be written",
            "  - the column 'total' is NOT NULL, but its field may be None",
            "  - its column 'must' is NOT NULL and has no default, but Total has no such field",
            "  - it has no primary key and no unique index on exactly (id)",
        ]


def test_a_column_that_is_missing_is_listed(database: TestDatabase) -> None:
    database.run("CREATE TABLE totals (id bigint PRIMARY KEY, total double precision)")
    with database.session() as session:
        (line,) = mismatches(session, "totals", Total, "id")
        assert line.startswith("  - it has no column 'name'")


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_only_an_index_on_exactly_the_key_is_enough(database: TestDatabase) -> None:
    database.run_all(
        "CREATE TABLE totals (id bigint NOT NULL, name text NOT NULL, total double precision, "
        "PRIMARY KEY (id, name))",
        "CREATE UNIQUE INDEX partial ON totals (id) WHERE total > 0",
        "CREATE UNIQUE INDEX computed ON totals (lower(name))",
        "CREATE INDEX plain ON totals (id)",
    )
    with database.session() as session:
        assert mismatches(session, "totals", Total, "name", "id") == []
        assert len(mismatches(session, "totals", Total, "id")) == 1
        assert len(mismatches(session, "totals", Total, "name")) == 1
        assert described(session, "totals").primary_key == ("id", "name")
        session.execute(Statement("CREATE UNIQUE INDEX good ON totals (id)"))
        assert mismatches(session, "totals", Total, "id") == []


def test_a_deferrable_key_of_postgresql_is_no_key_for_upserts(postgres_only: TestDatabase) -> None:
    postgres_only.run(
        "CREATE TABLE totals (id bigint UNIQUE DEFERRABLE, name text, total double precision)"
    )
    with postgres_only.session() as session:
        assert len(mismatches(session, "totals", Total, "id")) == 1


def test_columns_that_the_database_numbers_may_be_left_out(database: TestDatabase) -> None:
    number = "serial PRIMARY KEY" if database.is_postgres else "INTEGER PRIMARY KEY"
    database.run(f"CREATE TABLE logs (number {number}, id bigint, name text, total real)")
    with database.session() as session:
        assert mismatches(session, "logs", Total) == []
        write(session, "logs", Total, [Total(1, "a"), Total(2, "b", 0.5)])
    assert database.run("SELECT * FROM logs ORDER BY number") == [
        (1, 1, "a", None),
        (2, 2, "b", 0.5),
    ]


class Narrow(msgspec.Struct):
    small: int
    single: float
    int32: int
    price: Decimal
    digits: int
    name: str
    code: str


def test_values_that_only_this_table_refuses_are_found_first(postgres_only: TestDatabase) -> None:
    postgres_only.run_all(
        "CREATE DOMAIN code AS varchar(2)",
        "CREATE TABLE narrow (small smallint, single real, int32 int, price numeric(5, 2), "
        "digits numeric(3), name varchar(4), code code)",
    )
    fits = Narrow(2**15 - 1, 0.5, -(2**31), Decimal("999.99"), 999, "äöü€", "ab")
    rows = row_type(Narrow)
    with postgres_only.session() as session:
        assert mismatches(session, "narrow", Narrow) == []
        limits = limits_of(session.dialect, described(session, "narrow"), rows)
        assert limits == (
            Limits(int_bits=16),
            Limits(is_single=True),
            Limits(int_bits=32),
            Limits(digits_max=3),
            Limits(digits_max=3),
            Limits(length_max=4, is_text=True),
            Limits(length_max=2, is_text=True),
        )
        write(session, "narrow", Narrow, [fits])
        assert read(session, "narrow", Narrow, "name") == [fits]
        encoder = row_encoder(rows, session.dialect, limits)
        for change in (
            {"small": 2**15},
            {"single": 3.5e38},
            {"int32": 2**31},
            {"price": Decimal(1000)},
            {"digits": 1000},
            {"name": "abcde"},
            {"code": "abc"},
        ):
            with pytest.raises(ValueError, match=f"column '{next(iter(change))}'"):
                encoder.encode([msgspec.structs.replace(fits, **change)])


def test_columns_of_every_type_that_fits_are_written(postgres_only: TestDatabase) -> None:
    postgres_only.run_all(
        "CREATE EXTENSION IF NOT EXISTS citext",
        "CREATE TABLE odd (a numeric, b real, c varchar(9), d json, e text, f text, g citext, "
        "h smallint)",
    )
    Odd = msgspec.defstruct(
        "Odd",
        [
            ("a", int),
            ("b", float),
            ("c", str),
            ("d", dict[str, int]),
            ("e", list[str]),
            ("f", UUID),
            ("g", str),
            ("h", Level),
        ],
    )
    value = Odd(2**62, 0.5, "ä", {"a": 1}, ["x"], UUID(int=5), "Citext", Level.HIGH)
    with postgres_only.session() as session:
        assert mismatches(session, "odd", Odd) == []
        write(session, "odd", Odd, [value])
        assert read(session, "odd", Odd, "a") == [value]


def test_a_type_that_cannot_be_copied_binary_is_copied_as_text(postgres_only: TestDatabase) -> None:
    postgres_only.run_all("CREATE TABLE odd (a int, b xml)", "CREATE TABLE other (a int)")
    with postgres_only.session() as session:
        session.begin()
        session.write(Target(session.dialect, "odd", ("a", "b")), [(1, "<a>x</a>")])
        session.commit()
    assert postgres_only.run("SELECT a, b::text FROM odd") == [(1, "<a>x</a>")]


def test_an_affinity_of_sqlite_that_would_change_values_does_not_match(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    database.run("CREATE TABLE t (a NUMERIC(10, 2), b VARCHAR(20), c, d FLOATING POINT)")
    Prices = msgspec.defstruct("Prices", [("a", Decimal)])
    Texts = msgspec.defstruct("Texts", [("a", str)])
    Fine = msgspec.defstruct("Fine", [("a", int), ("b", str), ("c", bytes), ("d", str)])
    with database.session() as session:
        assert len(mismatches(session, "t", Prices)) == 1
        assert len(mismatches(session, "t", Texts)) == 1
        (line,) = mismatches(session, "t", Fine)
        assert line.startswith("  - the column 'd' is FLOATING POINT, but its field has text")


def test_numbers_of_the_database_become_the_type_of_the_field(postgres_only: TestDatabase) -> None:
    Kind = msgspec.defstruct("Kind", [("a", int), ("b", float), ("c", str), ("d", list[int])])
    postgres_only.run_all(
        "CREATE TABLE t (a numeric, b numeric, c uuid, d int[])",
        "INSERT INTO t VALUES (3.0, 1.5, '00000000-0000-0000-0000-000000000001', '{1,2}')",
    )
    with postgres_only.session() as session:
        assert read(session, "t", Kind, "a") == [
            Kind(3, 1.5, "00000000-0000-0000-0000-000000000001", [1, 2])
        ]
        session.execute(Statement("UPDATE t SET a = 3.5"))
        with pytest.raises(ValueError, match=r"3\.5 is not a whole number"):
            read(session, "t", Kind, "a")


def test_times_are_read_in_utc_whatever_the_settings_of_the_server(
    postgres_only: TestDatabase,
) -> None:
    name = postgres_only.url.rpartition("/")[2]
    postgres_only.run_all(
        f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'",
        f"ALTER DATABASE {name} SET intervalstyle = 'iso_8601'",
        "CREATE TABLE t (at timestamptz, took interval)",
        "INSERT INTO t VALUES ('2024-02-01 00:00+00', '1 day 2 seconds')",
    )
    Kind = msgspec.defstruct("Kind", [("at", dt.datetime), ("took", dt.timedelta)])
    with postgres_only.session() as session:
        (found,) = read(session, "t", Kind, "at")
    assert found == Kind(dt.datetime(2024, 2, 1, tzinfo=dt.UTC), dt.timedelta(days=1, seconds=2))
    assert msgspec.json.encode(found.at) == b'"2024-02-01T00:00:00Z"'


def test_text_is_not_read_as_bytes(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    database.run_all("CREATE TABLE t (a)", "INSERT INTO t VALUES ('YWJj')")
    Kind = msgspec.defstruct("Kind", [("a", bytes)])
    with database.session() as session, pytest.raises(ValueError, match="is text, not bytes"):
        read(session, "t", Kind, "a")


def test_a_missing_column_is_not_read_as_text(database: TestDatabase) -> None:
    database.run_all("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    with database.session() as session:
        quoted = session.dialect.quoted("none")
        with pytest.raises(Exception, match="none"):
            session.query(Statement(f"SELECT {quoted} FROM t"))


@pytest.mark.parametrize("key", [("id",), ("id", "name", "total")])
def test_an_upsert_replaces_rows_and_a_delete_removes_them(
    database: TestDatabase, key: tuple[str, ...]
) -> None:
    Kind = msgspec.defstruct("Kind", [("id", int), ("name", str), ("total", float)])
    with database.session() as session:
        session.execute(Statement(create_table(session.dialect, "t", row_type(Kind), key)))
        write(session, "t", Kind, [Kind(1, "a", 1.0), Kind(2, "b", 2.0)], *key)
        write(session, "t", Kind, [Kind(2, "b", 2.0), Kind(3, "c", 3.0)], *key)
        changed = [Kind(2, "B", 20.0)]
        write(session, "t", Kind, changed, *key)
        expected = [(1, "a", 1.0), (2, "b", 2.0), (3, "c", 3.0)]
        if key == ("id",):
            expected[1] = (2, "B", 20.0)
        else:
            expected.append((2, "B", 20.0))
        assert sorted(database.run("SELECT * FROM t")) == sorted(expected)
        session.begin()
        target = Target(session.dialect, "t", ("id", "name", "total"), key)
        session.delete(target, [expected[0][: len(key)], expected[2][: len(key)]])
        session.commit()
        del expected[2], expected[0]
        assert sorted(database.run("SELECT * FROM t")) == sorted(expected)


def test_a_row_that_exists_is_kept_if_it_is_to_be_ignored(database: TestDatabase) -> None:
    with database.session() as session:
        session.execute(Statement(create_table(session.dialect, "t", row_type(Total), ["id"])))
        target = Target(session.dialect, "t", ("id", "name", "total"), ("id",), replaces=False)
        for name in ("first", "second"):
            session.begin()
            session.write(target, [(1, name, None)])
            session.commit()
        assert database.run("SELECT name FROM t") == [("first",)]


def test_a_transaction_that_is_rolled_back_leaves_nothing(database: TestDatabase) -> None:
    with database.session() as session:
        session.execute(Statement(create_table(session.dialect, "t", row_type(Total), ["id"])))
        target = Target(session.dialect, "t", ("id", "name", "total"), ("id",))
        session.begin()
        session.write(target, [(1, "a", None)])
        session.rollback()
        session.begin()
        session.write(target, [(2, "b", None)])
        session.commit()
        assert database.run("SELECT id FROM t") == [(2,)]


def test_a_row_that_the_database_refuses_is_an_error_of_the_data(database: TestDatabase) -> None:
    database.run("CREATE TABLE t (id bigint, name text CHECK (name <> 'bad'), total real)")
    with database.session() as session:
        session.begin()
        with pytest.raises(DataError, match="refused a statement"):
            session.write(Target(session.dialect, "t", ("id", "name", "total")), [(1, "bad", None)])


Zoned = Annotated[dt.datetime, msgspec.Meta(tz=True)]


def test_a_time_without_zone_does_not_match_a_column_with_zone(
    postgres_only: TestDatabase,
) -> None:
    postgres_only.run("CREATE TABLE t (at timestamp)")
    Kind = msgspec.defstruct("Kind", [("at", Zoned)])
    with postgres_only.session() as session:
        (line,) = mismatches(session, "t", Kind)
    assert "is timestamp without time zone, but its field has times with a time zone" in line


def test_the_usual_row_has_no_default_values() -> None:
    assert all(value is not None for value in msgspec.structs.astuple(USUAL)[:-1])
