"""Which records a topic of Kafka accepts; others are refused before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from streamkit.connectors.kafka.client import Config, max_record_bytes
from streamkit.dataflow.steps import RowFailed
from streamkit.errors import DataError, RecordTooLarge, StreamKitError
from streamkit.record import Chunk

_SIZE: Final = "max.message.bytes"
_AFTER: Final = "message.timestamp.after.max.ms"
_BEFORE: Final = "message.timestamp.before.max.ms"
_DIFFERENCE: Final = "message.timestamp.difference.max.ms"  # both, before Kafka 3.6
# What a header has besides its name and value.
_HEADER_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class TopicOptions:
    """Options of a topic that limit records; None if they are not known.

    ``after_ms`` is how far a timestamp may be after the present time, ``before_ms`` before it.
    """

    batch_bytes_max: int | None = None
    after_ms: int | None = None
    before_ms: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, str]) -> TopicOptions:
        """Read the options of a topic as Kafka describes them."""

        def number(*names: str) -> int | None:
            found = [int(options[each]) for each in names if options.get(each)]
            return min(found, default=None)

        if options.get("message.timestamp.type") == "LogAppendTime":
            return cls(number(_SIZE))
        return cls(number(_SIZE), number(_AFTER, _DIFFERENCE), number(_BEFORE, _DIFFERENCE))


class RecordLimits:
    """Refuses records that the topic does not accept.

    Args:
        where: The topic and its servers, for errors.
    """

    def __init__(self, where: str, config: Config, options: TopicOptions) -> None:
        self._where = where
        self._options = options
        self._bytes_max = max_record_bytes(config, options.batch_bytes_max)

    def checked(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Return the chunk.

        Raises:
            RowFailed: A record is too large, or its timestamp is too far from the present time.
        """
        row = self._refused(chunk, now_ms)
        if row is None:
            return chunk
        raise RowFailed(row, chunk.slice(0, row)) from self._error(chunk, row)

    def _refused(self, chunk: Chunk, now_ms: int) -> int | None:
        found = []
        if _largest(chunk) > self._bytes_max:
            sizes = map(_record_size, chunk.keys, chunk.values)
            found += [row for row, size in enumerate(sizes) if size > self._bytes_max][:1]
        after_ms, before_ms = self._options.after_ms, self._options.before_ms
        times_ms = chunk.timestamps_ms
        if after_ms is not None and len(chunk) and max(times_ms) > now_ms + after_ms:
            found += [row for row, at in enumerate(times_ms) if at > now_ms + after_ms][:1]
        if before_ms is not None and before_ms < now_ms:  # otherwise it allows any time
            oldest_ms = now_ms - before_ms
            found += [row for row, at in enumerate(times_ms) if 0 < at < oldest_ms][:1]
        return min(found, default=None)

    def _error(self, chunk: Chunk, row: int) -> StreamKitError:
        size = _record_size(chunk.keys[row], chunk.values[row])
        if size > self._bytes_max:
            return RecordTooLarge(
                f"key and value have {size} bytes, but {self._where} accepts {self._bytes_max}",
                hint="raise message.max.bytes in config=, and max.message.bytes of the topic",
            )
        at_ms = chunk.timestamps_ms[row]
        return DataError(
            f"{self._where} does not accept the timestamp {at_ms}: it is too far from the present",
            hint=f"the topic has {_AFTER}={self._options.after_ms} and "
            f"{_BEFORE}={self._options.before_ms}",
        )


def _largest(chunk: Chunk) -> float:
    """Return a size that no row is larger than, without a look at single rows."""
    if set(map(type, chunk.values)) != {bytes}:
        return inf  # there are tombstones or headers
    keys = [each for each in chunk.keys if each is not None]
    return max(map(len, chunk.values)) + max(map(len, keys), default=0)


def _record_size(key: bytes | None, value: Any) -> int:
    return _size(value) + (0 if key is None else len(key))


def _size(value: Any) -> int:
    """Return how many bytes a value has, with its headers if it has some."""
    if value is None:
        return 0
    if type(value) is not tuple:
        return len(value)
    data, headers = value
    sizes = (len(name.encode()) + len(each or b"") + _HEADER_BYTES for name, each in headers)
    return _size(data) + sum(sizes)
