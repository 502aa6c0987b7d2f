"""The front door: decorators build a graph, `run` hands it to a runner."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from streamkit.dataflow.decorators import (
    GivingDecorator,
    ShapingDecorator,
    SinkDecorator,
    StageDecorator,
    YieldsFrom,
    YieldsFromAsync,
)
from streamkit.dataflow.endpoints import (
    Connector,
    FunctionSink,
    FunctionSource,
    SinkWriter,
    TopicSource,
)
from streamkit.dataflow.functions import (
    FunctionFacts,
    caller_location,
    caller_module,
    caller_scope,
    facts_of,
)
from streamkit.dataflow.operators import (
    AsRecords,
    ContextFlatMap,
    ContextMapOrDrop,
    FlatMap,
    Map,
    MapOrDrop,
    Operator,
)
from streamkit.dataflow.stream import (
    Compression,
    Sink,
    Stage,
    Stream,
    add_sink,
    checked_on_error,
    sink_endpoint,
    sink_operators,
)
from streamkit.dataflow.topology import NAME_BYTES_MAX, Node, OnError, Topology, is_name, stage_name
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Offset, Record, Topic
from streamkit.serde.values import Serde, format_for, key_reader

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from streamkit.client.tls import Tls
    from streamkit.testing.job import TestJob

X = TypeVar("X")
Y = TypeVar("Y")
Z = TypeVar("Z")
V = TypeVar("V")
R = TypeVar("R")
Q = TypeVar("Q")
P = ParamSpec("P")

Start = Offset | Literal["beginning", "end"]
Isolation = Literal["read_committed", "read_uncommitted"]


class App:
    """A job: its graph, built by decorators and verbs, and its name.

    The name stands for the job's state, its consumer id and its folder.

    Args:
        name: 1 to 63 of ``a-z 0-9 -``.
        include: Modules that hold more of the graph, imported when the app is run.
    """

    def __init__(self, name: str, *, include: Sequence[str] = ()) -> None:
        if not is_name(name):
            raise UsageError(
                f"{name!r} cannot name an app",
                hint=f"use 1 to {NAME_BYTES_MAX} of a-z 0-9 -, such as {_possible_name(name)!r}",
            )
        self.name = name
        self.topology = Topology()
        self.location = caller_location()
        self._module = caller_module()
        self._include = tuple(include)

    # --- sources -------------------------------------------------------------------

    # A generator with `resume=None` fits two of these: the first one wins, as it should.
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
    def source(
        self,
        topic: str,
        /,
        *,
        start: Start = "beginning",
        partitions: Sequence[int] | None = None,
        isolation: Isolation | None = None,
        max_bytes: int | None = None,
        value: Serde | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> StageDecorator[Any]: ...
    @overload
    def source(
        self,
        topic: Topic[X],
        /,
        *,
        start: Start = "beginning",
        partitions: Sequence[int] | None = None,
        isolation: Isolation | None = None,
        max_bytes: int | None = None,
        value: Serde | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> StageDecorator[X]: ...
    def source(
        self,
        topic: Any,
        /,
        *,
        start: Any = "beginning",
        partitions: Sequence[int] | None = None,
        isolation: Isolation | None = None,
        max_bytes: int | None = None,
        value: Serde | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Any:
        """Read a topic, or a generator of one's own.

        On a function of one argument, ``@app.source("topic")`` reads a topic whose values are
        decoded to the annotated type. Bare, on a generator or async generator,
        ``@app.source`` makes a source of one's own; one with a parameter ``resume`` gets the
        last committed position and yields ``(position, value)``.

        Args:
            topic: A topic, by name or as `Topic`.
            start: Where to begin where nothing is committed yet.
            partitions: Which ones; all, if left out.
            isolation: Left out, the safe one for the topic's replication.
            max_bytes: Size of one response of a partition.
            value: A format of one's own.
            on_error: ``fail`` stops at a record that cannot be decoded or on which the
                function raises, ``skip`` counts it and goes on.
            name: The stage's name; the function's, if left out.

        Raises:
            TopologyError: The function cannot be a source; the text has its file and line.
        """
        scope = caller_scope()
        if callable(topic) and not isinstance(topic, Topic):
            return self._own_source(topic, scope, name)
        endpoint = _topic_source(topic, start, partitions, isolation, max_bytes)

        def decorate(function: Callable[..., Any]) -> Any:
            facts = facts_of(function, scope)
            _refuse_async(facts)
            wanted = facts.value_type
            if wanted is None:
                raise TopologyError(
                    f"the source {facts.name!r} does not say what its values are",
                    at=str(facts.location),
                    hint=f"annotate its parameter: def {facts.name}(row: Flight) -> Flight",
                )
            node = Node(
                name or stage_name(facts.name),
                "source",
                (*_reading(wanted, value, facts), _calling(function, facts)),
                endpoint=endpoint,
                on_error=checked_on_error(on_error),
                location=facts.location,
                value_type=facts.result_type,
            )
            return Stage(function, self.topology, self.topology.add(node))

        return decorate

    @overload
    def stream(
        self,
        topic: str,
        type: TypeForm[X],
        *,
        start: Start = "beginning",
        partitions: Sequence[int] | None = None,
        isolation: Isolation | None = None,
        max_bytes: int | None = None,
        value: Serde | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Stream[X]: ...
    @overload
    def stream(
        self,
        topic: Topic[X],
        *,
        start: Start = "beginning",
        partitions: Sequence[int] | None = None,
        isolation: Isolation | None = None,
        max_bytes: int | None = None,
        value: Serde | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Stream[X]: ...
    def stream(
        self,
        topic: Any,
        type: Any = None,
        *,
        start: Any = "beginning",
        partitions: Sequence[int] | None = None,
        isolation: Isolation | None = None,
        max_bytes: int | None = None,
        value: Serde | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Any:
        """Read a topic without a function; options as `source`.

        Args:
            topic: A topic, by name or as `Topic`.
            type: What its values are decoded to.
        """
        location = caller_location()
        if type is None and isinstance(topic, Topic):
            type = topic.type
        if type is None:
            raise TopologyError(
                f"the stream of {topic!r} does not say what its values are",
                at=str(location),
                hint='name their type: app.stream("flights", Flight)',
            )
        endpoint = _topic_source(topic, start, partitions, isolation, max_bytes)
        node = Node(
            name or self.topology.free_name(endpoint.topic),
            "source",
            _reading(type, value, None),
            endpoint=endpoint,
            on_error=checked_on_error(on_error),
            location=location,
            value_type=type,
        )
        return Stream(self.topology, self.topology.add(node))

    def _own_source(
        self, function: Callable[..., Any], scope: dict[str, Any], name: str | None
    ) -> Any:
        facts = facts_of(function, scope)
        if facts.kind not in ("flat_map", "async_flat_map"):
            raise TopologyError(
                f"@app.source without a topic needs a generator, {facts.name!r} is none",
                at=str(facts.location),
                hint='name the topic, @app.source("flights"), or yield the values',
            )
        endpoint = FunctionSource(function)
        wanted = [
            each.name
            for each in inspect.signature(function).parameters.values()
            if each.default is each.empty and each.name != "resume"
        ]
        if wanted:
            raise TopologyError(
                f"the generator {facts.name!r} takes {', '.join(wanted)}",
                at=str(facts.location),
                hint="a source of one's own takes nothing, or one parameter called `resume`",
            )
        node = Node(
            name or stage_name(facts.name),
            "source",
            (),
            endpoint=endpoint,
            location=facts.location,
            value_type=None if endpoint.is_replayable else facts.result_type,
        )
        return Stage(function, self.topology, self.topology.add(node))

    # --- stages --------------------------------------------------------------------

    @overload
    def stage(
        self, stream: Stream[X], /, *, on_error: OnError = "fail", name: str | None = None
    ) -> StageDecorator[X]: ...
    @overload
    def stage(
        self,
        stream: Stream[X],
        /,
        *others: Stream[Any],
        gives: TypeForm[V],
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> GivingDecorator[X, V]: ...
    @overload
    def stage(
        self,
        stream: Stream[X],
        other: Stream[Y],
        /,
        *,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> StageDecorator[X | Y]: ...
    @overload
    def stage(
        self,
        stream: Stream[X],
        other: Stream[Y],
        third: Stream[Z],
        /,
        *more: Stream[Any],
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> StageDecorator[X | Y | Z]: ...
    def stage(
        self,
        *streams: Stream[Any],
        gives: Any = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Any:
        """Work on a stream, or on several merged into one.

        On a function, its result takes the place of the value and None drops the record; on a
        generator, each value it yields becomes a record. A second parameter annotated
        `Context` is told where the record comes from.

        Args:
            streams: What to read.
            gives: The value type, where a function returns a union of classes.
            on_error: ``fail`` stops at a record on which the function raises, ``skip`` counts
                it and goes on.
            name: The stage's name; the function's, if left out.

        Raises:
            TopologyError: The function cannot be a stage; the text has its file and line.
        """
        scope = caller_scope()
        location = caller_location()
        nodes = _input_nodes(streams, "stage", str(location))

        def decorate(function: Callable[..., Any]) -> Any:
            facts = facts_of(function, scope)
            _refuse_async(facts)
            _check_parameters(facts, "stage")
            node = Node(
                name or stage_name(facts.name),
                "stage",
                (_calling(function, facts),),
                inputs=nodes,
                on_error=checked_on_error(on_error),
                location=facts.location,
                value_type=facts.result_type if gives is None else gives,
                input_type=facts.value_type if len(nodes) == 1 else None,
            )
            return Stage(function, self.topology, self.topology.add(node))

        return decorate

    # --- sinks ---------------------------------------------------------------------

    @overload
    def sink(
        self, stream: Stream[X], /, *, on_error: OnError = "fail", name: str | None = None
    ) -> SinkDecorator[X]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        batch: int,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> SinkDecorator[list[X]]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: Topic[Y],
        key: Callable[[X], bytes | str | None] | None = None,
        partitioner: Callable[..., Any] | None = None,
        batch_size: int | None = None,
        linger: float | timedelta | None = None,
        compression: Compression | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> ShapingDecorator[X, Y | Record[Y] | Record[bytes]]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: SinkWriter[Y],
        key: Callable[[X], bytes | str | None] | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> ShapingDecorator[X, Y]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: str | Connector,
        key: Callable[[X], bytes | str | None] | None = None,
        partitioner: Callable[..., Any] | None = None,
        batch_size: int | None = None,
        linger: float | timedelta | None = None,
        compression: Compression | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> ShapingDecorator[X, Any]: ...
    def sink(
        self,
        stream: Stream[Any],
        /,
        *,
        to: Any = None,
        key: Callable[[Any], Any] | None = None,
        partitioner: Callable[..., Any] | None = None,
        batch_size: int | None = None,
        linger: float | timedelta | None = None,
        compression: Compression | None = None,
        batch: int | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Any:
        """Write a stream somewhere.

        With ``to`` the function shapes the value that is written, and None drops the record;
        it may return a `Record` for full control. Without ``to`` the function is the sink,
        called per record, or with whole lists under ``batch``.

        Args:
            stream: What to write.
            to: A topic, by name or as `Topic`, or a connector object.
            key: Gives the record's key from the stream's value.
            partitioner: Chooses partitions for a column of keys.
            batch_size: Soft limit of a batch in bytes.
            linger: How long a batch may wait; without it, until the chunk ends.
            compression: Left out, the topic's own, or none.
            batch: Most records per call of a sink of one's own.
            on_error: ``fail`` stops at a record on which the function raises, ``skip`` counts
                it and goes on.
            name: The sink's name; the function's, if left out.

        Raises:
            TopologyError: The function cannot be a sink; the text has its file and line.
        """
        scope = caller_scope()
        location = caller_location()
        (node,) = _input_nodes((stream,), "sink", str(location))
        if batch is not None and (to is not None or batch < 1):
            raise UsageError(f"batch={batch} is for a sink of one's own, and counts from 1 up")

        def decorate(function: Callable[..., Any]) -> Any:
            facts = facts_of(function, scope)
            _check_parameters(facts, "sink")
            if to is None:
                _check_own_sink(facts)
                endpoint: Any = FunctionSink(function, batch)
                operators: tuple[Operator, ...] = sink_operators(endpoint, key, (), None)
            else:
                _refuse_async(facts)
                if facts.returns_none:
                    raise TopologyError(
                        f"the sink {facts.name!r} returns nothing, so nothing would be written",
                        at=str(facts.location),
                        hint="return the value to write, or leave out to=",
                    )
                endpoint = sink_endpoint(to, partitioner, batch_size, linger, compression)
                shaping = (_calling(function, facts),)
                operators = sink_operators(endpoint, key, shaping, facts.result_type)
            added = add_sink(
                self.topology,
                node,
                endpoint,
                operators,
                name=name or stage_name(facts.name),
                on_error=on_error,
                location=facts.location,
                input_type=None if batch else facts.value_type,
            )
            return Sink(function, added)

        return decorate

    # --- use -----------------------------------------------------------------------

    def load(self) -> None:
        """Import the included modules, which add their part of the graph.

        Raises:
            TopologyError: One of them cannot be imported.
        """
        from streamkit.loading.imports import import_named, is_missing

        for module in self._include:
            if is_missing(module):
                raise TopologyError(f"include names {module!r}, which is not there")
            import_named(module, module)

    def check(self) -> None:
        """Refuse a graph that cannot run.

        Raises:
            TopologyError: With the user's file and line.
        """
        self.load()
        self._refuse_a_twin()
        self.topology.check()

    def _refuse_a_twin(self) -> None:
        """Say that the file of an app was imported under two names, which made two apps of it."""
        for name, module in list(sys.modules.items()):
            if not _is_of_file(module, self.location.file):
                continue
            for other in list(vars(module).values()):
                if isinstance(other, App) and self._is_twin(other):
                    raise TopologyError(
                        f"the app {self.name!r} is there twice, in {self._module} and in {name}: "
                        "its file was run and imported, and each has a part of the graph",
                        at=str(self.location),
                        hint=f"run it by its module's name: streamkit run {name}",
                    )

    def _is_twin(self, other: App) -> bool:
        return (
            other.name == self.name
            and other._module != self._module
            and os.path.realpath(other.location.file) == os.path.realpath(self.location.file)
        )

    def test(self) -> TestJob:
        """Run the graph in memory, without a broker and without waiting.

        Use it with ``with``: ``job.send(stream, *values)``, then ``job.output(stream)``.
        """
        from streamkit.testing.job import TestJob

        self.load()
        return TestJob(self.topology)

    def run(
        self,
        *,
        cluster: str | None = None,
        profile: str | None = None,
        embedded: bool = False,
        tls: Tls | None = None,
        data_dir: str | Path | None = None,
        once: bool = False,
        fresh_state: bool = False,
        create_topics: bool = False,
        commit_interval: float | timedelta = 1.0,
        stop_deadline: float | timedelta = 25.0,
        json: bool = False,
        settings: dict[str, str] | None = None,
    ) -> int:
        """Run the job until it ends or is signalled; return the exit code.

        Options as those of `streamkit run`, which this does not read from ``sys.argv``.
        """
        from streamkit.loading.imports import LoadingStopped, is_loading
        from streamkit.run import RunOptions, run_app
        from streamkit.where import data_folder

        if is_loading():
            raise LoadingStopped(self)
        options = RunOptions(
            cluster=cluster,
            profile=profile,
            embedded=embedded,
            tls=tls,
            data_dir=None if data_dir is None else data_folder(data_dir),
            once=once,
            fresh_state=fresh_state,
            create_topics=create_topics,
            commit_interval_s=_seconds(commit_interval),
            stop_deadline_s=_seconds(stop_deadline),
            json=json,
            settings=settings or {},
        )
        return run_app(self, options)


def _is_of_file(module: object, file: str) -> bool:
    other = getattr(module, "__file__", None)
    return isinstance(other, str) and os.path.realpath(other) == os.path.realpath(file)


def _possible_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "my-job"


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _topic_source(
    topic: Any,
    start: Any,
    partitions: Sequence[int] | None,
    isolation: str | None,
    max_bytes: int | None,
) -> TopicSource:
    name = topic.name if isinstance(topic, Topic) else topic
    if not isinstance(name, str):
        raise UsageError(f"{topic!r} is no topic", hint="name it, or give a Topic")
    chosen = None if partitions is None else tuple(partitions)
    return TopicSource(name, Offset.parse(start), chosen, isolation, max_bytes)


def _input_nodes(streams: Iterable[Any], what: str, at: str) -> tuple[Node, ...]:
    nodes = []
    for stream in streams:
        if not isinstance(stream, Stream):
            is_sink = isinstance(stream, Sink)
            given = "a sink, which nothing can read" if is_sink else repr(stream)
            raise TopologyError(
                f"@app.{what} reads a stream, this is {given}",
                at=at,
                hint="give it the name of a source or stage, without calling it",
            )
        nodes.append(stream.node)
    if not nodes:
        raise TopologyError(f"@app.{what} needs the stream it reads: @app.{what}(flights)", at=at)
    return tuple(nodes)


def _refuse_async(facts: FunctionFacts) -> None:
    if facts.kind in ("async", "async_flat_map"):
        raise TopologyError(
            f"{facts.name!r} is an async function; stages are plain functions or generators",
            at=str(facts.location),
            hint="use a plain function here; sources and sinks of one's own may be async",
        )


def _check_parameters(facts: FunctionFacts, what: str) -> None:
    if facts.parameters == 0 and facts.location.line:
        raise TopologyError(
            f"the {what} {facts.name!r} takes nothing, it must take the value",
            at=str(facts.location),
        )


def _check_own_sink(facts: FunctionFacts) -> None:
    if facts.kind in ("flat_map", "async_flat_map"):
        raise TopologyError(
            f"the sink {facts.name!r} is a generator, so what it does would never be done",
            at=str(facts.location),
            hint="do the work without yield, or say with to= where the values go",
        )
    if facts.takes_context:
        raise TopologyError(
            f"the sink {facts.name!r} takes a context, a sink of one's own gets the value alone",
            at=str(facts.location),
            hint="put what it needs of the context into the value, in a stage before it",
        )


def _reading(wanted: Any, value: Serde | None, facts: FunctionFacts | None) -> tuple[Operator, ...]:
    """Line up what turns the bytes of a topic into what the source's function takes."""
    try:
        found = format_for(wanted)
    except TopologyError as error:
        at = str(facts.location) if facts else str(caller_location())
        raise TopologyError(str(error), at=at, hint=error.hint) from None
    loads = value.loads if value is not None else found.loads
    operators: list[Operator] = [] if loads is None else [Map(loads)]
    if found.as_record:
        operators.append(AsRecords())
    return tuple(operators)


def _calling(function: Callable[..., Any], facts: FunctionFacts) -> Operator:
    """Choose what calls a function of the user's over a column."""
    if facts.takes_context:
        try:
            key_of = key_reader(facts.key_type)
        except TopologyError as error:
            raise TopologyError(str(error), at=str(facts.location), hint=error.hint) from None
        if facts.kind == "flat_map":
            return ContextFlatMap(function, key_of)
        return ContextMapOrDrop(function, key_of)
    return FlatMap(function) if facts.kind == "flat_map" else MapOrDrop(function)
