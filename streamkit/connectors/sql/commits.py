"""Writes the rows of a commit and its number to a database, in one transaction.

The number is kept in the table ``streamkit_positions``. The transaction of commit N only succeeds
if the table has N - 1, so it takes effect once, and a second copy of the job cannot write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from streamkit.connectors.sql.blocks import Block, Head, merged
from streamkit.connectors.sql.queries import Statement
from streamkit.connectors.sql.session import Session
from streamkit.connectors.sql.statements import (
    POSITIONS,
    create_positions,
    insert_position,
    lock_position,
    select_position,
    update_position,
)
from streamkit.connectors.transactional import other_run

# There is one task, and so one way into a sink.
_LANE: Final = "0"


@dataclass(frozen=True, slots=True)
class CommitNumbers:
    """The number of the last commit of one sink of one app, in its database."""

    app: str
    sink: str

    def prepare(self, session: Session) -> int:
        """Return the number; 0 for a sink that has never written.

        Raises:
            DatabaseBusy: Another run of this sink has an open transaction.
        """
        # The user may be allowed to write tables, but not to create them.
        if session.describe(POSITIONS) is None:
            session.execute(Statement(create_positions(session.dialect)))
        session.begin(waits=False)
        number = self.read(session)
        if number is None:
            session.execute(insert_position(session.dialect, self.app, self.sink, _LANE, 0))
            session.commit()
            return 0
        # Its last commit may still be written, by a server that has not noticed the end of a run.
        session.execute(lock_position(session.dialect, self.app, self.sink, _LANE))
        number = self.read(session)
        session.rollback()
        return number or 0

    def read(self, session: Session) -> int | None:
        """Return the number that the database has; None if it has none."""
        found = session.query(select_position(session.dialect, self.app, self.sink, _LANE)).rows
        return int(found[0][0]) if found else None

    def begin(self, session: Session, number: int, *, waits: bool) -> bool:
        """Begin the transaction of a commit; False if the database has that commit already.

        Raises:
            StateMismatch: Another run has written since the last commit of this one.
        """
        session.begin(waits=waits)
        update = update_position(session.dialect, self.app, self.sink, _LANE, number)
        if session.execute(update) == 1:
            return True
        found = self.read(session)
        session.rollback()
        if found == number:
            return False
        raise other_run("the database", self.app, self.sink, found, number - 1)


@dataclass(frozen=True, slots=True)
class Commit:
    """The rows of one commit; ``blocks`` may be called more than once."""

    number: int
    head: Head
    blocks: Callable[[], Iterable[Block]]

    def write(self, session: Session, numbers: CommitNumbers, *, waits: bool = True) -> bool:
        """Write the rows in a transaction that stays open; False if that was done before.

        Raises:
            DatabaseBusy: Another transaction has a lock, and this one does not wait.
            StreamKitError: The database refuses a row.
        """
        if not numbers.begin(session, self.number, waits=waits):
            return False
        target = self.head.target(session.dialect)
        for block in merged(self.head, self.blocks()):
            if block.keys:
                session.delete(target, block.keys)
            session.write(target, block.rows)
        return True
