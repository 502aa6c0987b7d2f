"""What the engine needs of a source and of a sink. Connectors fill these in.

There are two kinds of sinks, told apart by their type. An *acknowledged* one holds records until
a commit asks for them, so a slice that ends early takes nothing back. An *at once* one has its
effect with the call, which cannot be taken back: such sinks are called first, record after record,
and the position follows them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streamkit.errors import StreamKitError
from streamkit.record import Chunk

# Where a source or sink is, by a key of its own, such as the partition: text that only its owner
# reads. It is text from the moment it is handed over, so nobody can change it afterwards.
Positions = Mapping[str, str]

IsOver = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source says when it is open, for the start report.

    ``waiting`` is the number of records not read yet, or None if it is not known.
    ``start_offsets`` is where each part begins. It is committed before anything is read:
    otherwise a part without records, or a run that fails early, would begin elsewhere next time.
    """

    description: str
    waiting: int | None = None
    is_replayable: bool = True
    start_offsets: Positions | None = None


class SourceReader(Protocol):
    """Reads one source. Used by one task."""

    async def open(self, committed: Positions) -> SourceFacts:
        """Begin behind the committed positions, or where the source says.

        Raises:
            StreamKitError: It cannot.
        """

    async def next(self) -> Chunk | None:
        """Wait for records of one partition; None at the end of everything."""

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        """Return the key and the position to commit once a chunk is done with.

        Raises:
            StageError: The source gave a position that could not be read again.
        """

    async def committed(self, positions: Positions) -> None:
        """Learn which positions a commit has changed. A failure here is nobody's loss."""

    def lag(self) -> int | None:
        """Return how many records lie ahead; None where nobody knows."""

    def stop(self) -> bool:
        """Take in no more; tell whether what was taken in must still be worked off.

        Then `next` gives the rest and None at its end; else nobody asks again.
        """

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a sink owes to one commit.

    ``wait`` returns when everything written before is safe, and raises where it is not.
    ``positions`` are kept in the commit, and handed to `open` by the next run.
    """

    wait: Callable[[], Awaitable[None]]
    positions: Positions


class SinkWriter(ABC):
    """Writes to one sink. Used by one task; only `Prepared.wait` may overlap with other calls."""

    description: str

    @abstractmethod
    async def open(self, committed: Positions) -> None:
        """Begin; ``committed`` is what the last commit kept of this sink."""

    @abstractmethod
    async def close(self) -> None: ...


class AcknowledgedWriter(SinkWriter):
    """A sink that a commit waits for."""

    @property
    @abstractmethod
    def unacknowledged(self) -> int:
        """Records written that may still be lost."""

    @abstractmethod
    def on_chunk(self, chunk: Chunk) -> Chunk:
        """Refuse rows that could never be written, before any row is; an operator.

        What comes out goes to `write`, whole or in parts.

        Raises:
            RowFailed: Names the first of them.
        """

    @abstractmethod
    async def write(self, chunk: Chunk) -> None:
        """Take records; wait while there is no room.

        Raises:
            StreamKitError: The sink is broken.
        """

    @abstractmethod
    def prepare_commit(self, *, is_last: bool) -> Prepared:
        """Draw a line after what has been written so far. ``is_last``: nothing comes after."""


class AtOnceWriter(SinkWriter):
    """A sink whose writes cannot be taken back, such as a function of the user's."""

    @property
    @abstractmethod
    def is_per_record(self) -> bool:
        """Whether it gets one row a call; else it gets lists, and longer ones cost less a row."""

    @abstractmethod
    async def write(self, chunk: Chunk, is_over: IsOver) -> int:
        """Hand over rows in order, at least one call, until all are or ``is_over``.

        Returns:
            How many rows were handed over.

        Raises:
            WriteFailed: Some of them failed; those before them are written.
        """

    @abstractmethod
    async def flush(self, *, is_last: bool) -> None:
        """Return when everything handed over is safe.

        Raises:
            StreamKitError: It is not.
        """


class WriteFailed(StreamKitError):
    """A sink of the user's raised; what it raised is the cause.

    It raised on ``rows`` rows from ``row`` on, which it got in one call.
    """

    def __init__(self, row: int, rows: int = 1) -> None:
        super().__init__(f"row {row}")
        self.row = row
        self.rows = rows
