"""How a source is read: which columns order its rows, and which of them may be NULL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.options import names_of
from streamkit.connectors.sql.pages import PageReader
from streamkit.connectors.sql.queries import Selection, query_relation
from streamkit.connectors.sql.sources import SqlQuery, SqlTable
from streamkit.connectors.sql.tables import Table, existing_columns, refuse_absent
from streamkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a source is read. ``nullable`` are the ordering columns that may be NULL. ``is_instant``:
    the incremental column has times in UTC, although their type has no zone."""

    selection: Selection
    pages: PageReader
    nullable: tuple[str, ...]
    is_instant: bool = False

    @property
    def order(self) -> tuple[str, ...]:
        """The columns that order the rows."""
        return self.selection.order


def table_plan(source: SqlTable, dialect: Dialect, table: Table | None) -> ReadPlan:
    """Return how a table is read.

    Raises:
        ConfigError: The table or a column does not exist, or it has no key.
    """
    table = refuse_absent(source, table, '"schema.table" names a table of a schema')
    key = names_of(source.key) or table.primary_key
    if not key:
        raise ConfigError(
            f"{source} has no primary key", hint="name columns that identify a row with key="
        )
    key = existing_columns(source, dialect, key, table)
    columns = existing_columns(source, dialect, names_of(source.columns), table)
    given = [source.incremental] if source.incremental else []
    incremental = next(iter(existing_columns(source, dialect, given, table)), None)
    if source.splits > 1 and len(key) > 1:
        raise ConfigError(f"splits= needs a key of one column, not ({', '.join(key)})")
    order = _order(incremental, key)
    may_be_null = {each.name for each in table.columns if each.is_nullable}
    return ReadPlan(
        Selection(dialect, dialect.table(source.table), order, columns, _as_text(dialect, table)),
        PageReader(source.table, order, key, incremental),
        tuple(each for each in order if each in may_be_null),
        any(each.name == incremental and _is_instant(dialect, each.type) for each in table.columns),
    )


def query_plan(source: SqlQuery, dialect: Dialect) -> ReadPlan:
    """Return how a query is read."""
    key = names_of(source.key)
    order = _order(source.incremental, key)
    return ReadPlan(
        Selection(dialect, query_relation(dialect, source.query), order),
        PageReader(source.name, order, key, source.incremental),
        order,
    )


def refuse_missing(source: SqlQuery, plan: ReadPlan, names: Sequence[str]) -> None:
    """Refuse a query whose result has not all columns that order it.

    Raises:
        ConfigError: A column is missing.
    """
    for each in plan.order:
        if each not in names:
            raise ConfigError(
                f"{source} returns no column {each!r}", hint=f"it returns {', '.join(names)}"
            )


def _is_instant(dialect: Dialect, declared: str) -> bool:
    # A TIMESTAMP of MySQL is in the zone of the session, which is UTC; a DATETIME has no zone.
    return dialect.stores == "mysql" and declared.upper().startswith("TIMESTAMP")


def _as_text(dialect: Dialect, table: Table) -> frozenset[str]:
    # They are ordered by their numbers, but compared as texts.
    if dialect.stores not in ("portable", "mysql"):
        return frozenset()
    kinds = ("enum", "set")
    return frozenset(each.name for each in table.columns if dialect.kind_of(each.type) in kinds)


def _order(incremental: str | None, key: Sequence[str]) -> tuple[str, ...]:
    if incremental is None:
        return tuple(key)
    return (incremental, *(each for each in key if each != incremental))
