"""The front door: decorators build a graph, `run` hands it to a runner."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, get_args, overload

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
    blamed_on,
    caller_location,
    caller_module,
    caller_scope,
    check_parameters,
    facts_of,
    resume_type_of,
)
from streamkit.dataflow.operators import (
    AsRecords,
    ContextFlatMap,
    ContextMapOrDrop,
    FlatMap,
    Map,
    MapOrDrop,
    Step,
)
from streamkit.dataflow.options import TopicSinkOptions, TopicSourceOptions, checked_options
from streamkit.dataflow.sinks import sink_endpoint, sink_steps
from streamkit.dataflow.stream import (
    DecoratedFunction,
    Sink,
    Stage,
    Stream,
    add_sink,
    checked_on_error,
)
from streamkit.dataflow.topology import (
    NAME_BYTES_MAX,
    Location,
    Node,
    OnError,
    Topology,
    is_name,
    stage_name,
)
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Offset, Record, Topic
from streamkit.serde.values import format_for, key_reader

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from streamkit.run import RunKeywords, RunOptions
    from streamkit.testing.job import TestJob

X = TypeVar("X")
Y = TypeVar("Y")
Z = TypeVar("Z")
V = TypeVar("V")
R = TypeVar("R")
Q = TypeVar("Q")
P = ParamSpec("P")


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
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSourceOptions],
    ) -> StageDecorator[Any]: ...
    @overload
    def source(
        self,
        topic: Topic[X],
        /,
        *,
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSourceOptions],
    ) -> StageDecorator[X]: ...
    def source(
        self,
        topic: Any,
        /,
        *,
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSourceOptions],
    ) -> Any:
        """Read a topic, or a generator of one's own.

        On a function of one argument, ``@app.source("topic")`` reads a topic whose values are
        decoded to the annotated type. Bare, on a generator or async generator,
        ``@app.source`` makes a source of one's own; one with a parameter ``resume`` gets the
        last committed position and yields ``(position, value)``.

        Args:
            topic: A topic, by name or as `Topic`.
            on_error: ``fail`` stops at a record that cannot be decoded or on which the
                function raises, ``skip`` counts it and goes on.
            name: The stage's name; the function's, if left out.
            options: How to read a topic.

        Raises:
            TopologyError: The function cannot be a source; the text has its file and line.
        """
        scope = caller_scope()
        if callable(topic) and not isinstance(topic, Topic):
            if options:
                raise UsageError(f"{', '.join(options)}: only for topics; name a topic first")
            return self._own_source(topic, scope, name)
        endpoint = _topic_source(topic, options)

        def decorate(function: Callable[..., Any]) -> Any:
            function = _undecorated(function)
            facts = facts_of(function, scope)
            _refuse_async(facts)
            check_parameters(function, facts, "source")
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
                (*_reading(wanted, options, facts.location), _calling(function, facts)),
                endpoint=endpoint,
                on_error=checked_on_error(on_error),
                location=facts.location,
                value_type=_result_type(facts, wanted),
                input_type=wanted,
            )
            return Stage(function, self.topology, self.topology.add(node))

        return decorate

    @overload
    def stream(
        self,
        topic: str,
        type: TypeForm[X],
        *,
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSourceOptions],
    ) -> Stream[X]: ...
    @overload
    def stream(
        self,
        topic: Topic[X],
        *,
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSourceOptions],
    ) -> Stream[X]: ...
    def stream(
        self,
        topic: Any,
        type: Any = None,
        *,
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSourceOptions],
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
        endpoint = _topic_source(topic, options)
        node = Node(
            name or self.topology.free_name(endpoint.topic),
            "source",
            _reading(type, options, location),
            endpoint=endpoint,
            on_error=checked_on_error(on_error),
            location=location,
            value_type=type,
            input_type=type,
        )
        return Stream(self.topology, self.topology.add(node))

    def _own_source(
        self, function: Callable[..., Any], scope: dict[str, Any], name: str | None
    ) -> Any:
        function = _undecorated(function)
        facts = facts_of(function, scope)
        if facts.kind not in ("flat_map", "async_flat_map"):
            raise TopologyError(
                f"@app.source without a topic needs a generator, {facts.name!r} is none",
                at=str(facts.location),
                hint='name the topic, @app.source("flights"), or yield the values',
            )
        endpoint = FunctionSource(function, resume_type_of(function, scope), str(facts.location))
        wanted = [
            each.name
            for each in inspect.signature(function).parameters.values()
            if each.default is each.empty
            and (each.name != "resume" or each.kind is each.POSITIONAL_ONLY)
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
            value_type=_yielded(facts.result_type, has_positions=endpoint.is_replayable),
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
        output_type: TypeForm[V],
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
        output_type: Any = None,
        on_error: OnError = "fail",
        name: str | None = None,
    ) -> Any:
        """Work on a stream, or on several merged into one.

        On a function, its result takes the place of the value and None drops the record; on a
        generator, each value it yields becomes a record. A second parameter annotated
        `Context` is told where the record comes from.

        Args:
            streams: What to read.
            output_type: The value type, where a function returns a union of classes.
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
            function = _undecorated(function)
            facts = facts_of(function, scope)
            _refuse_async(facts)
            check_parameters(function, facts, "stage")
            given = nodes[0].value_type if len(nodes) == 1 else None
            node = Node(
                name or stage_name(facts.name),
                "stage",
                (_calling(function, facts),),
                inputs=nodes,
                on_error=checked_on_error(on_error),
                location=facts.location,
                value_type=_result_type(facts, given) if output_type is None else output_type,
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
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSinkOptions],
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
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSinkOptions],
    ) -> ShapingDecorator[X, Any]: ...
    def sink(
        self,
        stream: Stream[Any],
        /,
        *,
        to: Any = None,
        key: Callable[[Any], Any] | None = None,
        batch: int | None = None,
        on_error: OnError = "fail",
        name: str | None = None,
        **options: Unpack[TopicSinkOptions],
    ) -> Any:
        """Write a stream somewhere.

        With ``to`` the function shapes the value that is written, and None drops the record;
        it may return a `Record` for full control. Without ``to`` the function is the sink,
        called per record, or with whole lists under ``batch``.

        Args:
            stream: What to write.
            to: A topic, by name or as `Topic`, or a connector object.
            key: Gives the record's key from the stream's value.
            batch: Most records per call of a sink of one's own.
            on_error: ``fail`` stops at a record on which the function raises, ``skip`` counts
                it and goes on.
            name: The sink's name; the function's, if left out.
            options: How to write a topic.

        Raises:
            TopologyError: The function cannot be a sink; the text has its file and line.
        """
        scope = caller_scope()
        location = caller_location()
        (node,) = _input_nodes((stream,), "sink", str(location))
        if batch is not None and (to is not None or batch < 1):
            raise UsageError(f"batch={batch} is for a sink of one's own, and counts from 1 up")

        checked_options(options, TopicSinkOptions)
        if options and to is None:
            raise UsageError(f"{', '.join(options)}: only for topics; name one with to=")

        def decorate(function: Callable[..., Any]) -> Any:
            function = _undecorated(function)
            facts = facts_of(function, scope)
            check_parameters(function, facts, "sink")
            shaping: tuple[Step, ...] = ()
            if to is None:
                _check_own_sink(facts)
                target: Any = FunctionSink(function, batch)
            else:
                _check_shaping(facts)
                target, shaping = to, (_calling(function, facts),)
            with blamed_on(facts.location):
                written = _result_type(facts, node.value_type)
                endpoint = sink_endpoint(target, options)
                steps = sink_steps(target, key, shaping, written, options.get("value"), facts.name)
            added = add_sink(
                self.topology,
                node,
                endpoint,
                steps,
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
        self._check()

    def _check(self, *, allows_open_ends: bool = False) -> None:
        self.load()
        self._refuse_a_twin()
        self.topology.check(allows_open_ends=allows_open_ends)

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

    def test(self, *, isolated: bool = False) -> TestJob:
        """Run the graph in memory, without a broker and without waiting.

        Use it with ``with``: ``job.send(stream, *values)``, then ``job.output(stream)``.

        Args:
            isolated: Fail a stage that changes a value in place which other branches read too:
                what those see would depend on the order in which the graph was written.

        Raises:
            TopologyError: The graph cannot run, as `check` says; but a stage that nothing reads is
                no fault here, since the test does.
        """
        from streamkit.testing.job import TestJob

        self._check(allows_open_ends=True)
        return TestJob(self.topology, isolated=isolated)

    def run(self, **options: Unpack[RunKeywords]) -> int:
        """Run the job until it ends or is signalled; return the exit code.

        Options as those of `streamkit run`, which this does not read from ``sys.argv``.

        Raises:
            StreamKitError: It could not begin.
            UsageError: An option means nothing, or an event loop runs already in this thread.
        """
        from streamkit.run import run_app

        return run_app(self, self._run_options(options))

    async def run_async(self, **options: Unpack[RunKeywords]) -> int:
        """Run the job in the event loop that runs already, as in a notebook or a web service.

        Options as those of `run`. Signals are left to whoever owns the loop; cancelling this
        call stops the job in order: every sink is flushed and the positions are committed.
        """
        from streamkit.run import run_app_async

        return await run_app_async(self, self._run_options(options))

    def _run_options(self, options: RunKeywords) -> RunOptions:
        """Check the options of a run; while a file is only loaded, no job runs."""
        from streamkit.loading.imports import LoadingStopped, is_loading
        from streamkit.run import options_of

        if is_loading():
            raise LoadingStopped(self)
        return options_of(options)


def _is_of_file(module: object, file: str) -> bool:
    other = getattr(module, "__file__", None)
    # There are thousands of modules, and links are looked up on the disk: so the name comes first.
    if not isinstance(other, str) or os.path.basename(other) != os.path.basename(file):
        return False
    return os.path.realpath(other) == os.path.realpath(file)


def _possible_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "my-job"


def _topic_source(topic: Any, options: TopicSourceOptions) -> TopicSource:
    checked_options(options, TopicSourceOptions)
    name = topic.name if isinstance(topic, Topic) else topic
    if not isinstance(name, str):
        raise UsageError(f"{topic!r} is no topic", hint="name it, or give a Topic")
    partitions = options.get("partitions")
    return TopicSource(
        name,
        Offset.parse(options.get("start", "beginning")),
        None if partitions is None else tuple(partitions),
        options.get("isolation"),
        options.get("max_bytes"),
        topic.partitions if isinstance(topic, Topic) else None,
        options.get("value"),
    )


def _undecorated(function: Any) -> Any:
    """Return the function itself of a stage or sink, which is decorated once more."""
    while isinstance(function, DecoratedFunction):
        function = function.function
    return function


def _result_type(facts: FunctionFacts, given: Any) -> Any:
    """Return the type of a function's results; ``def f(x: T) -> T`` keeps the one it is given."""
    is_same = isinstance(facts.result_type, TypeVar) and facts.result_type is facts.value_type
    return given if is_same else facts.result_type


def _yielded(kind: Any, *, has_positions: bool) -> Any:
    """Return the type of the values that a source of one's own yields."""
    if not has_positions:
        return kind
    pair = get_args(kind)
    return pair[1] if len(pair) == 2 else None


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


def _check_shaping(facts: FunctionFacts) -> None:
    _refuse_async(facts)
    if facts.returns_none:
        raise TopologyError(
            f"the sink {facts.name!r} returns nothing, so nothing would be written",
            at=str(facts.location),
            hint="return the value to write, or leave out to=",
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


def _reading(wanted: Any, options: TopicSourceOptions, location: Location) -> tuple[Step, ...]:
    """Line up what turns the bytes of a topic into what the source's function takes."""
    with blamed_on(location):
        found = format_for(wanted, options.get("value"))
    steps: list[Step] = [] if found.loads is None else [Map(found.loads)]
    if found.as_record:
        steps.append(AsRecords())
    return tuple(steps)


def _calling(function: Callable[..., Any], facts: FunctionFacts) -> Step:
    """Choose what calls a function of the user's over a column."""
    if facts.takes_context:
        with blamed_on(facts.location):
            key_of = key_reader(facts.key_type)
        if facts.kind == "flat_map":
            return ContextFlatMap(function, key_of)
        return ContextMapOrDrop(function, key_of)
    return FlatMap(function) if facts.kind == "flat_map" else MapOrDrop(function)
