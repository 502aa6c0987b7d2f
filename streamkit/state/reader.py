"""Reads the state of an app without its types, also while its job runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from streamkit.state.change_log import ChangeLog, StateFormat, StateRow
from streamkit.state.panes import split_stored
from streamkit.state.states import TIME_STATE
from streamkit.state.types import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode = msgspec.msgpack.Decoder().decode
_PLAIN = StateFormat(msgspec.msgpack.encode, _decode, False, "")
# What keeps a value for each pane; the other windows keep one for each key.
_OF_PANES = ("tumbling", "sliding")


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One value of a state. ``details`` say more about it, such as the end of its window."""

    key: bytes
    value: Any
    details: dict[str, Any]


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
        """The cluster that the positions of the store belong to; empty in a store without a run."""
        found = self._db.execute("SELECT value FROM meta WHERE name = 'cluster'").fetchone()
        return "" if found is None else str(found[0])

    def positions(self, source: str) -> dict[str, str]:
        """Return the committed positions of a source, as it has encoded them."""
        found = self._db.execute("SELECT part, position FROM positions WHERE source = ?", (source,))
        return dict(found.fetchall())

    def infos(self) -> list[StateInfo]:
        """Return every state, in order of the names."""
        types = self._db.execute("SELECT name, type FROM state_types ORDER BY name").fetchall()
        found = []
        for name, described in types:
            if name == TIME_STATE:  # no stage has it
                continue
            log = self._log(name)
            size_bytes = sum(len(key) + len(data) for key, data in log.restored.items())
            text = shown(msgspec.json.decode(described))
            found.append(StateInfo(name, len(log.restored), size_bytes, text))
        return found

    def has(self, name: str) -> bool:
        """Return whether something is stored under a name."""
        found = self._db.execute("SELECT 1 FROM state_types WHERE name = ?", (name,)).fetchone()
        return found is not None

    def entries(self, name: str) -> list[StateEntry]:
        """Return the values of one state, as numbers, text, lists and dicts, in order of keys."""
        row = self._db.execute("SELECT type FROM state_types WHERE name = ?", (name,)).fetchone()
        entry_of = _entry_reader(name, msgspec.json.decode(row[0]))
        found = [entry_of(key, data) for key, data in self._log(name).restored.items()]
        found.sort(key=lambda each: (each.key, str(each.details)))
        return found

    def _log(self, name: str) -> ChangeLog:
        rows = self._db.execute("SELECT shard, seq, data FROM state WHERE name = ?", (name,))
        return ChangeLog(name, _PLAIN, lambda keys: (), [StateRow(*row) for row in rows])


def _entry_reader(name: str, described: dict[str, Any]) -> Callable[[bytes, bytes], StateEntry]:
    """Return how stored entries of a type are shown."""
    if str(described.get("window", "")).startswith(_OF_PANES):
        return _of_pane
    if described["type"] == "pending":
        return _pending
    if described["type"] == "waiting":
        return _waiting_for_table if name.endswith("/waiting") else _waiting
    return lambda key, data: StateEntry(key, _decode(data), {})


def _of_pane(stored: bytes, data: bytes) -> StateEntry:
    (end_ms, _), key = split_stored(stored)
    return StateEntry(key, _decode(data), {"window_end": _time(end_ms)})


def _pending(stored: bytes, data: bytes) -> StateEntry:
    value, key, time_ms, offset, topic, partition, attempts, _ = _decode(data)
    place = {"topic": topic, "partition": partition, "offset": offset, "attempts": attempts}
    return StateEntry(key or b"", value, {"time": _time(time_ms), **place})


def _waiting(stored: bytes, data: bytes) -> StateEntry:
    key, time_ms, is_matched, value = _decode(data)
    return StateEntry(key, value, {"time": _time(time_ms), "is_matched": is_matched})


def _waiting_for_table(stored: bytes, data: bytes) -> StateEntry:
    """Show a record that waits for a table, by the key of its row."""
    found = _waiting(stored, data)
    key, _ = _decode(found.key)
    return StateEntry(key or b"", found.value, found.details)


def _time(time_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat()
