"""How a source is read: which columns order its rows, and which of them may be NULL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamkit.connectors.sql.dialects import Dialect
from streamkit.connectors.sql.options import names_of
from streamkit.connectors.sql.pages import PageReader
from streamkit.connectors.sql.queries import Selection, query_relation
from streamkit.connectors.sql.sources import SqlQuery, SqlTable
from streamkit.connectors.sql.tables import Table
from streamkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a source is read. ``nullable`` are the ordering columns that may be NULL."""

    selection: Selection
    pages: PageReader
    nullable: tuple[str, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """The columns that order the rows."""
        return self.selection.order


def table_plan(source: SqlTable, dialect: Dialect, table: Table | None) -> ReadPlan:
    """Return how a table is read.

    Raises:
        ConfigError: The table or a column does not exist, or it has no key.
    """
    if table is None:
        raise ConfigError(
            f"{source} does not exist",
            hint="names are used exactly as written, with their case; "
            '"schema.table" names a table of a schema',
        )
    key = names_of(source.key) or table.primary_key
    if not key:
        raise ConfigError(
            f"{source} has no primary key", hint="name columns that identify a row with key="
        )
    known = [each.name for each in table.columns]
    key = _existing(source, dialect, key, known)
    columns = _existing(source, dialect, names_of(source.columns), known)
    (incremental,) = _existing(source, dialect, [source.incremental or key[0]], known)
    if source.splits > 1 and len(key) > 1:
        raise ConfigError(f"splits= needs a key of one column, not ({', '.join(key)})")
    order = _order(incremental, key)
    may_be_null = {each.name for each in table.columns if each.is_nullable}
    return ReadPlan(
        Selection(dialect, dialect.table(source.table), order, columns),
        PageReader(source.table, order, key, incremental),
        tuple(each for each in order if each in may_be_null),
    )


def query_plan(source: SqlQuery, dialect: Dialect) -> ReadPlan:
    """Return how a query is read."""
    key = names_of(source.key)
    incremental = source.incremental or key[0]
    order = _order(incremental, key)
    return ReadPlan(
        Selection(dialect, query_relation(dialect, source.query), order),
        PageReader(source.name, order, key, incremental),
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


def _order(incremental: str, key: Sequence[str]) -> tuple[str, ...]:
    return (incremental, *(each for each in key if each != incremental))


def _existing(
    source: SqlTable, dialect: Dialect, names: Iterable[str], known: Sequence[str]
) -> tuple[str, ...]:
    """Return names as the table has them.

    Raises:
        ConfigError: There is no such column.
    """
    found = []
    for name in names:
        same = next((each for each in known if dialect.same(each, name)), None)
        if same is None:
            raise ConfigError(
                f"{source} has no column {name!r}", hint=f"its columns are {', '.join(known)}"
            )
        found.append(same)
    return tuple(found)
