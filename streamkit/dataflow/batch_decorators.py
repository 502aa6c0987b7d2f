"""The types of the decorators with ``batch=``, for type checkers; see `decorators`.

A frame is anything that gives its columns to Arrow, so that no library of frames is needed here.
The functions of frames come after those of lists, because mypy shows the last overload before a
type variable with a bound. pyright shows the last one, so the plain callable is repeated there.
"""

# The overloads overlap by design: the first match is used. No protocol is ever called.
# mypy: disable-error-code="overload-overlap, overload-cannot-match"
# pyright: reportOverlappingOverload=false

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from streamkit.dataflow.decorated_function import Sink, Stage
from streamkit.dataflow.decorators import Writes

X = TypeVar("X")
V_co = TypeVar("V_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")
R = TypeVar("R")
P = ParamSpec("P")


class Frame(Protocol):
    """A frame of polars, pandas or pyarrow."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


F = TypeVar("F", bound=Frame)
F_con = TypeVar("F_con", bound=Frame, contravariant=True)
Row = dict[str, Any]


class Batches(Protocol[X, P, R_co, V_co]):
    """A function that gets a list of values and returns one result for each."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, values: list[X], /) -> Sequence[V_co | None]: ...


class BatchesFreely(Protocol[X, P, R_co, V_co]):
    """A function that gets a list of values and returns any number of results."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, values: list[X], /) -> Iterable[V_co]: ...


class AwaitsBatches(Protocol[X, P, R_co, V_co]):
    """An async function that gets a list of values."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, values: list[X], /) -> Awaitable[Iterable[V_co]]: ...


class StreamsBatches(Protocol[X, P, R_co, V_co]):
    """An async generator that gets a list of values."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, values: list[X], /) -> AsyncIterator[V_co]: ...


class MapsFrames(Protocol[F_con, P, R_co]):
    """A function that gets a frame and returns a frame."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> Frame: ...


class MapsFramesFreely(Protocol[F_con, P, R_co]):
    """A function that gets a frame and returns any number of frames."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> Iterable[Frame]: ...


class AwaitsFrames(Protocol[F_con, P, R_co]):
    """An async function that gets a frame and returns one, or several."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> Awaitable[Frame | Iterable[Frame]]: ...


class StreamsFrames(Protocol[F_con, P, R_co]):
    """An async generator that gets a frame and yields frames."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> AsyncIterator[Frame]: ...


class ReadsFrames(Protocol[F_con, P, R_co, V_co]):
    """A function that gets a frame and returns one result for each row."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> Sequence[V_co | None]: ...


class ReadsFramesFreely(Protocol[F_con, P, R_co, V_co]):
    """A function that gets a frame and returns any number of results."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> Iterable[V_co]: ...


class AwaitsFromFrames(Protocol[F_con, P, R_co, V_co]):
    """An async function that gets a frame and returns results."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> Awaitable[Iterable[V_co]]: ...


class StreamsFromFrames(Protocol[F_con, P, R_co, V_co]):
    """An async generator that gets a frame and yields results."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> AsyncIterator[V_co]: ...


class WritesFrames(Protocol[F_con, P, R_co]):
    """A function that writes a frame, and returns nothing."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, frame: F_con, /) -> Awaitable[None] | None: ...


class BatchDecorator(Generic[X]):
    """Turns a function of a list of X, or of a frame, into a stage."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: AwaitsBatches[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: StreamsBatches[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Batches[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: BatchesFreely[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(
        self, function: Callable[[list[X]], Iterable[V]], /
    ) -> Stage[[list[X]], Iterable[V], V]: ...
    @overload
    def __call__(self, function: AwaitsFrames[F, P, R], /) -> Stage[P, R, Row]: ...
    @overload
    def __call__(self, function: StreamsFrames[F, P, R], /) -> Stage[P, R, Row]: ...
    @overload
    def __call__(self, function: MapsFrames[F, P, R], /) -> Stage[P, R, Row]: ...
    @overload
    def __call__(self, function: MapsFramesFreely[F, P, R], /) -> Stage[P, R, Row]: ...
    @overload
    def __call__(self, function: AwaitsFromFrames[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: StreamsFromFrames[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: ReadsFrames[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: ReadsFramesFreely[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(
        self, function: Callable[[list[X]], Iterable[V]], /
    ) -> Stage[[list[X]], Iterable[V], V]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._make(function)


class GivingBatchDecorator(Generic[X, V]):
    """Turns a function of a list of X, or of a frame, into a stage with the value type V."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: AwaitsBatches[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: StreamsBatches[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Batches[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: BatchesFreely[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(
        self, function: Callable[[list[X]], Iterable[V]], /
    ) -> Stage[[list[X]], Iterable[V], V]: ...
    @overload
    def __call__(self, function: AwaitsFrames[F, P, R], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: StreamsFrames[F, P, R], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsFrames[F, P, R], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsFramesFreely[F, P, R], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: AwaitsFromFrames[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: StreamsFromFrames[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: ReadsFrames[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: ReadsFramesFreely[F, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(
        self, function: Callable[[list[X]], Iterable[V]], /
    ) -> Stage[[list[X]], Iterable[V], V]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._make(function)


class BatchSinkDecorator(Generic[X]):
    """Turns a function that writes a list of X, or a frame, into a sink."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Writes[list[X], P, R], /) -> Sink[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[X]], Awaitable[None] | None], /
    ) -> Sink[[list[X]], Awaitable[None] | None]: ...
    @overload
    def __call__(self, function: WritesFrames[F, P, R], /) -> Sink[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[list[X]], Awaitable[None] | None], /
    ) -> Sink[[list[X]], Awaitable[None] | None]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._make(function)
