"""The values every part of streamkit shares. Times are milliseconds since the epoch, UTC."""

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
Isolation = Literal["read_committed", "read_uncommitted"]
# The names of `streamkit.protocol.compression.Codec`: a test keeps the two lists equal.
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
T_con = TypeVar("T_con", contravariant=True)
if TYPE_CHECKING:  # Python 3.11 knows neither, and nothing asks for them at run time
    from typing_extensions import TypeForm
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=bytes)
else:
    T = TypeVar("T")

NO_TIMESTAMP_MS = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_I64_MAX = 2**63 - 1
# The last millisecond that a datetime can hold: that of the year 9999.
TIMESTAMP_MS_MAX = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MS


def time_of(timestamp_ms: int) -> datetime | None:
    """Turn ms since the epoch into a time in UTC; None for a negative number, which means none.

    Raises:
        DataError: It is after the year 9999, which a datetime cannot hold.
    """
    if timestamp_ms < 0:
        return None
    if timestamp_ms > TIMESTAMP_MS_MAX:
        raise DataError(
            f"timestamp_ms={timestamp_ms} is after the year 9999, which a datetime cannot hold",
            hint="timestamp_ms has the number itself",
        )
    return _EPOCH + timestamp_ms * _MS


class Record(msgspec.Struct, Generic[V], frozen=True):
    """One record: what an application reads, and what a sink may return for full control.

    ``timestamp_ms`` is -1 where the batch carried none. ``offset`` and ``partition`` are -1
    on a record that is not stored yet.
    """

    value: V
    key: bytes | None = None
    timestamp_ms: int = NO_TIMESTAMP_MS
    offset: int = -1
    partition: int = -1
    topic: str = ""

    @property
    def timestamp(self) -> datetime | None:
        """When the record was made, in UTC; None where it carries no time.

        Raises:
            DataError: It is after the year 9999, which a datetime cannot hold.
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
    """Records of one partition as columns of equal length: row i of each is one record.

    This is what moves between stages. A stage passes on the columns it does not change, so
    several chunks may hold one column; nobody writes to it once it is in a chunk.
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
        """Turn columns into rows."""
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
        """Replace the values, row by row; share every other column."""
        assert len(values) == len(self.values), "each row needs its value"
        return Chunk(
            values, self.keys, self.timestamps_ms, self.offsets, self.topic, self.partition
        )

    def select(self, mask: Sequence[object]) -> Chunk:
        """Keep the rows for which ``mask`` holds something true."""
        assert len(mask) == len(self.values), "a short mask would lose rows in silence"
        if all(mask):
            return self
        return self._reshaped(
            list(compress(self.values, mask)), lambda column: list(compress(column, mask))
        )

    def expand(self, groups: Sequence[Sequence[Any]]) -> Chunk:
        """Put a row for each value of group i in the place of row i."""
        assert len(groups) == len(self.values), "each row needs its group, even an empty one"
        values = list(chain.from_iterable(groups))
        if len(values) < 2:  # `itemgetter` of one row gives no tuple
            kept = [row for row, group in enumerate(groups) if group]
            return self._reshaped(values, lambda column: [column[row] for row in kept])
        rows = chain.from_iterable(map(repeat, range(len(groups)), map(len, groups)))
        pick = itemgetter(*rows)
        return self._reshaped(values, lambda column: list(pick(column)))

    def slice(self, start: int, stop: int) -> Chunk:
        """Keep the rows from ``start`` up to ``stop``."""
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


class Origin(Enum):
    """What an offset counts from."""

    BEGINNING = "beginning"
    END = "end"
    ABSOLUTE = "absolute"
    TIME = "time"


_OFFSET_TEXT = re.compile(
    r"(?:(beginning)(?:\+([0-9]{1,40}))?|(end)(?:-([0-9]{1,40}))?|([0-9]{1,40}))"
)


@dataclass(frozen=True, slots=True)
class Offset:
    """Where to start reading: counted from the beginning or the end, a number, or a time.

    ``count`` is records from either end, the offset itself, or ms since the epoch.
    """

    origin: Origin
    count: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.origin, Origin):
            raise UsageError(f"{shown(self.origin)} is not an Origin")
        count = self.count
        if isinstance(count, bool) or not hasattr(count, "__index__"):
            raise UsageError(f"{self._what} is a whole number, not {shown(count)}")
        if not 0 <= index(count) <= _I64_MAX:
            raise UsageError(f"{self._what} is a number from 0 to {_I64_MAX}, not {count}")
        object.__setattr__(self, "count", index(count))

    @property
    def _what(self) -> str:
        return "a time in ms" if self.origin is Origin.TIME else "an offset"

    @classmethod
    def beginning(cls, count: int = 0) -> Offset:
        """``count`` records behind the first one stored."""
        return cls(Origin.BEGINNING, count)

    @classmethod
    def end(cls, count: int = 0) -> Offset:
        """``count`` records before the end; 0 reads only what arrives later."""
        return cls(Origin.END, count)

    @classmethod
    def absolute(cls, offset: int) -> Offset:
        """Exactly this offset; never moved to where records are."""
        return cls(Origin.ABSOLUTE, offset)

    @classmethod
    def at_time(cls, when: datetime | int) -> Offset:
        """The first record made at this time or later.

        Found by a binary search over the greatest times of batches, then by a look into one
        batch: times may be in any order within a batch, but the greatest ones must not fall from
        a batch to the next. Where every record is older, it is the end.

        Args:
            when: A datetime with a time zone, or ms since the epoch.

        Raises:
            UsageError: The datetime carries no time zone, or lies before 1970.
        """
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise UsageError(
                    f"{when.isoformat()} says no time zone",
                    hint="for example when.replace(tzinfo=timezone.utc)",
                )
            when = (when - _EPOCH) // _MS
        return cls(Origin.TIME, when)

    @classmethod
    def parse(cls, value: Offset | str | int) -> Offset:
        """Read ``"beginning"``, ``"beginning+5"``, ``"end"``, ``"end-5"`` or a number.

        Raises:
            UsageError: It is none of these.
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
        """Return the offset to read from; not for a time, which only the log can tell.

        Args:
            first: First offset stored.
            end: End of what can be read.
            stored_next: The offset behind a stored consumer offset, which then takes the
                place of both ends.

        Source: client semantics reference, 3.2.
        """
        assert self.origin is not Origin.TIME, "the log is searched for it"
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
    """Where values of a type may be written; one for a union also takes each of its members."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Topic(Destination[T], Generic[T]):
    """A topic by name, with the type of its values and what a new one is made with.

    Stands wherever a topic name does; then sinks are checked against the type as well. Where
    ``partitions`` is left out, a new topic gets one, and any number is fine on one that exists.
    """

    name: str
    type: TypeForm[T] = cast("TypeForm[T]", bytes)  # noqa: RUF009  # a class, shared by all
    partitions: int | None = None

    def renamed(self, name: str) -> Topic[T]:
        """Return the same topic under another name."""
        return replace(self, name=name)
