"""The types of the app's decorators, for type checkers.

A function must match both overloads of a protocol here. The first one captures its exact
signature; the second one checks its parameter and finds the value type without None. A decorator
has one overload for each kind of function. In its errors, mypy shows the first overload tried, and
pyright the last one. So a protocol with a neutral name comes first, and a plain callable last. The
plain callables repeat the kinds, because mypy does not match an unnamed parameter, as in
``Callable[[Flight], Late]``, with a protocol.
"""

# The overloads overlap by design: the first match is used. No protocol is ever called.
# mypy: disable-error-code="overload-overlap"
# pyright: reportOverlappingOverload=false

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from streamkit.dataflow.context import Context
from streamkit.dataflow.decorated_function import Sink, Stage
from streamkit.dataflow.state_handle import State

X_con = TypeVar("X_con", contravariant=True)
V_co = TypeVar("V_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
X = TypeVar("X")
Q = TypeVar("Q")
V = TypeVar("V")
R = TypeVar("R")
P = ParamSpec("P")


AnyState = State[Any]
AnyContext = Context[Any]


class Takes(Protocol[X_con, P, R_co, V_co]):
    """A generator function that gets a value."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, /) -> Iterator[V_co]: ...


class TakesWithContext(Protocol[X_con, P, R_co, V_co]):
    """A generator function that gets a value and its context."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, context: AnyContext, /) -> Iterator[V_co]: ...


class MapsWithContext(Protocol[X_con, P, R_co, V_co]):
    """A function that gets a value and its context."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, context: AnyContext, /) -> V_co | None: ...


class TakesWithState(Protocol[X_con, P, R_co, V_co]):
    """A generator of a value and the state of its key."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, state: AnyState, /) -> Iterator[V_co]: ...


class MapsWithState(Protocol[X_con, P, R_co, V_co]):
    """A function of a value and the state of its key."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, state: AnyState, /) -> V_co | None: ...


class TakesWithStateAndContext(Protocol[X_con, P, R_co, V_co]):
    """A generator of a value, the state of its key and its context."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, state: AnyState, context: AnyContext, /) -> Iterator[V_co]: ...


class MapsWithStateAndContext(Protocol[X_con, P, R_co, V_co]):
    """A function of a value, the state of its key and its context."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, state: AnyState, context: AnyContext, /) -> V_co | None: ...


class Awaits(Protocol[X_con, P, R_co, V_co]):
    """An async function that gets a value."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, /) -> Awaitable[V_co | None]: ...


class AwaitsWithContext(Protocol[X_con, P, R_co, V_co]):
    """An async function that gets a value and its context."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, context: AnyContext, /) -> Awaitable[V_co | None]: ...


class Streams(Protocol[X_con, P, R_co, V_co]):
    """An async generator that gets a value."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, /) -> AsyncIterator[V_co]: ...


class StreamsWithContext(Protocol[X_con, P, R_co, V_co]):
    """An async generator that gets a value and its context."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, context: AnyContext, /) -> AsyncIterator[V_co]: ...


class Maps(Protocol[X_con, P, R_co, V_co]):
    """A function that gets a value."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, /) -> V_co | None: ...


class Writes(Protocol[X_con, P, R_co]):
    """A function that writes the value a sink gets, and returns nothing."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, value: X_con, /) -> Awaitable[None] | None: ...


class YieldsFrom(Protocol[P, R_co, Q, V_co]):
    """A generator that resumes after a position."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, *, resume: Q | None) -> Iterator[tuple[Q, V_co]]: ...


class YieldsFromAsync(Protocol[P, R_co, Q, V_co]):
    """An async generator that resumes after a position."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, *, resume: Q | None) -> AsyncIterator[tuple[Q, V_co]]: ...


class GeneratorDecorator(Protocol):
    """Turns a generator into a source."""

    @overload
    def __call__(self, function: YieldsFrom[P, R, Q, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: YieldsFromAsync[P, R, Q, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Callable[[], Iterator[V]], /) -> Stage[[], Iterator[V], V]: ...
    @overload
    def __call__(
        self, function: Callable[[], AsyncIterator[V]], /
    ) -> Stage[[], AsyncIterator[V], V]: ...


class StageDecorator(Generic[X]):
    """Turns a function of an X into a stage."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Takes[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: TakesWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Streams[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: StreamsWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Awaits[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: AwaitsWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: TakesWithState[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsWithState[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: TakesWithStateAndContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsWithStateAndContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Maps[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(
        self, function: Callable[[X], Awaitable[V | None]], /
    ) -> Stage[[X], Awaitable[V | None], V]: ...
    @overload
    def __call__(self, function: Callable[[X], Iterator[V]], /) -> Stage[[X], Iterator[V], V]: ...
    @overload
    def __call__(self, function: Callable[[X], V | None], /) -> Stage[[X], V | None, V]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._make(function)


class GivingDecorator(Generic[X, V]):
    """Turns a function of an X into a stage with the declared value type V."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Takes[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: TakesWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Streams[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: StreamsWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Awaits[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: AwaitsWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsWithContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: TakesWithState[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsWithState[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: TakesWithStateAndContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: MapsWithStateAndContext[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(self, function: Maps[X, P, R, V], /) -> Stage[P, R, V]: ...
    @overload
    def __call__(
        self, function: Callable[[X], Iterator[V] | V | None], /
    ) -> Stage[[X], Iterator[V] | V | None, V]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._make(function)


class ShapingDecorator(Generic[X, V]):
    """Turns a function of an X into a sink that writes the V it returns."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Takes[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(self, function: TakesWithContext[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(self, function: Streams[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(self, function: StreamsWithContext[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(self, function: Awaits[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(self, function: AwaitsWithContext[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(self, function: MapsWithContext[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(self, function: Maps[X, P, R, V], /) -> Sink[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[X], Iterator[V] | V | None], /
    ) -> Sink[[X], Iterator[V] | V | None]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._make(function)


class SinkDecorator(Generic[X]):
    """Turns a function that writes an X into a sink."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Writes[X, P, R], /) -> Sink[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[[X], Awaitable[None] | None], /
    ) -> Sink[[X], Awaitable[None] | None]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._make(function)
