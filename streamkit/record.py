"""Records, chunks, offsets and topics. Times are milliseconds since the epoch, UTC."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import chain, compress, repeat
from operator import index, itemgetter
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

import msgspec

from streamkit.errors import DataError, UsageError, shown

V = TypeVar("V")
# A value of the user. Type checkers know its type in the user's program, but not here.
Value = Any
# A type that the user declares, as an annotation; it may be more than a class.
Kind = Any
Isolation = Literal["read_committed", "read_uncommitted"]
# The names of `streamkit.protocol.compression.Codec`: a test keeps the two lists equal.
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
T_con = TypeVar("T_con", contravariant=True)
if TYPE_CHECKING:  # Python 3.11 has neither, and neither is needed at run time
    from typing_extensions import TypeForm
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=bytes)
else:
    T = TypeVar("T")

NO_TIMESTAMP_MS = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_I64_MAX = 2**63 - 1
# The last millisecond that a datetime can hold, at the end of the year 9999.
TIMESTAMP_MS_MAX = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MS


def time_of(timestamp_ms: int) -> datetime | None:
    """Convert ms since the epoch to a datetime in UTC; a negative number means None.

    Raises:
        DataError: The time is after the year 9999, which a datetime cannot hold.
    """
    if timestamp_ms < 0:
        return None
    if timestamp_ms > TIMESTAMP_MS_MAX:
        raise DataError(
            f"timestamp_ms={timestamp_ms} is after the year 9999, which a datetime cannot hold",
            hint="use timestamp_ms, which is the number itself",
        )
    return _EPOCH + timestamp_ms * _MS


class Record(msgspec.Struct, Generic[V], frozen=True):
    """One record. A sink may return it to set key and timestamp as well as the value.

    ``timestamp_ms`` is -1 if the batch has no timestamps. ``offset`` and ``partition`` are -1
    if the record is not stored yet.
    """

    value: V
    key: bytes | None = None
    timestamp_ms: int = NO_TIMESTAMP_MS
    offset: int = -1
    partition: int = -1
    topic: str = ""

    @property
    def timestamp(self) -> datetime | None:
        """The timestamp of the record in UTC; None if it has no timestamp.

        Raises:
            DataError: The time is after the year 9999, which a datetime cannot hold.
        """
        return time_of(self.timestamp_ms)

    @property
    def key_text(self) -> str | None:
        """The key as UTF-8 text; None for a record without a key."""
        return None if self.key is None else self.key.decode()

    @property
    def value_text(self) -> str:
        """The value as UTF-8 text."""
        return self.value.decode() if isinstance(self.value, bytes) else str(self.value)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition as columns of equal length: row i of each column is record i.

    Stages pass chunks to each other. A stage reuses the columns it does not change, so several
    chunks may share a column; a column must not change once it is in a chunk.
    """

    values: Sequence[Any] = ()
    keys: Sequence[bytes | None] = ()
    timestamps_ms: Sequence[int] = ()
    offsets: Sequence[int] = ()
    topic: str = ""
    partition: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def records(self) -> list[Record[Any]]:
        """Return the rows as a list of records."""
        return list(
            map(
                Record,
                self.values,
                self.keys,
                self.timestamps_ms,
                self.offsets,
                repeat(self.partition),
                repeat(self.topic),
            )
        )

    def with_values(self, values: Sequence[Any]) -> Chunk:
        """Return a chunk with other values, one per row; the other columns stay the same."""
        assert len(values) == len(self.values), "each row needs one value"
        return Chunk(
            values, self.keys, self.timestamps_ms, self.offsets, self.topic, self.partition
        )

    def select(self, mask: Sequence[object]) -> Chunk:
        """Return the rows whose item in ``mask`` is true."""
        assert len(mask) == len(self.values), "a short mask would silently lose rows"
        if all(mask):
            return self
        return self._reshaped(
            list(compress(self.values, mask)), lambda column: list(compress(column, mask))
        )

    def expand(self, groups: Sequence[Sequence[Any]]) -> Chunk:
        """Replace row i with one row for each value of group i."""
        assert len(groups) == len(self.values), "each row needs a group, even an empty one"
        values = list(chain.from_iterable(groups))
        if len(values) < 2:  # `itemgetter` of one row does not return a tuple
            kept = [row for row, group in enumerate(groups) if group]
            return self._reshaped(values, lambda column: [column[row] for row in kept])
        rows = chain.from_iterable(map(repeat, range(len(groups)), map(len, groups)))
        pick = itemgetter(*rows)
        return self._reshaped(values, lambda column: list(pick(column)))

    def slice(self, start: int, stop: int) -> Chunk:
        """Return the rows from ``start`` up to ``stop``, without ``stop``."""
        if start <= 0 and stop >= len(self.values):
            return self
        return self._reshaped(self.values[start:stop], lambda column: column[start:stop])

    def _reshaped(
        self, values: Sequence[Any], reshape: Callable[[Sequence[Any]], Sequence[Any]]
    ) -> Chunk:
        return Chunk(
            values,
            reshape(self.keys),
            reshape(self.timestamps_ms),
            reshape(self.offsets),
            self.topic,
            self.partition,
        )


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Return the rows of several chunks of one partition as one chunk."""
    first = chunks[0] if chunks else Chunk()
    if len(chunks) < 2:
        return first
    return Chunk(
        list(chain.from_iterable(each.values for each in chunks)),
        list(chain.from_iterable(each.keys for each in chunks)),
        list(chain.from_iterable(each.timestamps_ms for each in chunks)),
        list(chain.from_iterable(each.offsets for each in chunks)),
        first.topic,
        first.partition,
    )


def in_order(chunks: Sequence[Chunk]) -> Chunk:
    """Return the rows of several chunks of one slice in order of their offsets."""
    filled = [each for each in chunks if len(each)]
    merged = joined(filled or chunks)
    if len(filled) < 2:
        return merged
    order = sorted(range(len(merged)), key=merged.offsets.__getitem__)
    pick = itemgetter(*order)  # there are at least two rows
    return merged._reshaped(list(pick(merged.values)), lambda column: list(pick(column)))


class Origin(Enum):
    """What an `Offset` counts from."""

    BEGINNING = "beginning"
    END = "end"
    ABSOLUTE = "absolute"
    TIME = "time"


_OFFSET_TEXT = re.compile(
    r"(?:(beginning)(?:\+([0-9]{1,40}))?|(end)(?:-([0-9]{1,40}))?|([0-9]{1,40}))"
)


@dataclass(frozen=True, slots=True)
class Offset:
    """Where to start reading: relative to the beginning or the end, a number, or a time.

    ``count`` is the number of records from the beginning or the end, the offset itself, or ms
    since the epoch, depending on ``origin``.
    """

    origin: Origin
    count: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.origin, Origin):
            raise UsageError(f"{shown(self.origin)} is not an Origin")
        count = self.count
        if isinstance(count, bool) or not hasattr(count, "__index__"):
            raise UsageError(f"{self._subject} must be a whole number, not {shown(count)}")
        if not 0 <= index(count) <= _I64_MAX:
            raise UsageError(f"{self._subject} must be from 0 to {_I64_MAX}, not {count}")
        object.__setattr__(self, "count", index(count))

    @property
    def _subject(self) -> str:
        return "a time in ms" if self.origin is Origin.TIME else "an offset"

    @classmethod
    def beginning(cls, count: int = 0) -> Offset:
        """``count`` records after the first record of the log."""
        return cls(Origin.BEGINNING, count)

    @classmethod
    def end(cls, count: int = 0) -> Offset:
        """``count`` records before the end; 0 reads only records that arrive later."""
        return cls(Origin.END, count)

    @classmethod
    def absolute(cls, offset: int) -> Offset:
        """Exactly this offset, even if the log has no record there."""
        return cls(Origin.ABSOLUTE, offset)

    @classmethod
    def at_time(cls, when: datetime | int) -> Offset:
        """The first record with this timestamp or a later one; the end if every record is older.

        A binary search compares the greatest timestamp of each batch, then one batch is read.
        So timestamps may be in any order within a batch, but the greatest timestamp must not
        decrease from one batch to the next.

        Args:
            when: A datetime with a time zone, or ms since the epoch.

        Raises:
            UsageError: The datetime has no time zone, or is before 1970.
        """
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise UsageError(
                    f"{when.isoformat()} has no time zone",
                    hint="for example when.replace(tzinfo=timezone.utc)",
                )
            when = (when - _EPOCH) // _MS
        return cls(Origin.TIME, when)

    @classmethod
    def parse(cls, value: Offset | str | int) -> Offset:
        """Read ``"beginning"``, ``"beginning+5"``, ``"end"``, ``"end-5"`` or a number.

        Raises:
            UsageError: The value is not a valid offset.
        """
        if isinstance(value, Offset):
            return value
        if not isinstance(value, str) and hasattr(value, "__index__"):
            return cls.absolute(value)
        found = _OFFSET_TEXT.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise UsageError(
                f"{shown(value)} is not a valid offset",
                hint='use "beginning", "beginning+5", "end", "end-5" or a number',
            )
        start, ahead, end, back, absolute = found.groups()
        if start:
            return cls.beginning(int(ahead or 0))
        if end:
            return cls.end(int(back or 0))
        return cls.absolute(int(absolute))

    def resolve(self, first: int, end: int, stored_next: int | None = None) -> int:
        """Return the offset to read from; not for a time, which needs a search of the log.

        Args:
            first: First offset of the log.
            end: The offset after the last record that can be read.
            stored_next: The offset after the stored consumer offset; if given, it is used
                instead of both ends.

        Source: docs/protocol/produce-and-fetch.md, "Where a consumer starts".
        """
        assert self.origin is not Origin.TIME, "a time needs a search of the log"
        if self.origin is Origin.ABSOLUTE:
            return self.count
        if self.origin is Origin.BEGINNING:
            wanted = (first if stored_next is None else stored_next) + self.count
        else:
            wanted = (end if stored_next is None else stored_next) - self.count
        return min(max(wanted, first), end)

    def __str__(self) -> str:
        if self.origin is Origin.ABSOLUTE:
            return str(self.count)
        if self.origin is Origin.TIME:
            if self.count > TIMESTAMP_MS_MAX:
                return f"{self.count} ms since the epoch"
            return (_EPOCH + self.count * _MS).isoformat(timespec="milliseconds")
        sign = "+" if self.origin is Origin.BEGINNING else "-"
        return f"{self.origin.value}{sign}{self.count}" if self.count else self.origin.value


class Destination(Generic[T_con]):
    """A place to write values of a type; for a union type, it accepts each of its members."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Topic(Destination[T], Generic[T]):
    """A topic name with the type of its values and the partition count of a new topic.

    Use it wherever a topic name is accepted; then type checkers check sinks against the type.
    Without ``partitions``, a new topic gets one partition, and an existing one may have any
    number.
    """

    name: str
    type: TypeForm[T] = cast("TypeForm[T]", bytes)  # noqa: RUF009  # a class, shared by all
    partitions: int | None = None

    def renamed(self, name: str) -> Topic[T]:
        """Return the same topic under another name."""
        return replace(self, name=name)
