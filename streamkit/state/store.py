"""Stores the positions of a job between runs, in a sqlite file that one run locks."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamkit.env import random_bits
from streamkit.errors import StateError, StateInUse, StateMismatch
from streamkit.forks import close_in_children
from streamkit.state.change_log import DELTA, FIRST_SHARD, StateChange, StateRow

FORMAT_VERSION = 1
PLAN = "one-task"
_STATE_ID_BITS = 64

# Positions by source or sink, then by a key such as the partition. Only their owner decodes them.
Changes = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The facts of an opened store. ``is_new``: nothing was ever committed to it."""

    path: Path
    is_new: bool
    state_id: str


class Store:
    """The store of one task. Only one thread may use it at a time.

    A commit is one transaction, durable when `commit` returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd = -1
        self._unregister_lock: Callable[[], None] = lambda: None
        self._db: sqlite3.Connection | None = None

    def open(self, *, app: str, cluster: str, fresh: bool = False) -> StoreFacts:
        """Lock and open the store; create it if it is missing.

        Args:
            app: Name of the app that the state belongs to.
            cluster: The cluster for which the positions are valid; empty for a job without topics,
                which can run with the state of any cluster.
            fresh: Delete the stored state first.

        Raises:
            StateInUse: Another run uses the store.
            StateMismatch: The store belongs to another app or cluster.
            StateError: The store has another format version, or cannot be read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock(app)
        if fresh:
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        try:
            return self._opened(app, cluster)
        except sqlite3.DatabaseError as error:
            self.close()
            raise StateError(f"cannot read the state {self.path}: {error}") from error
        except StateError:
            self.close()
            raise

    def positions(self) -> Changes:
        """Return the committed positions of every source."""
        return self._read("positions", "source")

    def sink_positions(self) -> Changes:
        """Return the committed positions of every sink."""
        return self._read("sinks", "sink")

    def state_types(self) -> dict[str, str]:
        """Return the stored description of the type of each keyed state."""
        assert self._db is not None, "the store is open"
        return dict(self._db.execute("SELECT name, type FROM state_types"))

    def state_rows(self, name: str) -> list[StateRow]:
        """Return the committed rows of one keyed state."""
        assert self._db is not None, "the store is open"
        found = self._db.execute("SELECT shard, seq, data FROM state WHERE name = ?", (name,))
        return [StateRow(*row) for row in found]

    def crash(self) -> tuple[str, int] | None:
        """Return where the last run has failed, and how many runs in a row have failed there."""
        assert self._db is not None, "the store is open"
        found = self._db.execute("SELECT place, runs FROM crashes").fetchone()
        return None if found is None else (found[0], found[1])

    def note_crash(self, place: str | None) -> int:
        """Note where a run has failed, or None if it has not.

        Returns:
            How many runs in a row have failed there.
        """
        assert self._db is not None, "the store is open"
        last = self.crash()
        runs = last[1] + 1 if last is not None and last[0] == place else 1
        with self._db:
            self._db.execute("DELETE FROM crashes")
            if place is not None:
                self._db.execute("INSERT INTO crashes VALUES (?, ?)", (place, runs))
        return runs

    def delete_state(self, name: str) -> None:
        """Delete a keyed state, so that its stage starts with none."""
        assert self._db is not None, "the store is open"
        with self._db:
            for table in ("state", "state_types"):
                self._db.execute(f"DELETE FROM {table} WHERE name = ?", (name,))

    def commit(
        self, sources: Changes, sinks: Changes | None = None, states: Sequence[StateChange] = ()
    ) -> None:
        """Store what has changed durably, in one transaction.

        Raises:
            sqlite3.OperationalError: The write failed, for example because the disk is full; the
                last commit stays valid.
        """
        assert self._db is not None, "the store is open"
        with self._db:
            for table, changes in (("positions", sources), ("sinks", sinks or {})):
                self._db.executemany(
                    f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",
                    [
                        (owner, part, position)
                        for owner, parts in sorted(changes.items())
                        for part, position in sorted(parts.items())
                    ],
                )
            for change in states:
                self._write_state(change)

    def _write_state(self, change: StateChange) -> None:
        assert self._db is not None, "the store is open"
        name = change.name
        self._db.execute("INSERT OR REPLACE INTO state_types VALUES (?, ?)", (name, change.type))
        # A new base replaces the old one of its shard, and deltas that every base has.
        self._db.executemany(
            "DELETE FROM state WHERE name = ? AND shard = ?",
            [(name, row.shard) for row in change.rows if row.shard != DELTA],
        )
        self._db.execute(
            "DELETE FROM state WHERE name = ? AND shard < ? AND seq <= ?",
            (name, FIRST_SHARD, change.drop_to),
        )
        self._db.executemany(
            "INSERT INTO state VALUES (0, ?, ?, ?, ?)",
            [(name, row.shard, row.seq, row.data) for row in change.rows],
        )

    def close(self) -> None:
        """Close the file and release the lock."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock_fd >= 0:
            self._unregister_lock()
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _read(self, table: str, owner: str) -> Changes:
        assert self._db is not None, "the store is open"
        found: Changes = {}
        for name, part, position in self._db.execute(
            f"SELECT {owner}, part, position FROM {table}"
        ):
            found.setdefault(name, {})[part] = position
        return found

    def _opened(self, app: str, cluster: str) -> StoreFacts:
        self._db = db = sqlite3.connect(self.path, check_same_thread=False)
        self._prepare(db)
        meta = self._meta(db, app, cluster)
        positions = db.execute("SELECT count(*) FROM positions").fetchone()[0]
        return StoreFacts(self.path, positions == 0, meta["state_id"])

    def _lock(self, app: str) -> None:
        self._lock_fd = os.open(
            self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise StateInUse(
                f"another run of {app!r} is in progress: it has locked {self.path}",
                hint="stop it first, or use another folder with --data-dir",
            ) from None
        # The lock is held while any copy of this descriptor is open, so children must close theirs.
        self._unregister_lock = close_in_children(self._lock_fd)

    def _prepare(self, db: sqlite3.Connection) -> None:
        # Autocommit is off, so `with db` is one transaction.
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "cache_size=-65536",
            "wal_autocheckpoint=20000",
        ):
            db.execute(f"PRAGMA {pragma}")
        with db:
            db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT)")
            db.execute(
                "CREATE TABLE IF NOT EXISTS positions "
                "(source TEXT, part TEXT, position TEXT, PRIMARY KEY (source, part))"
            )
            db.execute(
                "CREATE TABLE IF NOT EXISTS sinks "
                "(sink TEXT, part TEXT, position TEXT, PRIMARY KEY (sink, part))"
            )
            # `task` is 0 for now: several tasks will each have rows of their own.
            db.execute(
                "CREATE TABLE IF NOT EXISTS state (task INTEGER, name TEXT, shard INTEGER, "
                "seq INTEGER, data BLOB, PRIMARY KEY (name, shard, seq))"
            )
            db.execute("CREATE TABLE IF NOT EXISTS crashes (place TEXT, runs INTEGER)")
            db.execute("CREATE TABLE IF NOT EXISTS state_types (name TEXT PRIMARY KEY, type TEXT)")

    def _meta(self, db: sqlite3.Connection, app: str, cluster: str) -> dict[str, str]:
        meta = dict(db.execute("SELECT name, value FROM meta"))
        if not meta:
            meta = {
                "format": str(FORMAT_VERSION),
                "app": app,
                "cluster": cluster,
                "plan": PLAN,
                "state_id": f"{random_bits(_STATE_ID_BITS):016x}",
            }
            with db:
                db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        if meta["format"] != str(FORMAT_VERSION):
            raise StateError(
                f"the state {self.path} has format {meta['format']}, "
                f"but this version of streamkit reads format {FORMAT_VERSION}"
            )
        if cluster and not meta["cluster"]:
            meta["cluster"] = cluster
            with db:
                db.execute("UPDATE meta SET value = ? WHERE name = 'cluster'", (cluster,))
        for name, expected in (("app", app), ("cluster", cluster)):
            if expected and meta[name] != expected:
                raise StateMismatch(
                    f"the state {self.path} belongs to the {name} {meta[name]!r}, "
                    f"but this run uses {expected!r}",
                    hint="use another folder with --data-dir, or start over with --fresh-state",
                )
        return meta
