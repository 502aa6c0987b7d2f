"""Reads the columns and keys of tables from the catalog of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.session import Result
from streamkit.connectors.sql.tables import Table, TableColumn

# A domain has the type that it restricts.
_COLUMNS: Final = """
SELECT a.attname,
       format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE a.atttypid END,
                   CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END),
       NOT (a.attnotnull OR t.typnotnull),
       a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
       a.attgenerated <> '' OR a.attidentity = 'a',
       ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = b.oid ORDER BY enumsortorder)
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_UNIQUE: Final = """
SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.n)
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary
ORDER BY i.indisprimary DESC, i.indexrelid
"""
_IS_VIEW: Final = "SELECT relkind = 'v' FROM pg_class WHERE oid = to_regclass(%s)"


def described(query: Callable[[Statement], Result], table: str) -> Table | None:
    """Return a table, whose name is given as SQL; None if there is no such table."""
    place = (table,)
    columns = query(Statement(_COLUMNS, place)).rows
    if not columns:
        return None
    unique = query(Statement(_UNIQUE, place)).rows
    return Table(
        tuple(TableColumn(*(*row[:-1], tuple(row[-1]))) for row in columns),
        next((tuple(names) for is_primary, names in unique if is_primary), ()),
        tuple(frozenset(names) for _, names in unique),
        is_view=bool(query(Statement(_IS_VIEW, place)).rows[0][0]),
    )
