"""The SQL of databases that are used through SQLAlchemy.

Their columns for times have no time zone, so times are stored in UTC. What few of them have a type
for is stored as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from streamkit.connectors.sql.columns import ColumnType as T
from streamkit.connectors.sql.dialects import SQLITE, Dialect
from streamkit.errors import ConfigError

# A name cannot contain it. The session replaces it by the placeholder of the driver.
MARK: Final = "\0"
# Their SQL has no LIMIT and no CREATE TABLE IF NOT EXISTS.
_UNSUPPORTED: Final = ("mssql", "oracle", "db2", "firebird", "sybase", "access")

# Other names of types, as `Dialect.kind_of` returns them.
_SYNONYMS: Final[Mapping[str, str]] = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "int2": "smallint",
    "year": "smallint",
    "ubigint": "bigint",
    "uinteger": "integer",
    "usmallint": "smallint",
    "utinyint": "tinyint",
    "double": "double precision",
    "float": "real",
    "decimal": "numeric",
    "varchar": "character varying",
    "nvarchar": "character varying",
    "char": "character",
    "tinytext": "text",
    "mediumtext": "text",
    "longtext": "text",
    "blob": "bytea",
    "tinyblob": "bytea",
    "mediumblob": "bytea",
    "longblob": "bytea",
    "varbinary": "bytea",
    "bool": "boolean",
    "datetime": "timestamp",
    "timestamp without time zone": "timestamp",
}
_INTS: Final = frozenset({"bigint", "integer", "mediumint", "smallint", "tinyint", "numeric"})
_TEXTS: Final = frozenset({"text", "character varying", "character"})

PORTABLE: Final = Dialect(
    name="the database",
    placeholder=MARK,
    name_bytes_max=63,
    compares_rows=False,
    upserts=None,
    stores="portable",
    synonyms=_SYNONYMS,
    key_text="VARCHAR(200)",
    types={
        T.INT: "BIGINT",
        T.FLOAT: "DOUBLE PRECISION",
        T.BOOL: "BOOLEAN",
        T.TEXT: "TEXT",
        T.BYTES: "BLOB",
        T.TIMESTAMP: "TIMESTAMP",
        T.LOCAL_TIMESTAMP: "TIMESTAMP",
        T.DATE: "DATE",
        T.TIME: "TIME",
        T.INTERVAL: "TEXT",
        T.DECIMAL: "TEXT",
        T.UUID: "TEXT",
        T.JSON: "TEXT",
    },
    fits={
        T.INT: _INTS,
        T.FLOAT: frozenset({"double precision", "real"}),
        T.BOOL: frozenset({"boolean", "tinyint"}),
        T.TEXT: _TEXTS,
        T.BYTES: frozenset({"bytea"}),
        T.TIMESTAMP: frozenset({"timestamp"}),
        T.LOCAL_TIMESTAMP: frozenset({"timestamp"}),
        T.DATE: frozenset({"date"}),
        T.TIME: frozenset({"time"}),
        T.INTERVAL: _TEXTS,
        T.DECIMAL: _TEXTS | {"numeric"},
        T.UUID: _TEXTS,
        T.JSON: _TEXTS | {"json"},
    },
)
_MYSQL_TYPES: Final[Mapping[T, str]] = {
    T.TEXT: "LONGTEXT",
    T.BYTES: "LONGBLOB",
    T.TIMESTAMP: "DATETIME(6)",
    T.LOCAL_TIMESTAMP: "DATETIME(6)",
    T.TIME: "TIME(6)",
    T.INTERVAL: "VARCHAR(60)",
    T.DECIMAL: "LONGTEXT",
    T.UUID: "CHAR(36)",
    T.JSON: "LONGTEXT",
}


def dialect_for(name: str, quote: str) -> Dialect:
    """Return the SQL of a database.

    Args:
        name: Its name in SQLAlchemy, such as ``mysql``.
        quote: The character around quoted names.

    Raises:
        ConfigError: It cannot be used.
    """
    if name in _UNSUPPORTED:
        raise ConfigError(f"databases of the kind {name!r} are not supported")
    if name == "sqlite":
        return replace(SQLITE, placeholder=MARK)
    if name in ("mysql", "mariadb"):
        return replace(
            PORTABLE,
            name=name,
            quote=quote,
            folds_case=True,
            compares_rows=True,
            upserts="duplicate",
            stores="mysql",
            key_bytes="VARBINARY(200)",
            # The zone of the session is UTC.
            now="SELECT UTC_TIMESTAMP(6), "
            "CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', @@GLOBAL.time_zone)",
            # All of Unicode, and keys that differ in their case are different.
            table_options=" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            types={**PORTABLE.types, **_MYSQL_TYPES},
        )
    if name == "duckdb":
        return replace(
            PORTABLE,
            name=name,
            folds_case=True,
            compares_rows=True,
            upserts="conflict",
            now="SELECT epoch_ms(epoch_ms(now())), LOCALTIMESTAMP",
        )
    return replace(PORTABLE, name=name, quote=quote)
