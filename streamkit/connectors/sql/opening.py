"""Chooses the driver of a database, which is imported only now."""

from __future__ import annotations

from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.url import Database


def session_for(database: Database, *, creates: bool) -> Session:
    """Return a session that is not open yet.

    Args:
        database: The database.
        creates: Create the file of an SQLite database if it is missing.

    Raises:
        ConfigError: The driver is not installed.
    """
    if database.system == "postgresql":
        from streamkit.connectors.sql.postgres import PostgresSession

        return PostgresSession(database)
    if database.system == "sqlite":
        from streamkit.connectors.sql.sqlite import SqliteSession

        return SqliteSession(database, creates=creates)
    from streamkit.connectors.sql.alchemy import AlchemySession

    return AlchemySession(database)
