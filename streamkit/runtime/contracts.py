"""The interfaces of sources and sinks that connectors implement.

There are two kinds of sinks, with a class for each. An *acknowledged* sink may buffer records;
a commit waits until it has acknowledged them. An *at once* sink takes effect with each call, and
that cannot be undone. So at-once sinks are called first, record after record, and the position
advances only over the records that they have received.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streamkit.errors import StreamKitError
from streamkit.record import Chunk

# The positions of a source or sink, by a key such as the partition. A position is text that only
# its owner interprets. It is text so that it cannot change after it was passed on.
Positions = Mapping[str, str]

IsOver = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The facts of an opened source.

    ``waiting`` is the number of records not read yet, or None if it is not known.
    ``start_offsets`` is the start position of each part. It is committed before anything is read:
    otherwise, after a run that fails early, the next run could start at another position.
    """

    description: str
    waiting: int | None = None
    is_replayable: bool = True
    start_offsets: Positions | None = None


class SourceReader(Protocol):
    """Reads one source. Used by one task."""

    async def open(self, committed: Positions) -> SourceFacts:
        """Start after the committed positions; without them, at the start that the source defines.

        Raises:
            StreamKitError: The source cannot be opened.
        """

    async def next(self) -> Chunk | None:
        """Wait for records of one partition; None at the end of the source."""

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        """Return the key and the position to commit once a chunk is processed.

        Raises:
            StageError: A position of the source cannot be stored and read back.
        """

    async def committed(self, positions: Positions) -> None:
        """Called after a commit with the positions it has changed. A failure loses no data."""

    def lag(self) -> int | None:
        """Return how many records are not read yet; None if that is not known."""

    def backlog(self) -> Mapping[int, int]:
        """Return how many records of each partition are not read yet, as far as that is known."""

    @property
    def ends_for_good(self) -> bool:
        """Whether the end of this source is its last record, also in later runs."""

    def stop(self) -> bool:
        """Stop reading; return whether records that were already read must still be processed.

        If so, `next` returns them and then None; otherwise `next` is not called again.
        """

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sink's part of one commit.

    ``wait`` returns when everything written before is safe, and raises if it cannot be made safe.
    ``positions`` are stored with the commit, and the next run passes them to `open`.
    """

    wait: Callable[[], Awaitable[None]]
    positions: Positions


class SinkWriter(ABC):
    """Writes to one sink. Used by one task; only `Prepared.wait` may overlap with other calls."""

    description: str

    @abstractmethod
    async def open(self, committed: Positions) -> None:
        """Open the sink; ``committed`` has the positions of this sink in the last commit."""

    @abstractmethod
    async def close(self) -> None: ...


class AcknowledgedWriter(SinkWriter):
    """A sink that a commit waits for; it may buffer records until then."""

    @property
    @abstractmethod
    def unacknowledged(self) -> int:
        """How many written records may still be lost."""

    @abstractmethod
    def on_chunk(self, chunk: Chunk) -> Chunk:
        """Refuse rows that could never be written, before any row is written; an operator.

        The result goes to `write`, whole or in parts.

        Raises:
            RowFailed: A row cannot be written; it names the first such row.
        """

    @abstractmethod
    async def write(self, chunk: Chunk) -> None:
        """Write records; wait while the buffer is full.

        Raises:
            StreamKitError: The sink has failed.
        """

    @abstractmethod
    def prepare_commit(self, *, is_last: bool) -> Prepared:
        """Prepare a commit of everything written so far. ``is_last``: nothing follows."""


class AtOnceWriter(SinkWriter):
    """A sink whose writes take effect immediately, such as a user function."""

    @property
    @abstractmethod
    def is_per_record(self) -> bool:
        """Whether it gets one row per call; otherwise it gets lists, and long lists are cheaper."""

    @abstractmethod
    async def write(self, chunk: Chunk, is_over: IsOver) -> int:
        """Write rows in order until all are written or ``is_over``; make at least one call.

        Returns:
            How many rows were written.

        Raises:
            WriteFailed: Some rows failed; the rows before them are written.
        """

    @abstractmethod
    async def flush(self, *, is_last: bool) -> None:
        """Return when everything written is safe.

        Raises:
            StreamKitError: The flush failed.
        """


class WriteFailed(StreamKitError):
    """A user's sink raised an exception, which is the cause.

    The failed call had ``rows`` rows, the first of which is ``row``.
    """

    def __init__(self, row: int, rows: int = 1) -> None:
        super().__init__(f"row {row}")
        self.row = row
        self.rows = rows
