"""What `streamkit connectors` shows about databases, and the tables of `streamkit copy`."""

from __future__ import annotations

from streamkit.connectors.registry import ConnectorFacts
from streamkit.connectors.sql.sinks import SqlSink
from streamkit.connectors.sql.sources import SqlTable
from streamkit.errors import UsageError

_GUARANTEE = "exactly once"


def table_at(end: str) -> SqlTable:
    """Return the table that an end of a copy names, such as ``sqlite:///shop.db#orders``.

    Raises:
        UsageError: It names no table.
    """
    url, _, table = end.rpartition("#")
    if not url:
        raise UsageError(
            "the URL of a database needs the name of a table after #",
            hint="for example sqlite:///shop.db#orders",
        )
    return SqlTable(url, table)


POSTGRES = ConnectorFacts(
    "postgres",
    "Reads and writes tables of PostgreSQL.",
    source=SqlTable,
    sink=SqlSink,
    extra="postgres",
    guarantee=_GUARANTEE,
    example='app.stream(SqlTable("postgresql://user@host/shop", "orders"), Order)',
    schemes=("postgresql", "postgres"),
    source_of=table_at,
)

SQLITE = ConnectorFacts(
    "sqlite",
    "Reads and writes tables of SQLite.",
    source=SqlTable,
    sink=SqlSink,
    guarantee=_GUARANTEE,
    example='app.stream(SqlTable("sqlite:///shop.db", "orders"), Order)',
    schemes=("sqlite",),
    source_of=table_at,
)
