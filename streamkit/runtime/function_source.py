"""Readers for sources that are user generators."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from streamkit.dataflow.contracts import Positions, SourceFacts, SourceReader
from streamkit.dataflow.endpoints import FunctionSource
from streamkit.env import Clock
from streamkit.errors import StageError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.failures import error_text, shown, users_line
from streamkit.runtime.feeds import Feed, TaskFeed, ThreadFeed
from streamkit.runtime.user_calls import is_ours

_PART: Final = "0"
# Values of these types are immutable, so only a position that is committed is encoded.
_ATOMS: Final = (int, str, float, bool, type(None))


class _Saved(msgspec.Struct):
    """The committed position of a generator."""

    offset: int = 0
    position: msgspec.Raw = msgspec.Raw(b"null")


class PositionFormat:
    """Encodes positions of a generator as JSON and decodes them as the annotation of ``resume``.

    A position that does not decode to an equal value is refused when it is yielded.
    """

    def __init__(self, kind: Any) -> None:
        self._is_annotated = kind is not Any
        self._decode = msgspec.json.Decoder(kind).decode
        self._encode = msgspec.json.Encoder().encode

    def encode(self, position: Any) -> msgspec.Raw:
        """Encode a position.

        Raises:
            TypeError: It would not decode to an equal value of the same type.
        """
        try:
            encoded = self._encode(position)
            decoded = self._decode(encoded)
            is_same = bool(decoded == position) and type(decoded) is type(position)
        except Exception as error:
            raise TypeError(self._refusal(position, error_text(error))) from error
        if not is_same:
            raise TypeError(self._refusal(position, f"it would be read back as {shown(decoded)}"))
        return msgspec.Raw(encoded)

    def decode(self, encoded: bytes | msgspec.Raw) -> Any:
        """Decode a position."""
        return self._decode(encoded)

    def _refusal(self, position: Any, why: str) -> str:
        advice = (
            "yield positions of the type that `resume` is annotated with"
            if self._is_annotated
            else "annotate `resume` with the type of the positions, for example "
            f"resume: {type(position).__name__} | None"
        )
        return f"the position {shown(position)} cannot be stored: {why}; {advice}"


class FunctionReader(SourceReader):
    """Reads a generator or an async generator, a chunk at a time.

    A replayable generator yields ``(position, value)``; a commit stores the position of the last
    value of a chunk. A mutable position is encoded when it is yielded, because the generator may
    change it later.
    """

    def __init__(self, name: str, source: FunctionSource, clock: Clock) -> None:
        self._name = name
        self._source = source
        self._clock = clock
        self._feed: Feed | None = None
        self._format = PositionFormat(source.position_type)
        self._is_checked = False
        self._last: Any = None
        self._next_offset = 0
        self._positions: deque[tuple[int, Any]] = deque()

    async def open(self, committed: Positions) -> SourceFacts:
        try:
            values = self._call(committed.get(_PART))
        except BaseException as error:  # the function may fail before the first yield
            raise self._failed(error, "could not be opened") from error
        is_async = isinstance(values, AsyncIterator)
        accept = self._accept_pair if self._source.is_replayable else self._accept_value
        self._feed = (
            TaskFeed(values, accept) if is_async else ThreadFeed(values, self._name, accept)
        )
        if not self._source.is_replayable:
            note = ", cannot be replayed after a crash"
        elif committed:
            note = f" after the {self._next_offset:,} values of earlier runs"
        else:
            note = " from the beginning"
        return SourceFacts(f"{self._source}{note}", is_replayable=self._source.is_replayable)

    async def next(self) -> Chunk | None:
        assert self._feed is not None, "open comes first"
        try:
            taken = await self._feed.take(CHUNK_RECORDS_MAX)
        except BaseException as error:
            if is_ours(error):
                raise
            raise self._failed(error) from error
        return self._as_chunk(taken) if taken else None

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        last = chunk.offsets[-1]
        position: Any = None
        while self._positions and self._positions[0][0] <= last:
            position = self._positions.popleft()[1]
        try:
            encoded = position if type(position) is msgspec.Raw else self._format.encode(position)
        except TypeError as error:
            raise self._failed(error) from error
        return _PART, msgspec.json.encode(_Saved(last + 1, encoded)).decode()

    @property
    def ends_for_good(self) -> bool:
        return True

    def stop(self) -> bool:
        if self._feed is None:
            return False
        self._feed.stop()
        return not self._source.is_replayable

    async def close(self) -> None:
        if self._feed is not None:
            await self._feed.close()

    def _call(self, committed: str | None) -> Any:
        function = self._source.function
        if not self._source.is_replayable:
            return function()
        saved = msgspec.json.decode(committed or "{}", type=_Saved)
        self._next_offset = saved.offset
        return function(resume=self._format.decode(saved.position) if committed else None)

    # --- in the thread or task of the generator ---------------------------------------

    def _accept_pair(self, yielded: Any) -> Any:
        try:
            position, value = yielded
        except (TypeError, ValueError):
            raise TypeError("a source with `resume` must yield (position, value)") from None
        if type(position) not in _ATOMS:
            position = self._format.encode(position)
        elif not self._is_checked and position is not None:
            self._format.encode(position)
        self._is_checked = True
        return position, self._accept_value(value)

    def _accept_value(self, value: Any) -> Any:
        if value is self._last and type(value).__hash__ is None:
            raise TypeError(
                f"the generator yielded the same {type(value).__name__} object twice: a change to "
                "it would also change the earlier values; yield a new object each time"
            )
        self._last = value
        return value

    # --- chunks and errors ------------------------------------------------------------

    def _as_chunk(self, taken: list[Any]) -> Chunk:
        first = self._next_offset
        self._next_offset += len(taken)
        if self._source.is_replayable:
            self._positions.extend(
                (first + row, position) for row, (position, _) in enumerate(taken)
            )
            taken = [value for _, value in taken]
        now_ms = self._clock.wall_ms()
        offsets = range(first, first + len(taken))
        return Chunk(taken, [None] * len(taken), [now_ms] * len(taken), offsets, self._name, 0)

    def _failed(self, error: BaseException, what: str = "") -> StageError:
        frames = traceback.extract_tb(error.__traceback__)
        line = users_line(frames) or self._source.location
        return StageError(
            f"source {self._name!r} {what or f'failed after {self._next_offset} values'}: "
            f"{error_text(error)}\n  at: {line}",
            stage=self._name,
            topic=self._name,
            partition=0,
            offset=self._next_offset,
        )
