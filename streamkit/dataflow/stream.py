"""The public classes of the graph: streams and decorated functions."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from streamkit.dataflow.endpoints import Connector, CustomSink
from streamkit.dataflow.functions import (
    caller_location,
    caller_scope,
    check_callable,
    errors_at,
    result_of,
    verb_name,
    without_none,
)
from streamkit.dataflow.keys import KeyBy
from streamkit.dataflow.operators import Filter, FlatMap, Map
from streamkit.dataflow.options import (
    SinkOptions,
    StageOptions,
    StatefulOptions,
    checked_options,
    on_error_of,
    stage_options,
)
from streamkit.dataflow.sinks import default_name, sink_endpoint, sink_steps
from streamkit.dataflow.state_handle import State
from streamkit.dataflow.stateful import Stateful, first_only, reducing, stateful_form
from streamkit.dataflow.steps import Step
from streamkit.dataflow.timers import Timer
from streamkit.dataflow.topology import Node, Topology, stage_name
from streamkit.dataflow.windowed import Emit, emission_of
from streamkit.errors import TopologyError
from streamkit.record import Destination
from streamkit.state.types import format_of
from streamkit.windows import AnyWindow, Duration, check_window, duration_ms

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from streamkit.dataflow.join_stream import (
        JoinOptions,
        JoinResults,
        LookupOptions,
        LookupResults,
        Table,
    )
    from streamkit.dataflow.joins import How
    from streamkit.dataflow.window_stream import WindowedStream

V_co = TypeVar("V_co", covariant=True)
U = TypeVar("U")
K = TypeVar("K")
S = TypeVar("S")
K_co = TypeVar("K_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)


class Stream(Generic[V_co]):
    """The output of one stage. Methods such as `map` add a stage and return its output."""

    def __init__(self, topology: Topology, node: Node) -> None:
        self._topology = topology
        self._node = node

    @property
    def name(self) -> str:
        """The stage's name."""
        return self._node.name

    @property
    def node(self) -> Node:
        """The stage in the graph."""
        return self._node

    def map(
        self,
        function: Callable[[V_co], U],
        **options: Unpack[StageOptions],
    ) -> Stream[U]:
        """Replace each value with the result of ``function``; None is kept as a value."""
        check_callable(function, "map")
        kind = result_of(function, caller_scope())
        return self._then(Map(function), verb_name("map", function), kind, options)

    def filter(
        self,
        predicate: Callable[[V_co], bool],
        **options: Unpack[StageOptions],
    ) -> Stream[V_co]:
        """Keep a record if ``predicate`` returns True for its value."""
        check_callable(predicate, "filter")
        kind = self._node.value_type
        kept: Stream[V_co] = self._then(
            Filter(predicate), verb_name("filter", predicate), kind, options
        )
        return kept

    def flat_map(
        self,
        function: Callable[[V_co], Iterable[U]],
        **options: Unpack[StageOptions],
    ) -> Stream[U]:
        """Replace each record with one record for each value that ``function`` returns."""
        check_callable(function, "flat_map", gives_many=True)
        kind = result_of(function, caller_scope(), gives_many=True)
        default = verb_name("flat-map", function)
        return self._then(FlatMap(function), default, kind, options)

    def key_by(
        self, function: Callable[[V_co], K], **options: Unpack[StageOptions]
    ) -> KeyedStream[K, V_co]:
        """Group records by a key, for stages that keep a state.

        The key becomes the key of the records. ``function`` returns text, bytes, a number, a
        date or anything else that can be written as JSON; None is an error.
        """
        check_callable(function, "key_by")
        node = self._then_node(
            KeyBy(function),
            verb_name("key-by", function),
            self._node.value_type,
            options,
            (result_of(function, caller_scope()),),
        )
        return KeyedStream(self._topology, node)

    def merge(self, *others: Stream[U], name: str | None = None) -> Stream[V_co | U]:
        """Merge streams into one. Each keeps its order; records of different streams may mix."""
        nodes = (self._node, *(other.node for other in others))
        node = Node(
            name or self._topology.free_name("merge"),
            "stage",
            (),
            inputs=nodes,
            location=caller_location(),
            value_type=_either([each.value_type for each in nodes]),
        )
        return Stream(self._topology, self._topology.add(node))

    @overload
    def lookup(
        self,
        table: Table[U],
        *,
        on: Callable[[V_co], object],
        combine: Callable[[V_co, U], R],
        how: Literal["inner"] = "inner",
        **options: Unpack[LookupOptions],
    ) -> LookupResults[R, V_co]: ...
    @overload
    def lookup(
        self,
        table: Table[U],
        *,
        on: Callable[[V_co], object],
        combine: Callable[[V_co, U | None], R],
        how: Literal["left"],
        **options: Unpack[LookupOptions],
    ) -> LookupResults[R, V_co]: ...
    def lookup(
        self,
        table: Table[U],
        *,
        on: Callable[[V_co], object],
        combine: Callable[..., R],
        how: Literal["inner", "left"] = "inner",
        **options: Unpack[LookupOptions],
    ) -> LookupResults[R, V_co]:
        """Combine each value with the row of a table.

        Args:
            table: See `App.table`.
            on: Returns the key of the row for a value.
            combine: Gets the value and the row, which must not be changed.
            how: ``inner`` drops a record without a row; ``left`` gives None for it.
            options: See `LookupOptions`.

        Raises:
            TopologyError: With ``as_of``: the type of the values is not known, or cannot be stored.
            UsageError: An option is not valid.
        """
        from streamkit.dataflow.join_stream import lookup

        return lookup(self._topology, self._node, table, how, (on, combine), options)

    def pipe(
        self, fragment: Callable[Concatenate[Stream[V_co], Q], U], *args: Q.args, **kwargs: Q.kwargs
    ) -> U:
        """Call ``fragment`` with this stream; return its result."""
        return fragment(self, *args, **kwargs)

    def to(
        self: Stream[T],
        target: str | Destination[T] | CustomSink[T] | Connector,
        *,
        key: Callable[[T], bytes | str | None] | None = None,
        **options: Unpack[SinkOptions],
    ) -> None:
        """Write to a topic, or to a connector.

        Args:
            target: A topic by name or as `Topic`, or a connector object.
            key: Returns the record's key for a value; without it the incoming key is kept.
            options: See `SinkOptions`.
        """
        location = caller_location()
        with errors_at(location):
            endpoint = sink_endpoint(target, options)
            steps = sink_steps(
                target, key, (), self._node.value_type, options.get("value"), self._node.name
            )
        name = options.get("name") or self._topology.free_name(stage_name(default_name(endpoint)))
        self._topology.add(
            Node(
                name,
                "sink",
                steps,
                inputs=(self._node,),
                endpoint=endpoint,
                on_error=on_error_of(options),
                location=location,
            )
        )

    def _then(
        self, operator: Step, default_name: str, value_type: Any, options: StageOptions
    ) -> Stream[Any]:
        key_type = (self._node.key_type,) if self._node.is_keyed else None
        node = self._then_node(operator, default_name, value_type, options, key_type)
        # A value that is replaced or dropped leaves its record's key as it is.
        return KeyedStream(self._topology, node) if node.is_keyed else Stream(self._topology, node)

    def _then_node(
        self,
        operator: Step,
        default_name: str,
        value_type: Any,
        options: StageOptions,
        key_type: tuple[Any] | None = None,
    ) -> Node:
        """Add a stage; ``key_type`` has the type of its keys if it is keyed."""
        checked_options(options, StageOptions)
        node = Node(
            options.get("name") or self._topology.free_name(default_name),
            "stage",
            (operator,),
            inputs=(self._node,),
            on_error=on_error_of(options),
            location=caller_location(),
            value_type=value_type,
            is_keyed=key_type is not None,
            key_type=None if key_type is None else key_type[0],
        )
        return self._topology.add(node)


class KeyedStream(Stream[V_co], Generic[K_co, V_co]):
    """A stream whose records are grouped by a key; see `Stream.key_by`.

    Every stage that keeps a state has a name, which is the identity of the state: give it with
    ``name=`` if the function may be renamed. `map`, `filter` and `flat_map` keep the keys.
    """

    if TYPE_CHECKING:

        def map(
            self, function: Callable[[V_co], U], **options: Unpack[StageOptions]
        ) -> KeyedStream[K_co, U]: ...

        def filter(
            self, predicate: Callable[[V_co], bool], **options: Unpack[StageOptions]
        ) -> KeyedStream[K_co, V_co]: ...

        def flat_map(
            self, function: Callable[[V_co], Iterable[U]], **options: Unpack[StageOptions]
        ) -> KeyedStream[K_co, U]: ...

    def stateful(
        self,
        state_type: TypeForm[S],
        function: Callable[[V_co, State[S]], U | None],
        **options: Unpack[StatefulOptions],
    ) -> Stream[U]:
        """Call ``function`` with each value and the state of its key; drop the value for None.

        Args:
            state_type: The type of the value that is kept for each key.
            function: Gets the value and a `State`.
            options: See `StatefulOptions`.

        Raises:
            TopologyError: Values of ``state_type`` cannot be stored.
        """
        check_callable(function, "stateful", values=2)
        result = without_none(result_of(function, caller_scope()))
        return self._keeping(function, state_type, verb_name("stateful", function), result, options)

    def reduce(
        self, function: Callable[[V_co, V_co], V_co], **options: Unpack[StatefulOptions]
    ) -> Stream[V_co]:
        """Combine the values of each key: emit ``function(before, value)`` for each record.

        The first value of a key is emitted as it is.

        Raises:
            TopologyError: The type of the values is not known, or cannot be stored.
        """
        check_callable(function, "reduce", values=2)
        kind = self._node.value_type
        if kind is None:
            raise TopologyError(
                "reduce needs the type of the values, which is not known here",
                at=str(caller_location()),
                hint="annotate what the function of the stage before returns",
            )
        name = verb_name("reduce", function)
        with errors_at(caller_location()):
            combined = reducing(function, format_of(kind, name))
        return self._keeping(combined, kind, name, kind, options)

    def deduplicate(
        self, *, within: Duration | None = None, **options: Unpack[StageOptions]
    ) -> Stream[V_co]:
        """Keep the first record of each key, and drop all later ones.

        Args:
            within: Only drop records whose event time is less than this after the one that was
                kept; without it, keys are remembered for ever.
            options: See `StageOptions`.
        """
        kind = self._node.value_type
        checked_options(options, StageOptions)
        stateful: StatefulOptions = {
            "ttl": within,
            "name": options.get("name"),
            "on_error": options.get("on_error", "fail"),
        }
        return self._keeping(first_only, bool, "deduplicate", kind, stateful)

    @overload
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[[V_co, U], R],
        how: Literal["inner"] = "inner",
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]: ...
    @overload
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[[V_co, U | None], R],
        how: Literal["left"],
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]: ...
    @overload
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[[V_co | None, U | None], R],
        how: Literal["outer"],
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]: ...
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[..., R],
        how: How = "inner",
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]:
        """Pair records of the same key: close in event time, or in the same window.

        Args:
            other: The right side; it may be this stream.
            combine: Gets the values of a pair.
            how: ``inner`` emits pairs; ``left`` also the records of this stream that have found
                none, with None; ``outer`` those of both.
            options: See `JoinOptions`; ``within`` or ``window`` is needed.

        Raises:
            TopologyError: The type of the values is not known, or cannot be stored.
            UsageError: An option is not valid.
        """
        from streamkit.dataflow.join_stream import join

        check_keyed((other.node,), "join")
        return join(self._topology, (self._node, other.node), how, combine, options)

    def window(
        self,
        window: AnyWindow,
        *,
        late: Duration = 0,
        emit: Emit = "final",
        every: Duration | None = None,
    ) -> WindowedStream[K_co, V_co]:
        """Put the records of each key in windows, to aggregate them.

        Args:
            window: Such as ``Tumbling(hours=1)``; see `streamkit.windows`.
            late: How long a window waits for late records after its end, in event time.
            emit: ``final`` emits the result of a window once, when no record can change it any
                more. ``updates`` emits the present result of the window for each record, and
                nothing when the window closes.
            every: Also emit the present results of all open windows, each time the watermark
                enters another interval of this length. ``emit`` must be ``final``.

        Raises:
            UsageError: The window or an option is not valid.
        """
        from streamkit.dataflow.window_stream import WindowedStream

        late_ms = duration_ms(late, "late", least=0)
        emission = emission_of(check_window(window), late_ms, emit, every)
        return WindowedStream(self._topology, self._node, window, late_ms, emission)

    def _keeping(
        self,
        function: Callable[..., Any],
        state_type: Any,
        default_name: str,
        value_type: Any,
        options: StatefulOptions,
    ) -> Stream[Any]:
        checked_options(options, StatefulOptions)
        name = options.get("name") or self._topology.free_name(default_name)
        with errors_at(caller_location()):
            form, ttl_ms = stateful_form(state_type, name, options)
        step = Stateful(function, name, form, ttl_ms=ttl_ms)
        return self._then(step, name, value_type, stage_options({**options, "name": name}))


def late_stream(topology: Topology, node: Node) -> Stream[Any]:
    """Return the stream of the records that came too late for a node."""
    for each in topology.readers(node):
        if each.is_late:
            return Stream(topology, each)
    late = Node(
        f"{node.name}-late",
        "stage",
        (),
        inputs=(node,),
        location=caller_location(),
        value_type=_either([each.value_type for each in node.inputs if not each.is_table]),
        is_late=True,
    )
    return Stream(topology, topology.add(late))


def check_keyed(inputs: tuple[Node, ...], name: str) -> None:
    """Refuse a stage with a state whose input is not grouped by a key.

    Raises:
        TopologyError: With the input.
    """
    for each in inputs:
        if not each.is_keyed:
            raise TopologyError(
                f"the stage {name!r} keeps a state for each key, but {each.name!r} has no keys",
                hint=f"group it first: @app.stage({each.name.replace('-', '_')}.key_by(...))",
            )


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


def _either(kinds: list[Any]) -> Any:
    """Return the type of the values of several streams; None if one type is not known."""
    if any(kind is None for kind in kinds):
        return None
    try:
        return typing.Union[tuple(kinds)]  # noqa: UP007  # the types are known at run time only
    except TypeError:  # an annotation that is not a type, or not hashable
        return None
