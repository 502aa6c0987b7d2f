"""How databases write names, parameters and types, and which columns can hold a type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.errors import UsageError, shown

# In a declared type, its length, and attributes of numbers in MySQL.
_NOT_OF_NAME: Final = re.compile(r"\([^)]*\)|\b(?:UNSIGNED|ZEROFILL)\b", re.I)
_PART: Final = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """The SQL of one database system.

    ``types`` are the types of new columns. ``fits`` are the types of existing columns that can
    hold a type, as `kind_of` writes them. ``name_bytes_max`` is the length of the longest name:
    PostgreSQL silently shortens longer ones. ``escapes_percent``: its driver reads ``%`` as a
    placeholder, in every statement that is executed with a tuple of parameters, even an empty one.
    ``upserts`` is how a row replaces another: ON CONFLICT, ON DUPLICATE KEY UPDATE, or not at all.
    ``stores`` names the way in which values are stored, see `streamkit.connectors.sql.values`.
    ``synonyms`` are other names of types. ``key_text`` is the type of text in a key, and
    ``key_bytes`` that of bytes.
    ``table_options`` is the end of CREATE TABLE. ``now`` is the query of the time in UTC, and of
    that in the zone in which the database sets times of columns without one.
    """

    name: str
    placeholder: str
    types: Mapping[T, str]
    fits: Mapping[T, frozenset[str]]
    quote: str = '"'
    name_bytes_max: int = 255
    folds_case: bool = False
    escapes_percent: bool = False
    compares_rows: bool = True
    affinities: tuple[tuple[str, str], ...] = ()
    upserts: Literal["conflict", "duplicate"] | None = "conflict"
    stores: Literal["native", "sqlite", "portable", "mysql"] = "native"
    synonyms: Mapping[str, str] = field(default_factory=dict)
    key_text: str = "text"
    key_bytes: str = ""
    table_options: str = ""
    now: str = "SELECT CURRENT_TIMESTAMP, CURRENT_TIMESTAMP"

    def quoted(self, name: str) -> str:
        """Return a name of a column or table part as SQL. Quoted names keep their case.

        Raises:
            UsageError: No database object can have this name.
        """
        if not name or "\0" in name or not _is_text(name):
            raise UsageError(f"{shown(name)} is not a valid name in a database")
        if len(name.encode()) > self.name_bytes_max:
            raise UsageError(
                f"the name {shown(name)} is too long: {self.name} allows "
                f"{self.name_bytes_max} bytes"
            )
        return f"{self.quote}{self.literal(name).replace(self.quote, self.quote * 2)}{self.quote}"

    def literal(self, sql: str) -> str:
        """Return SQL text as it is written in a statement with parameters."""
        return sql.replace("%", "%%") if self.escapes_percent else sql

    def quoted_all(self, names: Iterable[str]) -> str:
        """Return names as a list in SQL."""
        return ", ".join(map(self.quoted, names))

    def table(self, name: str) -> str:
        """Return the name of a table, which may have a schema, as SQL.

        Raises:
            UsageError: It is not a valid name.
        """
        return ".".join(map(self.quoted, table_parts(name)))

    def placeholders(self, count: int) -> str:
        """Return the placeholders of a row in parentheses."""
        return f"({', '.join([self.placeholder] * count)})"

    def same(self, one: str, other: str) -> bool:
        """Return whether two names of columns are the same."""
        return one.lower() == other.lower() if self.folds_case else one == other

    def kind_of(self, declared: str) -> str:
        """Return the type of an existing column without its length and precision."""
        plain = " ".join(re.sub(_NOT_OF_NAME, " ", declared).lower().split())
        if self.affinities and not plain:
            return "blob"  # a column without a type
        for part, affinity in self.affinities:
            if part in plain:
                return affinity
        return self.synonyms.get(plain, plain)


def table_parts(name: str) -> tuple[str, ...]:
    """Split the name of a table at its dots; a part in double quotes may have dots.

    Raises:
        UsageError: It is not a valid name.
    """
    parts: list[str] = []
    at = 0
    while isinstance(name, str) and (found := _PART.match(name, at)) is not None:
        quoted, plain = found.groups()
        parts.append(plain if quoted is None else quoted.replace('""', '"'))
        at = found.end()
        if at == len(name) and len(parts) <= 3:
            return tuple(parts)
        if name[at : at + 1] != ".":
            break
        at += 1
    raise UsageError(
        f"{shown(name)} is not a valid name of a table",
        hint='for example "orders", "sales.orders", or \'"my.schema".orders\' for a dot in a name',
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


_POSTGRES_INTS: Final = frozenset({"bigint", "integer", "smallint", "numeric"})
_POSTGRES_TEXTS: Final = frozenset({"text", "character varying", "character", "citext"})

POSTGRES: Final = Dialect(
    name="PostgreSQL",
    placeholder="%s",
    # The zone of the session is UTC; that of other sessions is what RESET would set.
    now=(
        "SELECT now(), now() AT TIME ZONE (SELECT reset_val FROM pg_settings "
        "WHERE name = 'TimeZone')"
    ),
    name_bytes_max=63,
    escapes_percent=True,
    types={
        T.INT: "bigint",
        T.FLOAT: "double precision",
        T.BOOL: "boolean",
        T.TEXT: "text",
        T.BYTES: "bytea",
        T.TIMESTAMP: "timestamp with time zone",
        T.LOCAL_TIMESTAMP: "timestamp without time zone",
        T.DATE: "date",
        T.TIME: "time without time zone",
        T.INTERVAL: "interval",
        T.DECIMAL: "numeric",
        T.UUID: "uuid",
        T.JSON: "jsonb",
    },
    fits={
        T.INT: _POSTGRES_INTS,
        T.FLOAT: frozenset({"double precision", "real"}),
        T.BOOL: frozenset({"boolean"}),
        T.TEXT: _POSTGRES_TEXTS,
        T.BYTES: frozenset({"bytea"}),
        T.TIMESTAMP: frozenset({"timestamp with time zone"}),
        T.LOCAL_TIMESTAMP: frozenset({"timestamp without time zone"}),
        T.DATE: frozenset({"date"}),
        T.TIME: frozenset({"time without time zone"}),
        T.INTERVAL: frozenset({"interval"}),
        T.DECIMAL: frozenset({"numeric"}),
        T.UUID: frozenset({"uuid"}) | _POSTGRES_TEXTS,
        T.JSON: frozenset({"jsonb", "json", "text"}),
    },
)

# A column of SQLite holds any value, but its affinity converts it: text in a numeric column that
# looks like a number becomes one, so "1.10" would lose its zero and a long number its digits.
_TEXT_FITS: Final = frozenset({"text", "blob"})

SQLITE: Final = Dialect(
    name="SQLite",
    placeholder="?",
    now="SELECT datetime('now'), datetime('now')",
    # In double quotes, SQLite reads the name of a missing column as text.
    quote="`",
    folds_case=True,
    stores="sqlite",
    types={
        T.INT: "INTEGER",
        T.FLOAT: "REAL",
        T.BOOL: "BOOLEAN",
        T.TEXT: "TEXT",
        T.BYTES: "BLOB",
        T.TIMESTAMP: "TEXT",
        T.LOCAL_TIMESTAMP: "TEXT",
        T.DATE: "TEXT",
        T.TIME: "TEXT",
        T.INTERVAL: "TEXT",
        T.DECIMAL: "TEXT",
        T.UUID: "TEXT",
        T.JSON: "TEXT",
    },
    fits={
        T.INT: frozenset({"integer", "numeric", "blob"}),
        T.FLOAT: frozenset({"real", "numeric", "integer", "blob"}),
        T.BOOL: frozenset({"integer", "numeric", "blob"}),
        T.TEXT: _TEXT_FITS,
        T.BYTES: frozenset({"integer", "numeric", "real", "text", "blob"}),
        T.TIMESTAMP: _TEXT_FITS | {"numeric"},
        T.LOCAL_TIMESTAMP: _TEXT_FITS | {"numeric"},
        T.DATE: _TEXT_FITS | {"numeric"},
        T.TIME: _TEXT_FITS | {"numeric"},
        T.INTERVAL: _TEXT_FITS,
        T.DECIMAL: _TEXT_FITS,
        T.UUID: _TEXT_FITS,
        T.JSON: _TEXT_FITS,
    },
    # Source: https://www.sqlite.org/datatype3.html, "Determination Of Column Affinity".
    affinities=(
        ("int", "integer"),
        ("char", "text"),
        ("clob", "text"),
        ("text", "text"),
        ("blob", "blob"),
        ("real", "real"),
        ("floa", "real"),
        ("doub", "real"),
        ("", "numeric"),
    ),
)
