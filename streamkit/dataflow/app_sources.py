"""The sources of an app: topics, generators, and tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from streamkit.dataflow.callers import caller_location, caller_scope
from streamkit.dataflow.contracts import Source
from streamkit.dataflow.decorated import source_node, undecorated
from streamkit.dataflow.decorated_function import Stage
from streamkit.dataflow.decorators import (
    GeneratorDecorator,
    StageDecorator,
    YieldsFrom,
    YieldsFromAsync,
)
from streamkit.dataflow.endpoints import FileTable
from streamkit.dataflow.functions import facts_of
from streamkit.dataflow.join_stream import Table
from streamkit.dataflow.options import (
    GeneratorOptions,
    SourceOptions,
    checked_options,
    on_error_of,
    timing_of,
    topic_options,
)
from streamkit.dataflow.sources import (
    connector_steps,
    generator_node,
    reading_steps,
    table_steps,
    topic_source,
    typed_source,
)
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Topic

if TYPE_CHECKING:
    from typing_extensions import TypeForm

X = TypeVar("X")
V = TypeVar("V")
R = TypeVar("R")
Q = TypeVar("Q")
P = ParamSpec("P")


class AppSources:
    """The part of an `App` that adds sources to its graph."""

    topology: Topology

    # A generator with `resume=None` matches two of these. Type checkers use the first, as intended.
    @overload
    def source(self, function: YieldsFrom[P, R, Q, V], /) -> Stage[P, R, V]: ...  # type: ignore[overload-overlap]
    @overload
    def source(self, function: YieldsFromAsync[P, R, Q, V], /) -> Stage[P, R, V]: ...  # type: ignore[overload-overlap]
    @overload
    def source(self, function: Callable[[], Iterator[V]], /) -> Stage[[], Iterator[V], V]: ...
    @overload
    def source(
        self, function: Callable[[], AsyncIterator[V]], /
    ) -> Stage[[], AsyncIterator[V], V]: ...
    @overload
    def source(self, /, **options: Unpack[GeneratorOptions]) -> GeneratorDecorator: ...
    @overload
    def source(
        self,
        topic: str,
        /,
        **options: Unpack[SourceOptions],
    ) -> StageDecorator[Any]: ...
    @overload
    def source(
        self,
        topic: Topic[X],
        /,
        **options: Unpack[SourceOptions],
    ) -> StageDecorator[X]: ...
    @overload
    def source(
        self,
        connector: Source[X],
        /,
        **options: Unpack[SourceOptions],
    ) -> StageDecorator[X]: ...
    def source(
        self,
        topic: Any = None,
        /,
        **options: Unpack[SourceOptions],
    ) -> Any:
        """Read a topic, a connector, or the values of a generator.

        ``@app.source("topic")`` on a function of one parameter reads a topic: each value is
        decoded to the annotated type and given to the function. So does a connector such as
        ``@app.source(Files("in/*.csv", Csv()))``. ``@app.source`` without
        parentheses, on a generator or async generator, reads what it yields. A generator with a
        parameter ``resume`` gets the last committed position and yields ``(position, value)``;
        ``@app.source(event_time=...)`` gives options to one.

        Args:
            topic: A topic, by name or as `Topic`, or a connector.
            options: See `SourceOptions`.

        Raises:
            TopologyError: The function cannot be a source; the message shows its file and line.
        """
        scope = caller_scope()
        if topic is None or (callable(topic) and not isinstance(topic, Topic)):
            checked_options(options, SourceOptions)
            if names := topic_options(options):
                raise UsageError(
                    f"{', '.join(names)}: only a topic has this option",
                    hint='name the topic: @app.source("flights")',
                )

            def decorate_generator(generator: Any) -> Any:
                function = undecorated(generator)
                node = generator_node(function, facts_of(function, scope), scope, options)
                return Stage(function, self.topology, self.topology.add(node))

            return decorate_generator if topic is None else decorate_generator(topic)
        is_connector = isinstance(topic, Source)
        endpoint = topic if is_connector else topic_source(topic, options)

        def decorate(function: Callable[..., Any]) -> Any:
            node = source_node(undecorated(function), scope, endpoint, options)
            return Stage(undecorated(function), self.topology, self.topology.add(node))

        return decorate

    @overload
    def stream(
        self,
        topic: str,
        type: TypeForm[X],
        **options: Unpack[SourceOptions],
    ) -> Stream[X]: ...
    @overload
    def stream(
        self,
        topic: Topic[X],
        **options: Unpack[SourceOptions],
    ) -> Stream[X]: ...
    @overload
    def stream(
        self,
        topic: Source[Any],
        type: TypeForm[X],
        **options: Unpack[SourceOptions],
    ) -> Stream[X]: ...
    @overload
    def stream(
        self,
        topic: Source[X],
        **options: Unpack[SourceOptions],
    ) -> Stream[X]: ...
    def stream(
        self,
        topic: Any,
        type: Any = None,
        **options: Unpack[SourceOptions],
    ) -> Any:
        """Read a topic or a connector without a function.

        Args:
            topic: A topic, by name or as `Topic`, or a connector.
            type: The type that values are decoded to.
            options: See `SourceOptions`.

        Raises:
            TopologyError: The type is missing or cannot be decoded.
        """
        location = caller_location()
        if type is None and isinstance(topic, Topic):
            type = topic.type
        if type is None and isinstance(topic, Source):
            type = topic.value_type
        if type is None:
            raise TopologyError(
                f"the values of the stream {topic!r} have no type",
                at=str(location),
                hint='give their type: app.stream("flights", Flight)',
            )
        endpoint: Any = topic
        key_format = None
        if isinstance(topic, Source):
            default = topic.name
            key_format = options.get("key_format")
            steps = connector_steps(topic, type, options, location)
        else:
            endpoint = typed_source(topic_source(topic, options), type, location)
            default, steps = endpoint.topic, reading_steps(type, endpoint, options, location)
        node = Node(
            options.get("name") or self.topology.free_name(default),
            "source",
            steps,
            endpoint=endpoint,
            on_error=on_error_of(options),
            location=location,
            value_type=type,
            input_type=type,
            timing=timing_of(options),
            key_format=key_format,
        )
        return Stream(self.topology, self.topology.add(node))

    @overload
    def table(
        self,
        rows: str | FileTable,
        type: TypeForm[X],
        *,
        key: Callable[[X], object] | None = None,
        **options: Unpack[SourceOptions],
    ) -> Table[X]: ...
    @overload
    def table(
        self,
        rows: Topic[X],
        *,
        key: Callable[[X], object] | None = None,
        **options: Unpack[SourceOptions],
    ) -> Table[X]: ...
    def table(
        self,
        rows: Any,
        type: Any = None,
        *,
        key: Callable[[Any], object] | None = None,
        **options: Unpack[SourceOptions],
    ) -> Any:
        """Keep the latest value of each key of a topic or a small file, for `Stream.lookup`.

        The table is read to its end before the streams of the job begin. A topic is followed
        after that; a record with an empty value deletes its key. A file is read at each start.

        Args:
            rows: A topic, by name or as `Topic`, or a file: see `streamkit.connectors.tables`.
            type: The type that rows are decoded to.
            key: Returns the key of a row; by default the key of its record.
            options: See `SourceOptions`.

        Raises:
            TopologyError: The type is missing or cannot be stored, or a file has no ``key``.
        """
        location = caller_location()
        kind = rows.type if type is None and isinstance(rows, Topic) else type
        if kind is None:
            raise TopologyError(
                f"the rows of the table {rows!r} have no type",
                at=str(location),
                hint='give their type: app.table("customers", Customer)',
            )
        is_file = isinstance(rows, FileTable)
        checked_options(options, SourceOptions)
        if is_file and (names := topic_options(options)):
            raise UsageError(f"{', '.join(names)}: only a topic has this option")
        topic = None if is_file else typed_source(topic_source(rows, options), kind, location)
        default = rows.name if topic is None else topic.topic
        name = options.get("name") or self.topology.free_name(default)
        node = Node(
            name,
            "source",
            table_steps(name, kind, key, options, topic, location),
            endpoint=rows if topic is None else topic,
            on_error=on_error_of(options),
            location=location,
            value_type=kind,
            input_type=kind,
            timing=timing_of(options),
            is_table=True,
        )
        return Table(self.topology, self.topology.add(node))
