"""Reads the state of an app without its types, also while its job runs."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from streamkit.state.change_log import StateFormat, StateRow
from streamkit.state.keyed import Keyed
from streamkit.state.types import shown

_PLAIN = StateFormat(msgspec.msgpack.encode, msgspec.msgpack.decode, False, "")


@dataclass(frozen=True, slots=True)
class StateInfo:
    """One state of an app: of which stage, how many keys, how large, of which type."""

    name: str
    keys: int
    size_bytes: int
    type: str


class StateReader:
    """The committed states in a store.

    Raises:
        sqlite3.Error: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        # Read only: the job may have the store open, and its lock is not needed for that.
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    def __enter__(self) -> StateReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    @property
    def cluster(self) -> str:
        """The cluster that the positions of the store belong to."""
        found: str = self._db.execute("SELECT value FROM meta WHERE name = 'cluster'").fetchone()[0]
        return found

    def list(self) -> list[StateInfo]:
        """Return every state, in order of the names."""
        types = self._db.execute("SELECT name, type FROM state_types ORDER BY name").fetchall()
        found = []
        for name, described in types:
            state = self._state(name)
            text = shown(msgspec.json.decode(described))
            found.append(StateInfo(name, len(state.values), state.stored_bytes, text))
        return found

    def values(self, name: str) -> dict[bytes, Any]:
        """Return the values of one state by key, as numbers, text, lists and dicts."""
        return self._state(name).values

    def _state(self, name: str) -> Keyed:
        rows = self._db.execute("SELECT shard, seq, data FROM state WHERE name = ?", (name,))
        return Keyed(name, _PLAIN, [StateRow(*row) for row in rows])
