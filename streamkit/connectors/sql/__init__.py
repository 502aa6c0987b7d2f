"""Tables of SQL databases as sources and sinks: PostgreSQL, SQLite and others."""

from __future__ import annotations

from streamkit.connectors.sql.lookup import SqlLookup
from streamkit.connectors.sql.sinks import SqlSink
from streamkit.connectors.sql.sources import SqlQuery, SqlTable

__all__ = ["SqlLookup", "SqlQuery", "SqlSink", "SqlTable"]
