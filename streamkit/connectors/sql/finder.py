"""Finds rows of a table by their key."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import cast

from streamkit.connectors.sql.columns import RowType
from streamkit.connectors.sql.keyed_reader import KEYS_MAX, Key, KeyedReader, keyed_reader
from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.tables import (
    existing_columns,
    key_columns,
    limits_of,
    refuse_absent,
)
from streamkit.connectors.sql.worker import SessionWorker
from streamkit.dataflow.lookup_tables import RowFinder
from streamkit.errors import ConfigError
from streamkit.record import Value


class SqlFinder(RowFinder):
    """Finds rows of one table.

    Args:
        worker: The session; `close` closes it.
        table: The name of the table.
        rows: The columns of its rows.
        key: The columns that identify a row; the primary key if it is empty.
    """

    keys_max = KEYS_MAX

    def __init__(
        self, worker: SessionWorker, table: str, rows: RowType, key: Sequence[str]
    ) -> None:
        self._table = table
        self._rows = rows
        self._key = key
        self._worker = worker
        self._reader: KeyedReader | None = None

    async def open(self) -> None:
        """Connect; wait while the database is away.

        Raises:
            ConfigError: The table or a column does not exist, it has no key, or its keys are stored
                in another form than that of the type.
            TopologyError: The rows do not have the columns of the key.
        """
        self._reader = await self._worker.repeat(self._make_reader)

    def encoded(self, key: Value) -> Key:
        return self._open_reader.encoded(key)

    def encoded_all(self, keys: Sequence[Value]) -> Sequence[Key]:
        return self._open_reader.encoded_all(keys)

    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Value]:
        found = await self._worker.repeat(
            partial(self._open_reader.read, cast("Sequence[Key]", keys))
        )
        return cast("Mapping[Hashable, Value]", found)

    def decoded(self, row: Value) -> Value:
        return self._open_reader.decoded(row)

    async def close(self) -> None:
        await self._worker.close()

    @property
    def _open_reader(self) -> KeyedReader:
        assert self._reader is not None, "open comes first"
        return self._reader

    def _make_reader(self, session: Session) -> KeyedReader:
        what = f"the table {self._table}"
        table = refuse_absent(what, session.describe(self._table))
        key = self._key or table.primary_key
        if not key:
            raise ConfigError(
                f"{what} has no primary key", hint="name columns that identify a row with key="
            )
        existing_columns(what, session.dialect, self._rows.names, table)
        limits = limits_of(session.dialect, table, self._rows)
        names = key_columns(self._rows, key)
        reader = keyed_reader(session.dialect, self._table, self._rows, names, limits)
        reader.refuse_other_texts(session)
        return reader
