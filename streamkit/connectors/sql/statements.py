"""The statements of a sink: insert, upsert, delete, and the number of its last commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.queries import Statement

POSITIONS: Final = "streamkit_positions"


@dataclass(frozen=True, slots=True)
class Target:
    """A table that a sink writes to. Without ``key``, rows are only inserted.

    ``replaces``: a row replaces the one that has the same key; otherwise it is ignored.
    """

    dialect: Dialect
    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    replaces: bool = True

    def insert(self) -> str:
        """Return the statement that writes one row."""
        marks = self.dialect.placeholders(len(self.columns))
        return f"INSERT INTO {self._into} VALUES {marks}{self._on_conflict()}"

    def insert_from(self, relation: str) -> str:
        """Return the statement that writes all rows of another table, which is given as SQL.

        They are written in order of their key, so that two jobs cannot wait for each other. Of keys
        that only the database finds equal, such as those of citext, the last row replaces the
        others; PostgreSQL refuses to replace a row twice.
        """
        names = self.dialect.quoted_all(self.columns)
        if not self.key:
            return f"INSERT INTO {self._into} SELECT {names} FROM {relation}"
        key = self.dialect.quoted_all(self.key)
        # In a new table, ctid is the order in which rows were copied.
        select = f"SELECT DISTINCT ON ({key}) {names} FROM {relation} ORDER BY {key}, ctid"
        return f"INSERT INTO {self._into} {select}{' DESC' * self.replaces}{self._on_conflict()}"

    def delete(self) -> str:
        """Return the statement that deletes the row of one key."""
        assert self.key, "only a sink with a key deletes"
        mark = self.dialect.placeholder
        same = " AND ".join(f"{self.dialect.quoted(each)} = {mark}" for each in self.key)
        return f"DELETE FROM {self.dialect.table(self.table)} WHERE {same}"

    @property
    def _into(self) -> str:
        return f"{self.dialect.table(self.table)} ({self.dialect.quoted_all(self.columns)})"

    def _on_conflict(self) -> str:
        if not self.key:
            return ""
        quoted = self.dialect.quoted
        if self.dialect.upserts == "duplicate":
            # A row that changes nothing is ignored.
            kept = [f"{quoted(self.key[0])} = {quoted(self.key[0])}"]
            changed = [f"{quoted(each)} = VALUES({quoted(each)})" for each in self._replaced()]
            return f" ON DUPLICATE KEY UPDATE {', '.join(changed or kept)}"
        changed = [f"{quoted(each)} = excluded.{quoted(each)}" for each in self._replaced()]
        # A row that is only a key has nothing to change.
        action = f"UPDATE SET {', '.join(changed)}" if changed else "NOTHING"
        return f" ON CONFLICT ({self.dialect.quoted_all(self.key)}) DO {action}"

    def _replaced(self) -> list[str]:
        return [each for each in self.columns if self.replaces and each not in self.key]


def create_positions(dialect: Dialect) -> str:
    """Return the statement that creates the table with the last commit of each sink."""
    text = dialect.key_text
    return (
        f"CREATE TABLE IF NOT EXISTS {POSITIONS} (app {text} NOT NULL, sink {text} NOT NULL, "
        f"lane {text} NOT NULL, number bigint NOT NULL, PRIMARY KEY (app, sink, lane))"
        f"{dialect.table_options}"
    )


def select_position(dialect: Dialect, app: str, sink: str, lane: str) -> Statement:
    """Return the query of the number of the last commit of a sink."""
    mark = dialect.placeholder
    return Statement(
        f"SELECT number FROM {POSITIONS} WHERE app = {mark} AND sink = {mark} AND lane = {mark}",
        (app, sink, lane),
    )


def insert_position(dialect: Dialect, app: str, sink: str, lane: str, number: int) -> Statement:
    """Return the statement that stores the number of the first commit of a sink."""
    return Statement(
        f"INSERT INTO {POSITIONS} (app, sink, lane, number) VALUES {dialect.placeholders(4)}",
        (app, sink, lane, number),
    )


def lock_position(dialect: Dialect, app: str, sink: str, lane: str) -> Statement:
    """Return the statement that locks the number of a sink until the transaction ends."""
    mark = dialect.placeholder
    return Statement(
        f"UPDATE {POSITIONS} SET number = number "
        f"WHERE app = {mark} AND sink = {mark} AND lane = {mark}",
        (app, sink, lane),
    )


def update_position(dialect: Dialect, app: str, sink: str, lane: str, number: int) -> Statement:
    """Return the statement that replaces the number before this one; it changes no other."""
    mark = dialect.placeholder
    return Statement(
        f"UPDATE {POSITIONS} SET number = {mark} "
        f"WHERE app = {mark} AND sink = {mark} AND lane = {mark} AND number = {mark}",
        (number, app, sink, lane, number - 1),
    )
