"""Streams: the fluent face of the graph, and what decorated functions become."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, get_args

from streamkit.dataflow.endpoints import Connector, SinkWriter, TopicSink
from streamkit.dataflow.functions import caller_location
from streamkit.dataflow.operators import Filter, FlatMap, Map, SetKeys, Step, Unwrap
from streamkit.dataflow.topology import Location, Node, OnError, Topology, stage_name
from streamkit.errors import UsageError
from streamkit.record import Destination, Topic
from streamkit.serde.values import encode_key, encode_value, encoder_for

V_co = TypeVar("V_co", covariant=True)
U = TypeVar("U")
T = TypeVar("T")
P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


class Stream(Generic[V_co]):
    """What comes out of one stage. Each verb adds a stage and returns its output."""

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
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[U]:
        """Replace each value by what ``function`` makes of it; None is kept as a value."""
        return self._then(Map(function), name, "map", function, on_error)

    def filter(
        self,
        predicate: Callable[[V_co], bool],
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[V_co]:
        """Keep the records whose value satisfies ``predicate``."""
        kept: Stream[V_co] = self._then(
            Filter(predicate), name, "filter", predicate, on_error, self._node.value_type
        )
        return kept

    def flat_map(
        self,
        function: Callable[[V_co], Iterable[U]],
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[U]:
        """Replace each record by one for each value that ``function`` gives."""
        return self._then(FlatMap(function), name, "flat-map", function, on_error)

    def merge(self, *others: Stream[U], name: str | None = None) -> Stream[V_co | U]:
        """Join streams into one. Each keeps its order; between them there is none."""
        nodes = (self._node, *(other.node for other in others))
        node = Node(
            name or self._topology.free_name("merge"),
            "stage",
            (),
            inputs=nodes,
            location=caller_location(),
        )
        return Stream(self._topology, self._topology.add(node))

    def pipe(
        self, fragment: Callable[Concatenate[Stream[V_co], Q], U], *args: Q.args, **kwargs: Q.kwargs
    ) -> U:
        """Apply a function from Stream to Stream."""
        return fragment(self, *args, **kwargs)

    def to(
        self: Stream[T],
        target: str | Destination[T] | SinkWriter[T] | Connector,
        *,
        key: Callable[[T], bytes | str | None] | None = None,
        partitioner: Callable[..., Any] | None = None,
        batch_size: int | None = None,
        linger: float | timedelta | None = None,
        compression: Compression | None = None,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> None:
        """Write to a topic, or to a connector.

        Args:
            target: A topic by name or as `Topic`, or a connector object.
            key: Gives the record's key from the value; without it the incoming key is kept.
            partitioner: Chooses partitions for a column of keys.
            batch_size: Soft limit of a batch in bytes.
            linger: How long a batch may wait for more records; without it, until the chunk
                ends.
            compression: Left out, the topic's own, or none.
            name: The sink's name.
            on_error: What to do with a record that cannot be written: ``fail`` or ``skip``.
        """
        endpoint = sink_endpoint(target, partitioner, batch_size, linger, compression)
        add_sink(
            self._topology,
            self._node,
            endpoint,
            sink_steps(endpoint, key, (), self._node.value_type),
            name=name or self._topology.free_name(stage_name(_default_name(endpoint))),
            on_error=on_error,
            location=caller_location(),
        )

    def _then(
        self,
        operator: Step,
        name: str | None,
        verb: str,
        function: Callable[..., Any],
        on_error: OnError,
        value_type: Any = None,
    ) -> Stream[Any]:
        given = getattr(function, "__name__", "")
        default = verb if given in ("", "<lambda>") else stage_name(given)
        node = Node(
            name or self._topology.free_name(default),
            "stage",
            (operator,),
            inputs=(self._node,),
            on_error=checked_on_error(on_error),
            location=caller_location(),
            value_type=value_type,
        )
        return Stream(self._topology, self._topology.add(node))


class DecoratedFunction(Generic[P, R_co]):
    """A function that is a stage now, and can still be called as it was written."""

    def __init__(self, function: Callable[P, R_co]) -> None:
        self._function = function
        functools.update_wrapper(cast("Callable[P, R_co]", self), function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self._function(*args, **kwargs)


class Stage(DecoratedFunction[P, R_co], Stream[V_co], Generic[P, R_co, V_co]):
    """A decorated function: a `Stream` of its results, and the plain function when called."""

    def __init__(self, function: Callable[P, R_co], topology: Topology, node: Node) -> None:
        Stream.__init__(self, topology, node)
        DecoratedFunction.__init__(self, function)


class Sink(DecoratedFunction[P, R_co], Generic[P, R_co]):
    """A decorated function at the end of the graph. Nothing can read it."""

    def __init__(self, function: Callable[P, R_co], node: Node) -> None:
        super().__init__(function)
        self._node = node

    @property
    def node(self) -> Node:
        """The sink in the graph."""
        return self._node


def sink_endpoint(
    target: Any,
    partitioner: Callable[..., Any] | None,
    batch_size: int | None,
    linger: float | timedelta | None,
    compression: str | None,
) -> Any:
    """Turn what the user named into an endpoint."""
    if isinstance(target, str):
        target = Topic(target, partitions=0)
    if compression is not None and compression not in get_args(Compression):
        raise UsageError(
            f"no compression is called {compression!r}",
            hint=f"use {', '.join(get_args(Compression))}",
        )
    if isinstance(target, Topic):
        return TopicSink(
            target.name,
            target.partitions or None,
            partitioner,
            batch_size,
            linger.total_seconds() if isinstance(linger, timedelta) else linger,
            compression,
        )
    options = (partitioner, batch_size, linger, compression)
    if any(option is not None for option in options):
        raise UsageError(f"partitioner, batch_size, linger and compression are not for {target!r}")
    return target


def sink_steps(
    endpoint: Any,
    key: Callable[[Any], Any] | None,
    shaping: tuple[Step, ...],
    value_type: Any,
) -> tuple[Step, ...]:
    """Line up what happens to a record before it is written: key, shape, bytes."""
    keys = () if key is None else (SetKeys(_as_key(key)),)
    if not isinstance(endpoint, TopicSink):
        # A connector that writes bytes says how: a value it cannot write fails like a stage.
        encodes = hasattr(endpoint, "writer") and hasattr(endpoint, "encode")
        return (*keys, *shaping, *((Map(endpoint.encode),) if encodes else ()))
    encode = encoder_for(value_type) if value_type is not None else encode_value
    if shaping and encode is encode_value:
        return (*keys, *shaping, Unwrap(), Map(encode))
    return (*keys, *shaping, Map(encode))


def add_sink(
    topology: Topology,
    source: Node,
    endpoint: Any,
    operators: tuple[Step, ...],
    *,
    name: str,
    on_error: OnError,
    location: Location,
    input_type: Any = None,
) -> Node:
    """Add a sink that reads ``source``."""
    return topology.add(
        Node(
            name,
            "sink",
            operators,
            inputs=(source,),
            endpoint=endpoint,
            on_error=checked_on_error(on_error),
            location=location,
            input_type=input_type,
        )
    )


def checked_on_error(value: OnError) -> OnError:
    """Return a policy that exists.

    Raises:
        UsageError: It does not.
    """
    if value not in ("fail", "skip"):
        raise UsageError(f"on_error={value!r}", hint='use "fail" or "skip"')
    return value


def _as_key(key: Callable[[Any], Any]) -> Callable[[Any], bytes | None]:
    def as_bytes(value: Any) -> bytes | None:
        return encode_key(key(value))

    return as_bytes


def _default_name(endpoint: Any) -> str:
    if isinstance(endpoint, TopicSink):
        return f"to-{endpoint.topic}"[:60].rstrip("-")
    return type(endpoint).__name__
