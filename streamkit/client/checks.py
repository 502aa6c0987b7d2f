"""Checks of the arguments that callers pass to the clients. Pure.

Both clients check arguments here first, so that no invalid value reaches a background task.
Each function raises `UsageError` with the name and the value of the argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import timedelta
from operator import index
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, cast

from streamkit.errors import UsageError, shown
from streamkit.limits import STRING_BYTES_MAX
from streamkit.protocol import codec
from streamkit.protocol.batch import Columns
from streamkit.record import Topic

T = TypeVar("T")
U32_MAX: Final = 2**32 - 1
I32_MAX: Final = 2**31 - 1
I64_MAX: Final = 2**63 - 1
# About a century: a longer duration is a mistake, or was meant as no limit.
SECONDS_MAX: Final = 100 * 366 * 24 * 3_600.0
_STAMPS: Final = range(I64_MAX + 1)


def whole(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number between two limits.

    Integers of other libraries, such as numpy, are accepted; a bool is not.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        refuse(name, value, "a whole number")
    number = index(cast("Any", value))
    if not low <= number <= high:
        raise UsageError(f"{name}={number} must be between {low:,} and {high:,}")
    return number


def optional(check: Callable[..., T], name: str, value: object, *bounds: Any) -> T | None:
    """Return None for None, otherwise the result of the check."""
    return None if value is None else check(name, value, *bounds)


def seconds(name: str, value: object, most_s: float = SECONDS_MAX) -> float:
    """Return a duration in seconds, from a number or a timedelta."""
    if isinstance(value, timedelta):
        length_s = value.total_seconds()
    elif isinstance(value, bool) or not hasattr(value, "__float__"):
        refuse(name, value, "a number of seconds or a timedelta")
    else:
        try:
            length_s = float(cast("Any", value))
        except (TypeError, ValueError, OverflowError):
            refuse(name, value, "a number of seconds or a timedelta")
    if math.isnan(length_s) or not 0 <= length_s <= most_s:
        raise UsageError(f"{name}={shown(value)} must be between 0 and {most_s:,.0f} seconds")
    return length_s


def text(name: str, value: object, *, may_be_empty: bool = False) -> str:
    """Return a text that fits in a request."""
    if not isinstance(value, str):
        refuse(name, value, "text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        refuse(name, value, "valid text: it has a surrogate, which UTF-8 cannot encode")
    low = 0 if may_be_empty else 1
    if not low <= size <= STRING_BYTES_MAX:
        raise UsageError(
            f"{name}={shown(value)} has {size:,} bytes as UTF-8; "
            f"it must have between {low} and {STRING_BYTES_MAX:,}"
        )
    return str(value)


def path(name: str, value: object) -> Path:
    """Return the path of a file."""
    if not (isinstance(value, str) or hasattr(value, "__fspath__")) or "\0" in str(value):
        refuse(name, value, "the path of a file")
    return Path(value)


def flag(name: str, value: object) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        refuse(name, value, "True or False")
    return value


def function(name: str, value: T) -> T:
    """Return a callable, or None."""
    if value is not None and not callable(value):
        refuse(name, value, "a function")
    return value


def instance(name: str, value: object, kind: type[T]) -> T:
    """Return an instance of a class."""
    if not isinstance(value, kind):
        refuse(name, value, f"a {kind.__name__}")
    return value


def pairs(name: str, value: object, entries_max: int) -> dict[str, str]:
    """Return a dict of texts."""
    if not isinstance(value, Mapping):
        refuse(name, value, "a dict of texts")
    if len(value) > entries_max:
        raise UsageError(f"{name} has {len(value):,} entries; at most {entries_max:,} are allowed")
    return {
        text(f"a name in {name}", key, may_be_empty=True): text(
            f"{name}[{key!r:.40}]", each, may_be_empty=True
        )
        for key, each in value.items()
    }


def choice(name: str, value: object, choices: Mapping[str, T]) -> T:
    """Return the value that belongs to a word."""
    if not isinstance(value, str) or value not in choices:
        refuse(name, value, f"one of: {', '.join(choices)}")
    return choices[value]


def listed(name: str, value: object) -> list[Any]:
    """Return the items of an iterable as a list. Text and bytes are refused as single values."""
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping | Set):
        refuse(name, value, "a list")
    try:
        found = iter(cast("Iterable[Any]", value))
    except TypeError:
        refuse(name, value, "a list")
    return list(found)


def topic(value: object) -> str:
    """Return the name of a topic, from a text or a `Topic`."""
    return text("topic", value.name if isinstance(value, Topic) else value)


def partitions(name: str, value: object) -> tuple[int, ...]:
    """Return partition numbers without duplicates, from one number or several."""
    if hasattr(value, "__index__"):
        value = (value,)
    numbers = [whole(name, each, 0, U32_MAX) for each in listed(name, value)]
    return tuple(dict.fromkeys(numbers))


def start_offsets(name: str, value: object) -> dict[int, int]:
    """Return the first offset of each partition."""
    if not isinstance(value, Mapping):
        refuse(name, value, "a dict of partitions and offsets")
    return {
        whole(f"a partition of {name}", number, 0, U32_MAX): whole(
            f"{name}[{number}]", offset, 0, I64_MAX
        )
        for number, offset in value.items()
    }


def refuse(name: str, value: object, wanted: str) -> NoReturn:
    """Raise the error for an invalid value; ``wanted`` says what is valid."""
    raise UsageError(f"{name}={shown(value)} is not {wanted}")


# --- records -----------------------------------------------------------------------------------


def as_bytes(what: str, content: object) -> bytes:
    """Turn text into bytes; refuse everything else that is not bytes.

    Raises:
        UsageError: The content has another type; ``what`` names the part of the record.
            A bytearray is refused as well, because it could change before it is sent.
    """
    if isinstance(content, str):
        try:
            return content.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"a record's {what} is not valid text: {shown(content)} has a surrogate at "
                f"position {error.start}, which UTF-8 cannot encode"
            ) from None
    if isinstance(content, bytes):
        return bytes(content)  # a plain copy if the content is of a subclass
    hint = f"give bytes({what})" if isinstance(content, bytearray | memoryview) else ""
    raise UsageError(
        f"a record's {what} is {type(content).__name__}, not bytes or text: {shown(content)}",
        hint=hint,
    )


def stamp(value: object, name: str = "timestamp_ms") -> int:
    """Return a time in whole milliseconds since the epoch; negative times are refused."""
    if type(value) is not int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            refuse(name, value, "a whole number of ms")
        value = index(cast("Any", value))
    if value not in _STAMPS:
        raise UsageError(f"{name}={value} is not a whole number of ms between 0 and {I64_MAX:,}")
    return value


def columns(
    values: object, keys: object, timestamps_ms: object, now_ms: Callable[[], int]
) -> tuple[Columns, int]:
    """Check the columns of one `send_many` and return copies of them, with the size in bytes of
    the largest record (key and value together).

    Args:
        values: Any iterable of bytes.
        keys: An iterable of bytes, or of None for a record without a key; None for no keys.
        timestamps_ms: An iterable of ms since the epoch, or None for now.
        now_ms: Returns the current time.
    """
    found = _column("values", values)
    total = len(found)
    sent_keys = [None] * total if keys is None else _column("keys", keys, total)
    stamps = (
        [now_ms()] * total
        if timestamps_ms is None
        else _column("timestamps_ms", timestamps_ms, total)
    )
    largest_bytes = codec.scan_columns(found, sent_keys, stamps, 0)
    if largest_bytes < 0:  # an unusual type; it may still be valid, such as a numpy integer
        _only_bytes("values", found)
        _only_bytes("keys", sent_keys, type(None))
        stamps = list(map(stamp, stamps))
        largest_bytes = codec.scan_columns(found, sent_keys, stamps, 0)
        assert largest_bytes >= 0, "each column was checked"
    return Columns(found, sent_keys, stamps), largest_bytes


def _column(name: str, given: object, length: int | None = None) -> list[Any]:
    found = listed(name, given)
    if length is not None and len(found) != length:
        raise UsageError(f"{length} values, but {len(found)} {name}")
    return found


def _only_bytes(name: str, column: list[Any], *others: type) -> None:
    """Refuse a column with other types; convert subclasses of bytes to plain bytes."""
    kinds = set(map(type, column)) - {bytes, *others}
    if not kinds:
        return
    for kind in kinds:
        if not issubclass(kind, bytes):
            row = next(row for row, each in enumerate(column) if type(each) is kind)
            raise UsageError(
                f"{name} contain {kind.__name__}, not bytes{' or None' if others else ''}: "
                f"row {row} is {shown(column[row])}"
            )
    column[:] = [bytes(each) if isinstance(each, bytes) else each for each in column]
