"""Decorated functions: stages that are streams, and sinks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
)

from streamkit.dataflow.callers import caller_location
from streamkit.dataflow.functions import check_callable, errors_at
from streamkit.dataflow.state_handle import State
from streamkit.dataflow.stateful import Stateful
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.timers import Timer
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import TopologyError

if TYPE_CHECKING:
    pass

V_co = TypeVar("V_co", covariant=True)
T = TypeVar("T")
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class DecoratedFunction(Generic[P, R_co]):
    """A decorated function, which can still be called like the original one."""

    def __init__(self, function: Callable[P, R_co]) -> None:
        # This comes first, because it copies the attributes of a function that wraps a stage.
        functools.update_wrapper(cast("Callable[P, R_co]", self), function)
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self._function(*args, **kwargs)

    @property
    def function(self) -> Callable[P, R_co]:
        """The original function."""
        return self._function


class Stage(DecoratedFunction[P, R_co], Stream[V_co], Generic[P, R_co, V_co]):
    """A decorated function: a `Stream` of its results, and the plain function when called."""

    def __init__(self, function: Callable[P, R_co], topology: Topology, node: Node) -> None:
        DecoratedFunction.__init__(self, function)
        Stream.__init__(self, topology, node)

    def on_timer(self, function: Callable[[Timer[Any], State[Any]], T]) -> Callable[..., T]:
        """Call ``function`` when the time of a timer has come; a decorator.

        A call of the stage sets timers with `Context.timer`. The function gets the `Timer` and
        the `State` of its key, and returns a value for the stream, or None.

        Raises:
            TopologyError: The stage has no state or no context, or a function for timers already.
        """
        check_callable(function, "on_timer", values=2)
        step = self.node.steps[0]
        with errors_at(caller_location()):
            if not isinstance(step, Stateful) or step.key_of is None:
                raise TopologyError(
                    f"{self.name!r} cannot have timers",
                    hint="give its function a parameter State[...] and a parameter Context[...]",
                )
            if step.hook.function is not None:
                raise TopologyError(f"{self.name!r} has a function for timers already")
            step.hook.function = function
        return function


class Sink(DecoratedFunction[P, R_co], Generic[P, R_co]):
    """A decorated function that is a sink, which no stage can read."""

    def __init__(self, function: Callable[P, R_co], node: Node) -> None:
        super().__init__(function)
        self._node = node

    @property
    def node(self) -> Node:
        """The sink in the graph."""
        return self._node
