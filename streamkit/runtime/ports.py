"""What the engine needs of a source and of a sink. Connectors fill these in."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streamkit.errors import StreamKitError
from streamkit.record import Chunk

# Where a source is, by a key of its own, such as the partition. Whatever JSON can hold.
Positions = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source says when it is open, for the start report.

    ``waiting`` is how many records lie ahead; None where nobody knows.
    """

    description: str
    waiting: int | None = None
    is_replayable: bool = True


class SourceReader(Protocol):
    """Reads one source. Used by one task."""

    async def open(self, committed: Positions) -> SourceFacts:
        """Begin behind the committed positions, or where the source says.

        Raises:
            StreamKitError: It cannot.
        """

    async def next(self) -> Chunk | None:
        """Wait for records of one partition; None at the end of everything."""

    def position_after(self, chunk: Chunk) -> tuple[str, Any]:
        """Return the key and the position to commit once a chunk is done with."""

    async def committed(self, positions: Mapping[str, Any]) -> None:
        """Learn what has been committed. A failure here is nobody's loss."""

    def lag(self) -> int | None:
        """Return how many records lie ahead; None where nobody knows."""

    def stop(self) -> bool:
        """Take in no more; tell whether what was taken in must still be worked off.

        Then `next` gives the rest and None at its end; else nobody asks again.
        """

    async def close(self) -> None: ...


class SinkPort(Protocol):
    """Writes to one sink. Used by one task."""

    @property
    def description(self) -> str: ...

    @property
    def has_effects_at_once(self) -> bool:
        """Whether a write cannot be taken back, as a call of the user's function."""

    @property
    def unacknowledged(self) -> int:
        """Records written that may still be lost."""

    async def open(self) -> None: ...

    async def write(self, chunk: Chunk) -> None:
        """Take records; wait while there is no room.

        Raises:
            WriteFailed: One of them cannot be written; those before it are.
            StreamKitError: The sink is broken.
        """

    def seal(self) -> Awaitable[None]:
        """Return what to await until everything written so far is safe.

        Raises, when awaited:
            StreamKitError: Some of it is refused.
        """

    async def close(self) -> None: ...


class WriteFailed(StreamKitError):
    """A sink of the user's raised; what it raised is the cause.

    It raised on ``rows`` rows from ``row`` on, which it got in one call.
    """

    def __init__(self, row: int, rows: int = 1) -> None:
        super().__init__(f"row {row}")
        self.row = row
        self.rows = rows
