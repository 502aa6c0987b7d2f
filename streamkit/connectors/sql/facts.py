"""What `streamkit connectors` shows about databases, and the tables of `streamkit copy`."""

from __future__ import annotations

from streamkit.connectors.registry import ConnectorFacts
from streamkit.connectors.sql.sinks import SqlSink
from streamkit.connectors.sql.sources import SqlTable
from streamkit.errors import UsageError

_GUARANTEE = "exactly once"


def source_at(end: str) -> SqlTable:
    """Return the table that an end of a copy names, such as ``sqlite:///shop.db#orders``.

    Raises:
        UsageError: It names no table.
    """
    return SqlTable(*_parts(end))


def sink_at(end: str) -> SqlSink:
    """Return the table, which must exist, that an end of a copy names.

    Raises:
        UsageError: It names no table.
    """
    return SqlSink(*_parts(end), create=False)


def _parts(end: str) -> tuple[str, str]:
    url, _, table = end.rpartition("#")
    if not url:
        raise UsageError(
            "the URL of a database needs the name of a table after #",
            hint="for example sqlite:///shop.db#orders",
        )
    return url, table


POSTGRES = ConnectorFacts(
    "postgres",
    "Reads and writes tables of PostgreSQL.",
    source=SqlTable,
    sink=SqlSink,
    lookup=SqlTable,
    extra="postgres",
    guarantee=_GUARANTEE,
    example='app.stream(SqlTable("postgresql://user@host/shop", "orders"), Order)',
    schemes=("postgresql", "postgres"),
    source_of=source_at,
    sink_of=sink_at,
)

OTHERS = ConnectorFacts(
    "sql",
    "Reads and writes tables of other databases through SQLAlchemy, such as MySQL and DuckDB.",
    source=SqlTable,
    sink=SqlSink,
    lookup=SqlTable,
    extra="sql",
    guarantee=_GUARANTEE,
    example='app.stream(SqlTable("mysql+pymysql://user@host/shop", "orders"), Order)',
    schemes=("mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql", "duckdb", "sqlite+pysqlite"),
    source_of=source_at,
    sink_of=sink_at,
)

SQLITE = ConnectorFacts(
    "sqlite",
    "Reads and writes tables of SQLite.",
    source=SqlTable,
    sink=SqlSink,
    lookup=SqlTable,
    guarantee=_GUARANTEE,
    example='app.stream(SqlTable("sqlite:///shop.db", "orders"), Order)',
    schemes=("sqlite",),
    source_of=source_at,
    sink_of=sink_at,
)
