"""The contract of connectors: what a source or a sink implements, and what it gets of a run.

A *source* or *sink* is an immutable object in the graph that describes a place; each run creates
its *reader* or *writer*, which does the work. Users find these names in `streamkit.connectors`.

There are two kinds of writers, with a class for each. An *acknowledged* writer may buffer records;
a commit waits until it has acknowledged them. An *at once* writer takes effect with each call, and
that cannot be undone. So at-once sinks are called first, record after record, and the position
advances only over the records that they have received. For places with transactions there is
`streamkit.connectors.TransactionalWriter`, an acknowledged writer that writes each row once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from streamkit.env import Clock
from streamkit.errors import StreamKitError, TopologyError
from streamkit.record import Chunk, Destination, Kind, Record, Value
from streamkit.serde.binding import Serde, Usage
from streamkit.serde.kinds import in_record
from streamkit.serde.values import ValueEncoder, encode_as, format_for

T_co = TypeVar("T_co", covariant=True)
T_con = TypeVar("T_con", contravariant=True)

# The positions of a source or sink, by a key such as the partition. A position is text that only
# its owner interprets. It is text so that it cannot change after it was passed on.
Positions = Mapping[str, str]

IsOver = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class ConnectorEnv:
    """What a reader or writer gets of the run that it works for.

    ``name`` is the name of its node, and ``app`` that of the app. ``folder`` is a folder for files
    of its own that outlive the run, such as those not written completely; it may not exist yet.
    ``until_end``: the run ends when every source has reached its present end. ``note`` shows a
    message to the user. ``kind`` is the type of the values of the source or sink, as annotated;
    None if it is not known. ``shared`` is for what several connectors of the run have in common.
    ``is_first``: the job has no state of earlier runs, and the user has not asked to start over.
    """

    name: str
    app: str
    folder: Path
    clock: Clock
    until_end: bool = False
    note: Callable[[str], None] = lambda text: None
    kind: Kind = None
    shared: dict[object, Value] = field(default_factory=dict)
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Decoder:
    """Makes the values of a source from what its reader returns.

    ``one`` converts one row and raises if it is not valid; the error is that of its record, so
    ``on_error`` of the source applies. ``many`` converts a whole column at once; if it raises, each
    row of the column is given to ``one``. Rows for which ``keeps`` is false are dropped first; the
    position advances over them.
    """

    one: Callable[[Value], Value]
    many: Callable[[Sequence[Value]], Sequence[Value]] | None = None
    keeps: Callable[[Value], object] | None = None


class Source(ABC, Generic[T_co]):
    """Describes a place to read. Use a frozen dataclass: it is a value in the graph."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A name for the node, of a-z, 0-9 and ``-``, if the user gives none."""

    @property
    def value_type(self) -> Kind:
        """The type of the values; None if the user has to name it."""
        return None

    @property
    def gives_columns(self) -> bool:
        """Whether the values are usually columns, so that functions of frames get them as such."""
        return False

    @property
    def raw_type(self) -> Kind:
        """The type, such as ``bytes``, with which values stay as they are stored, and their keys
        too; None if there is none. A copy uses it, and ``key_format=`` is possible.
        """
        return None

    def decoder(self, kind: Kind, serde: Serde | None) -> Decoder | None:
        """Return how rows of the reader become values of a type; None if they are values.

        By default the rows are bytes, which are decoded as those of a topic. ``serde`` is the
        user's ``value=``.

        Raises:
            TopologyError: Values of the type cannot be made.
        """
        loads = format_for(kind, serde).loads
        return None if loads is None else Decoder(loads)

    def usage(self, kind: Kind) -> Usage:
        """Return where a format of the user, ``value=``, is used for values of a type."""
        return Usage(in_record(kind), self.name)

    def encoded(self, value: Value, kind: Kind, serde: Serde | None) -> Value:
        """Return the row that `decoder` makes this value from; for `TestJob.send`."""
        return encode_as(value, kind, serde)

    def place(self, topic: str, partition: int, offset: int) -> str:
        """Return a text for the place of a record, such as a line of a file, for errors."""
        return f"{topic}-{partition} offset {offset}"

    @abstractmethod
    def reader(self, env: ConnectorEnv) -> SourceReader:
        """Create the reader of one run; it must not open anything yet."""


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


class SourceReader(ABC):
    """Reads one source. Used by one task.

    A chunk has the rows of one partition, at most some thousand or about 1 MiB, with ascending
    offsets; more if the rows are columns. Its partition is the unit of event time: a watermark is
    kept for each. Its topic names the place of the rows, such as a file.
    """

    @abstractmethod
    async def open(self, committed: Positions) -> SourceFacts:
        """Start after the committed positions; without them, at the start that the source defines.

        Raises:
            StreamKitError: The source cannot be opened.
        """

    @abstractmethod
    async def next(self) -> Chunk | None:
        """Wait for records of one partition; None at the end of the source.

        A call may be cancelled; the rows that it would have returned are not committed then.
        """

    @abstractmethod
    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        """Return the key and the position to commit once a chunk is processed.

        The chunk has the first rows of a chunk that `next` returned, or rows that follow those of
        the last call. Chunks come in the order in which `next` returned them.

        Raises:
            StageError: A position of the source cannot be stored and read back.
        """

    def skipped_positions(self) -> Positions:
        """Return positions that have changed since the last call although no rows came.

        For example, the log has entries after the last row that are not rows. It is called at each
        commit; `position_after` must have been called for all rows before these positions.
        """
        return {}

    async def committed(self, positions: Positions) -> None:  # noqa: B027  # may stay empty
        """Called after a commit with the positions it has changed. A failure loses no data."""

    def lag(self) -> int | None:
        """Return how many records are not read yet; None if that is not known."""
        return None

    def bytes_read(self) -> tuple[int, int] | None:
        """Return how many bytes were read, and of how many that are known; None if that is not
        known. It is shown while a run lasts, if `lag` is None."""
        return None

    def backlog(self) -> Mapping[int, int]:
        """Return how many records of each partition are not read yet, as far as that is known."""
        return {}

    @property
    def ends_for_good(self) -> bool:
        """Whether the end of this source is its last record, also in later runs."""
        return False

    def stop(self) -> bool:
        """Stop reading; return whether records that were already read must still be processed.

        If so, `next` returns them and then None; otherwise `next` is not called again.
        """
        return False

    @abstractmethod
    async def close(self) -> None:
        """Close everything; also called if `open` has failed, and more than once."""


class Sink(ABC, Destination[T_con], Generic[T_con]):
    """Describes a place to write. Use a frozen dataclass: it is a value in the graph."""

    @property
    def name(self) -> str:
        """A name for the node if the user gives none."""
        return type(self).__name__

    @property
    def raw_type(self) -> Kind:
        """The type of values that are written as they are; see `Source.raw_type`."""
        return None

    @property
    def record_type(self) -> type[Record[Any]] | None:
        """A subclass of `Record` that `encoder` gets whole, for what only this sink can write.

        The key and the timestamp of any `Record` are already in the columns of the chunk.
        """
        return None

    def encoder(self, kind: Kind, serde: Serde | None) -> ValueEncoder | None:
        """Return how values of a type are encoded before the writer gets them; None if it gets
        the values. A value that cannot be encoded fails like any record. ``kind`` is None if the
        type is not known; ``serde`` is the user's ``value=``.

        Raises:
            TopologyError: Values of the type cannot be written, or ``value=`` is not possible.
        """
        if serde is not None:
            raise TopologyError(f"{self} has no option value=, which is for sinks of bytes")
        return None

    def resource(self) -> str | None:
        """Return the name of something that only one sink may write to, such as a file."""
        return None

    @abstractmethod
    def writer(self, env: ConnectorEnv) -> SinkWriter:
        """Create the writer of one run; it must not open anything yet."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sink's part of one commit.

    | step | what the sink does |
    |---|---|
    | `prepare_commit` | decides what belongs to the commit |
    | ``wait`` | returns when everything written before is safe, and raises if it cannot be |
    | the store commits | ``positions`` are stored; the next run passes them to `open` |
    | ``publish`` | shows what was written; `open` completes it after a crash |

    A sink that shows its output only in ``publish`` writes each record exactly once.
    """

    wait: Callable[[], Awaitable[None]]
    positions: Positions
    publish: Callable[[], Awaitable[None]] | None = None


class SinkWriter(ABC):
    """Writes to one sink. Used by one task; only `Prepared.wait` may overlap with other calls."""

    description: str

    @abstractmethod
    async def open(self, committed: Positions) -> None:
        """Open the sink; ``committed`` has the positions of this sink in the last commit."""

    @abstractmethod
    async def close(self) -> None:
        """Close everything; also called if `open` has failed, and more than once."""


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
