"""Creates tables for a type of rows, and compares existing ones with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from streamkit.connectors.sql.columns import Column, RowType
from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.dialects import Dialect
from streamkit.errors import ConfigError, TopologyError

_NUMBERS: Final = re.compile(r"\((\d+)(?:,(-?\d+))?\)")
_INT_BITS: Final = {"bigint": 64, "integer": 32, "mediumint": 24, "smallint": 16, "tinyint": 8}
_UNSIGNED: Final = re.compile(r"\bUNSIGNED\b|\AU(?:BIG|SMALL|TINY)?INT", re.I)
_NO_KEY_TYPES: Final = (T.JSON,)
# The end of the type of an array in PostgreSQL.
ARRAY_MARK: Final = "[]"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of an existing table, as the database describes it.

    ``type`` is the declared type with its length. ``is_generated``: the database computes its
    values, so none can be written. ``labels`` are the values of an enumeration of the database.
    """

    name: str
    type: str
    is_nullable: bool = True
    has_default: bool = False
    is_generated: bool = False
    labels: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The length, or precision and scale, of the declared type; empty without them."""
        found = _NUMBERS.search(self.type.replace(" ", ""))
        return tuple(int(each) for each in found.groups() if each) if found else ()


@dataclass(frozen=True, slots=True)
class Table:
    """An existing table. ``unique`` has the columns of its primary key, then of unique indexes."""

    columns: tuple[TableColumn, ...]
    primary_key: tuple[str, ...] = ()
    unique: tuple[frozenset[str], ...] = ()
    is_view: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What an existing column can hold, where that is less than its type can.

    ``int_bits`` is the size of whole numbers, which are not negative if ``is_unsigned``;
    ``length_max`` that of text; ``digits_max`` is the number of digits before the decimal point.
    ``is_single``: floating-point numbers have 32 bits.
    ``is_text``: the column holds text. ``labels`` are all the texts that it can hold. ``declared``
    is the type of a column of SQLite, which can hold any value, in lower case.
    """

    int_bits: int = 64
    is_unsigned: bool = False
    length_max: int | None = None
    digits_max: int | None = None
    is_single: bool = False
    is_text: bool = False
    is_nullable: bool = True
    labels: tuple[str, ...] = ()
    declared: str = ""


def refuse_absent(what: object, table: Table | None, hint: str = "") -> Table:
    """Return a table that exists.

    Raises:
        ConfigError: It does not.
    """
    if table is None:
        used = "names are used exactly as written, with their case"
        raise ConfigError(f"{what} does not exist", hint=f"{used}; {hint}" if hint else used)
    return table


def existing_columns(
    what: object, dialect: Dialect, names: Iterable[str], table: Table
) -> tuple[str, ...]:
    """Return names of columns as the table has them.

    Raises:
        ConfigError: There is no such column.
    """
    found = []
    for name in names:
        column = _found(dialect, table, name)
        if column is None:
            known = ", ".join(each.name for each in table.columns)
            raise ConfigError(f"{what} has no column {name!r}", hint=f"its columns are {known}")
        found.append(column.name)
    return tuple(found)


def key_columns(rows: RowType, key: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the key columns that a user named.

    Raises:
        TopologyError: The type has no such column, or one that cannot be a key.
    """
    names = () if key is None else (key,) if isinstance(key, str) else tuple(key)
    for name in names:
        column = rows.column(name)
        if column is None:
            raise TopologyError(
                f"{rows} has no column {name!r}, which key= names",
                hint=f"its columns are {', '.join(rows.names)}",
            )
        if column.is_nullable or column.holds in _NO_KEY_TYPES:
            what = "may be None" if column.is_nullable else "is JSON"
            raise TopologyError(f"the column {name!r} of {rows} {what}, so it cannot be a key")
    if len(set(names)) != len(names):
        raise TopologyError(f"key= names a column twice: {', '.join(names)}")
    return names


def check_names(rows: RowType, dialect: Dialect) -> None:
    """Refuse columns that a database cannot tell apart.

    Raises:
        TopologyError: Two columns have the same name in this database.
        UsageError: A name is not valid.
    """
    for number, name in enumerate(rows.names):
        dialect.quoted(name)
        for other in rows.names[:number]:
            if dialect.same(name, other):
                raise TopologyError(
                    f"{rows} has the columns {other!r} and {name!r}, which {dialect.name} "
                    "does not distinguish"
                )


def create_table(dialect: Dialect, table: str, rows: RowType, key: Sequence[str]) -> str:
    """Return the statement that creates a table for a type of rows if it is missing."""
    lines = [
        f"{dialect.quoted(each.name)} {_new_type(dialect, each, each.name in key)}"
        f"{'' if each.is_nullable else ' NOT NULL'}"
        for each in rows.columns
    ]
    if key:
        lines.append(f"PRIMARY KEY ({dialect.quoted_all(key)})")
    columns = ", ".join(lines)
    return f"CREATE TABLE IF NOT EXISTS {dialect.table(table)} ({columns}){dialect.table_options}"


def _new_type(dialect: Dialect, column: Column, is_key: bool) -> str:
    declared = dialect.types[column.holds]
    is_text = dialect.kind_of(declared) == dialect.kind_of(dialect.types[T.TEXT])
    if is_key and column.holds is T.BYTES:
        return dialect.key_bytes or declared
    return dialect.key_text if is_key and is_text else declared


def refuse_mismatches(
    dialect: Dialect, name: str, table: Table, rows: RowType, key: Sequence[str]
) -> None:
    """Refuse to write rows into a table that cannot hold them.

    Raises:
        TopologyError: The text lists everything that does not match.
    """
    found = [
        *_column_mismatches(dialect, table, rows),
        *_missing_fields(dialect, table, rows),
        *_key_mismatch(dialect, table, key),
    ]
    if found:
        listed = "".join(f"\n  - {each}" for each in found)
        raise TopologyError(
            f"the table {name} does not match {rows}:{listed}",
            hint="change the type or the table, or use another table",
        )


def with_arrays(dialect: Dialect, table: Table, rows: RowType) -> RowType:
    """Return rows whose lists are arrays where the columns of an existing table are."""
    columns = tuple(
        replace(each, holds=T.ARRAY) if _is_array(_found(dialect, table, each.name)) else each
        for each in rows.columns
    )
    return replace(rows, columns=columns)


def _is_array(column: TableColumn | None) -> bool:
    return column is not None and column.type.endswith(ARRAY_MARK)


def limits_of(dialect: Dialect, table: Table, rows: RowType) -> tuple[Limits, ...]:
    """Return what the columns of an existing table can hold, one for each column of the rows."""
    return tuple(
        _limits(dialect, found) if (found := _found(dialect, table, each.name)) else Limits()
        for each in rows.columns
    )


def _limits(dialect: Dialect, column: TableColumn) -> Limits:
    if dialect.affinities:  # lengths and precisions mean nothing
        return Limits(is_nullable=column.is_nullable, declared=column.type.lower())
    kind, numbers = dialect.kind_of(column.type.removesuffix(ARRAY_MARK)), column.numbers
    precision, scale = (*numbers, 0, 0)[:2]
    return Limits(
        int_bits=_INT_BITS.get(kind, 64),
        is_unsigned=_UNSIGNED.search(column.type) is not None,
        length_max=precision if kind.startswith("character") and numbers else None,
        digits_max=precision - scale if kind == "numeric" and numbers else None,
        is_single=kind == "real",
        is_text=kind in dialect.fits[T.TEXT],
        is_nullable=column.is_nullable,
        labels=column.labels,
    )


def _column_mismatches(dialect: Dialect, table: Table, rows: RowType) -> Iterator[str]:
    for column in rows.columns:
        found = _found(dialect, table, column.name)
        if found is None:
            yield f"it has no column {column.name!r} ({dialect.types[column.holds]})"
        elif found.is_generated:
            yield f"the database generates the column {column.name!r}, so it cannot be written"
        elif not _fits(dialect, column, found):
            yield _type_mismatch(dialect, column, found)
        elif column.is_nullable and not found.is_nullable:
            yield f"the column {column.name!r} is NOT NULL, but its field may be None"


def _fits(dialect: Dialect, column: Column, found: TableColumn) -> bool:
    if found.labels:
        return column.holds is T.TEXT
    if _is_array(found):
        of_item = replace(found, type=found.type.removesuffix(ARRAY_MARK))
        return column.items is not None and _fits(dialect, column.items, of_item)
    return dialect.kind_of(found.type) in dialect.fits[column.holds]


def _type_mismatch(dialect: Dialect, column: Column, found: TableColumn) -> str:
    return (
        f"the column {column.name!r} is {found.type or 'without a type'}, but its field has "
        f"{column.holds.value} ({dialect.types[column.holds]})"
    )


def _missing_fields(dialect: Dialect, table: Table, rows: RowType) -> Iterator[str]:
    for column in table.columns:
        is_optional = column.is_nullable or column.has_default or column.is_generated
        if not is_optional and not any(dialect.same(column.name, each) for each in rows.names):
            yield (
                f"its column {column.name!r} is NOT NULL and has no default, but {rows} has no "
                "such field"
            )


def _key_mismatch(dialect: Dialect, table: Table, key: Sequence[str]) -> Iterator[str]:
    if not key:
        return
    fold = str.lower if dialect.folds_case else str
    wanted = {fold(each) for each in key}
    if not any({fold(each) for each in unique} == wanted for unique in table.unique):
        yield f"it has no primary key and no unique index on exactly ({', '.join(key)})"


def _found(dialect: Dialect, table: Table, name: str) -> TableColumn | None:
    return next((each for each in table.columns if dialect.same(each.name, name)), None)
