"""What a job keeps between runs: its positions, in one sqlite file, locked by one run."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamkit.env import random_bits
from streamkit.errors import StateError, StateInUse, StateMismatch

FORMAT_VERSION = 1
PLAN = "one-task"
_STATE_ID_BITS = 64

# By source, then by the source's own key.
SourcePositions = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store said when it was opened. ``is_new``: nothing was ever committed to it."""

    path: Path
    is_new: bool
    state_id: str


class Store:
    """The store of one task. One thread at a time.

    A commit is one transaction, durable when `commit` returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd = -1
        self._db: sqlite3.Connection | None = None

    def open(self, *, app: str, cluster: str, fresh: bool = False) -> StoreFacts:
        """Lock and open the store, making it if it is missing.

        Args:
            app: Whose state it is.
            cluster: Where its positions are valid.
            fresh: Forget what is in it.

        Raises:
            StateInUse: Another run has it.
            StateMismatch: It belongs to another app or cluster.
            StateError: It is of another version, or cannot be read.
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

    def positions(self) -> SourcePositions:
        """Return what was committed last."""
        assert self._db is not None, "the store is open"
        found: SourcePositions = {}
        rows = self._db.execute("SELECT source, part, position FROM positions")
        for source, part, position in rows:
            found.setdefault(source, {})[part] = json.loads(position)
        return found

    def commit(self, positions: SourcePositions) -> None:
        """Keep positions, durably.

        Raises:
            sqlite3.OperationalError: The disk is full, say; the last commit stands.
        """
        assert self._db is not None, "the store is open"
        rows = sorted(
            (source, part, json.dumps(position))
            for source, parts in positions.items()
            for part, position in parts.items()
        )
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file and let others have it."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

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
                f"another run of {app!r} is going on: it has locked {self.path}",
                hint="stop it first, or name another folder with --data-dir",
            ) from None

    def _prepare(self, db: sqlite3.Connection) -> None:
        # autocommit is off: `with db` is one transaction. Any thread may use it, one at a time.
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
                f"{self.path} is of format {meta['format']}, this version reads {FORMAT_VERSION}"
            )
        for name, wanted in (("app", app), ("cluster", cluster)):
            if meta[name] != wanted:
                raise StateMismatch(
                    f"the state {self.path} belongs to the {name} {meta[name]!r}, "
                    f"this run is for {wanted!r}",
                    hint="name another folder with --data-dir, or start over with --fresh-state",
                )
        return meta
