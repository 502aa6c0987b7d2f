"""Functions that get frames, as functions of lists, which is how the engine calls them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Final

from streamkit.errors import DataError, RowError
from streamkit.frames.kinds import PANDAS, FrameKind, frame_of, is_lazy, is_series
from streamkit.record import Kind, Value

# An attribute of async functions that get frames.
_OF_FRAMES: Final = "__streamkit_frames__"


@dataclass(frozen=True, slots=True)
class Frames:
    """What a function gets, and what becomes of its results.

    Modules that need pyarrow are imported when they are needed.

    Args:
        kind: The frame that the function gets.
        input_type: The type of the rows; None if it is not known.
        output_type: The type of the rows of frames that it returns; None for dicts.
        is_row_by_row: Whether it returns one row for each row.
        gives_frames: Whether its results are declared to be frames.
        is_sink: Whether it returns nothing.
    """

    kind: FrameKind
    input_type: Kind
    output_type: Kind = None
    is_row_by_row: bool = False
    gives_frames: bool = False
    is_sink: bool = False

    def check(self) -> None:
        """Refuse an input without columns.

        Raises:
            TopologyError: Values of its type cannot be columns.
            UsageError: pyarrow is not installed.
        """
        from streamkit.frames.rows import batch_maker

        batch_maker(self.input_type)

    def given(self, values: Sequence[Value]) -> Value:
        """Return the frame for a call.

        Raises:
            RowError: A value does not fit into the columns, so the function cannot be called.
        """
        from streamkit.frames.conversions import frame_from
        from streamkit.frames.rows import batch_of

        try:
            return frame_from(batch_of(values, self.input_type), self.kind)
        except RowError as error:
            error.is_before_call = True
            raise

    def results(self, result: Value, count: int) -> Value:
        """Return the values that a result stands for: the rows of a frame, or those it has.

        Args:
            result: What the function has returned.
            count: How many rows it was called with.

        Raises:
            DataError: A frame has other columns, other types, or another number of rows.
            RowError: A row is not of the type; it is that of the record with this number.
        """
        if self.is_sink:
            return result
        kind = frame_of(result)
        if kind is not None:
            if self.is_row_by_row:
                self._check_rows(result, kind, count)
            return self._read(result, kind)
        self._check_other(result, is_whole=True)
        if is_series(type(result)):
            return self._read(result, None)
        if self.is_row_by_row or result is None or isinstance(result, str | bytes):
            return result
        return [value for each in result for value in self.yielded(each)]

    def yielded(self, value: Value) -> Sequence[Value]:
        """Return the values that one item of an iterable result stands for.

        Raises:
            DataError: It is a frame with other columns, types or values.
        """
        kind = frame_of(value)
        if kind is not None:
            return self._read(value, kind)
        self._check_other(value, is_whole=False)
        return [value]

    def _read(self, result: Value, kind: FrameKind | None) -> Sequence[Value]:
        from streamkit.frames.conversions import array_from, nan_for_null, table_from
        from streamkit.frames.rows import Reading

        reading = Reading(self.output_type)
        try:
            if kind is None:
                return reading.values(array_from(result))
            table = table_from(result, kind)
            if kind == PANDAS:
                table = nan_for_null(table, result, reading.plain_floats)
            columns = reading.columns(table)
            return reading.rows(table) if columns is None else columns
        except RowError as error:
            if self.is_row_by_row:
                raise
            raise DataError(str(error)) from None  # the number is not that of a record

    def _check_other(self, value: Value, *, is_whole: bool) -> None:
        """Refuse what is no frame where only frames are declared."""
        if is_lazy(value):
            raise DataError("a polars.LazyFrame has no rows yet", hint="return query.collect()")
        if self.gives_frames and (self.is_row_by_row or not is_whole):
            raise DataError(
                f"the function is annotated to give frames, but this is a {type(value).__name__}"
            )

    def _check_rows(self, frame: Value, kind: FrameKind, count: int) -> None:
        found = frame.shape[0]
        if found != count:
            raise DataError(
                f"a batch of {count} records returned a frame of {found} rows, but without "
                "Iterator[...] in its annotation a function returns one row for each record",
                hint=f"for any number of rows, annotate -> Iterator[{kind.name}] and yield frames",
            )
        if kind == PANDAS:
            from streamkit.frames.conversions import has_other_order

            if has_other_order(frame):
                raise DataError(
                    "the index shows that the rows have another order than the records, whose "
                    "keys and timestamps they would get",
                    hint="return them in order: frame.sort_index()",
                )


def gets_frames(function: object) -> bool:
    """Return whether a function of lists is one that `of_lists` has made, or calls one."""
    if isinstance(function, partial):
        return any(map(gets_frames, function.args))
    return isinstance(function, FrameFunction) or hasattr(function, _OF_FRAMES)


class FrameFunction:
    """A plain function of a frame, or a generator, as a function of a list.

    It can be sent to another process if the function can.
    """

    def __init__(self, function: Callable[[Value], Value], frames: Frames) -> None:
        update_wrapper(self, function)  # for names in reports
        self._function = function
        self._frames = frames

    def __call__(self, values: Sequence[Value]) -> Value:
        frames = self._frames
        return frames.results(self._function(frames.given(values)), len(values))

    def __reduce__(self) -> tuple[object, ...]:
        return FrameFunction, (self._function, self._frames)


def of_lists(function: Callable[[Value], Value], frames: Frames) -> Callable[..., Value]:
    """Return a function of a list that calls a function of a frame, of the same kind."""
    plain = inspect.unwrap(function)

    async def awaited(values: Sequence[Value]) -> Value:
        return frames.results(await function(frames.given(values)), len(values))

    async def iterated(values: Sequence[Value]) -> AsyncIterator[Value]:
        async for each in function(frames.given(values)):
            for value in frames.yielded(each):
                yield value

    for wrapper, is_kind in (
        (iterated, inspect.isasyncgenfunction(plain)),
        (awaited, inspect.iscoroutinefunction(plain)),
    ):
        if is_kind:
            setattr(wrapper, _OF_FRAMES, True)
            return update_wrapper(wrapper, function)
    return FrameFunction(function, frames)
