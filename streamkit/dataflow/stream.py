"""`Stream`: the output of a stage, with the methods that add more stages."""

from __future__ import annotations

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
    overload,
)

from streamkit.dataflow.callers import caller_location, caller_scope
from streamkit.dataflow.calling import called_object
from streamkit.dataflow.endpoints import CustomSink
from streamkit.dataflow.functions import check_callable, errors_at, result_of, verb_name
from streamkit.dataflow.keys import KeyBy
from streamkit.dataflow.lookup_tables import LookupTable
from streamkit.dataflow.operators import Filter, FlatMap, Map
from streamkit.dataflow.options import (
    SinkOptions,
    StageOptions,
    checked_options,
    on_error_of,
)
from streamkit.dataflow.sinks import KeyOption, default_name, sink_endpoint, sink_steps
from streamkit.dataflow.steps import Step
from streamkit.dataflow.topology import Node, Topology, stage_name
from streamkit.record import Destination
from streamkit.serde.binding import Serde

if TYPE_CHECKING:
    from streamkit.dataflow.join_stream import (
        LookupOptions,
        LookupResults,
        Table,
    )
    from streamkit.dataflow.keyed_stream import KeyedStream
    from streamkit.dataflow.row_lookup import RowLookupOptions

V_co = TypeVar("V_co", covariant=True)
U = TypeVar("U")
K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")
Q = ParamSpec("Q")


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
        from streamkit.dataflow.keyed_stream import KeyedStream

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
    @overload
    def lookup(
        self,
        table: LookupTable,
        *,
        on: Callable[[V_co], object],
        combine: Callable[[V_co, U], R],
        how: Literal["inner"] = "inner",
        row_type: type[U] | None = None,
        **options: Unpack[RowLookupOptions],
    ) -> Stream[R]: ...
    @overload
    def lookup(
        self,
        table: LookupTable,
        *,
        on: Callable[[V_co], object],
        combine: Callable[[V_co, U | None], R],
        how: Literal["left"],
        row_type: type[U] | None = None,
        **options: Unpack[RowLookupOptions],
    ) -> Stream[R]: ...
    def lookup(
        self,
        table: Table[U] | LookupTable,
        *,
        on: Callable[[V_co], object],
        combine: Callable[..., R],
        how: Literal["inner", "left"] = "inner",
        **options: Any,
    ) -> Any:
        """Combine each value with the row of a table.

        Args:
            table: See `App.table`; or a table that is queried where it is, such as `SqlTable`.
            on: Returns the key of the row for a value.
            combine: Gets the value and the row, which must not be changed.
            how: ``inner`` drops a record without a row; ``left`` gives None for it.
            options: See `LookupOptions`, or `RowLookupOptions` for a table that is queried.

        Raises:
            TopologyError: With ``as_of``: the type of the values is not known, or cannot be stored.
                The type of the rows of a table that is queried is not known.
            UsageError: An option is not valid.
        """
        from streamkit.dataflow.join_stream import lookup
        from streamkit.dataflow.row_lookup import row_lookup

        given: Any = options  # the overloads say which they are
        if isinstance(table, LookupTable):
            return row_lookup(self._topology, self._node, table, how, (on, combine), given)
        return lookup(self._topology, self._node, table, how, (on, combine), given)

    def pipe(
        self, fragment: Callable[Concatenate[Stream[V_co], Q], U], *args: Q.args, **kwargs: Q.kwargs
    ) -> U:
        """Call ``fragment`` with this stream; return its result."""
        return fragment(self, *args, **kwargs)

    @overload
    def to(
        self: Stream[T],
        target: str | Destination[T],
        *,
        key: Callable[[T], object],
        key_format: Serde,
        **options: Unpack[SinkOptions],
    ) -> None: ...
    @overload
    def to(
        self: Stream[T],
        target: str | Destination[T] | CustomSink[T],
        *,
        key: Callable[[T], bytes | str | None] | None = None,
        **options: Unpack[SinkOptions],
    ) -> None: ...
    def to(
        self: Stream[T],
        target: str | Destination[T] | CustomSink[T],
        *,
        key: Callable[[T], object] | None = None,
        key_format: Serde | None = None,
        **options: Unpack[SinkOptions],
    ) -> None:
        """Write to a topic, or to a connector.

        Args:
            target: A topic by name or as `Topic`, or a connector object.
            key: Returns the record's key for a value; without it the incoming key is kept.
            key_format: The format of the keys, for a topic. Without it, they are bytes, text or
                None.
            options: See `SinkOptions`.
        """
        location = caller_location()
        checked_options(options, SinkOptions)
        policy = on_error_of(options)
        with errors_at(location):
            endpoint = sink_endpoint(target, options)
            steps = sink_steps(
                target,
                KeyOption(key, key_format),
                (),
                self._node.value_type,
                options.get("value"),
                self._node.name,
            )
            called = called_object(endpoint, policy)
            steps = steps if called is None else (*steps, called)
        name = options.get("name") or self._topology.free_name(stage_name(default_name(endpoint)))
        self._topology.add(
            Node(
                name,
                "sink",
                steps,
                inputs=(self._node,),
                endpoint=endpoint,
                on_error=policy,
                location=location,
                value_type=self._node.value_type,
            )
        )

    def _then(
        self, operator: Step, default_name: str, value_type: Any, options: StageOptions
    ) -> Stream[Any]:
        from streamkit.dataflow.keyed_stream import KeyedStream

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


def _either(kinds: list[Any]) -> Any:
    """Return the type of the values of several streams; None if one type is not known."""
    if any(kind is None for kind in kinds):
        return None
    try:
        return typing.Union[tuple(kinds)]  # noqa: UP007  # the types are known at run time only
    except TypeError:  # an annotation that is not a type, or not hashable
        return None
