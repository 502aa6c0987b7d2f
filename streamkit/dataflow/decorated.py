"""Checks decorated functions and creates their nodes in the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast, get_origin

from streamkit.dataflow.calling import (
    Called,
    call_spec,
    called_object,
    called_sink,
    calling_options,
    has_calls,
)
from streamkit.dataflow.contracts import Source
from streamkit.dataflow.decorated_function import DecoratedFunction, Sink
from streamkit.dataflow.endpoints import FunctionSink, TopicSource
from streamkit.dataflow.frame_operators import MapFrames
from streamkit.dataflow.frame_stages import gives_columns, result_type_of, sink_frames, stage_frames
from streamkit.dataflow.functions import (
    FunctionFacts,
    check_parameters,
    errors_at,
    facts_of,
    is_generator,
    unwrapped,
)
from streamkit.dataflow.key_formats import StoredKeys, context_keys, source_of_keys
from streamkit.dataflow.keyed_stream import check_keyed
from streamkit.dataflow.operators import ContextFlatMap, ContextMapOrDrop, FlatMap, MapOrDrop
from streamkit.dataflow.options import (
    FunctionStageOptions,
    ShapingOptions,
    SinkOptions,
    SourceOptions,
    on_error_of,
    timing_of,
)
from streamkit.dataflow.sinks import KeyOption, sink_endpoint, sink_steps
from streamkit.dataflow.sources import connector_steps, reading_steps, typed_source
from streamkit.dataflow.stateful import Stateful, stateful_form
from streamkit.dataflow.steps import Step
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node, stage_name
from streamkit.errors import TopologyError, UsageError
from streamkit.frames.functions import Frames, of_lists
from streamkit.serde.keys import KeyReader


def source_node(
    function: Callable[..., Any],
    scope: dict[str, Any],
    endpoint: TopicSource | Source[Any],
    options: SourceOptions,
) -> Node:
    """Create the node of a function that gets each value of a topic or a connector.

    Raises:
        TopologyError: The function cannot be a source; the message shows its file and line.
    """
    facts = facts_of(function, scope)
    _refuse_async(facts)
    _refuse_state(facts, "source")
    check_parameters(function, facts, "source")
    expected = facts.value_type
    if expected is None and isinstance(endpoint, Source):
        expected = endpoint.value_type
    if expected is None:
        raise TopologyError(
            f"the parameter of the source {facts.name!r} has no type",
            at=str(facts.location),
            hint=f"annotate it: def {facts.name}(row: Flight) -> Flight",
        )
    keys: TopicSource | StoredKeys
    if isinstance(endpoint, Source):
        reading = connector_steps(endpoint, expected, options, facts.location)
        keys = StoredKeys(options.get("key_format"), endpoint.name)
    else:
        keys = endpoint = typed_source(endpoint, expected, facts.location)
        reading = reading_steps(expected, endpoint, options, facts.location)
    with errors_at(facts.location):
        key_of = context_keys(facts, keys)
    return Node(
        options.get("name") or stage_name(facts.name),
        "source",
        (*reading, _call_step(function, facts, key_of)),
        endpoint=endpoint,
        on_error=on_error_of(options),
        location=facts.location,
        value_type=_result_type(facts, expected),
        input_type=expected,
        timing=timing_of(options),
        key_format=keys.key_format,
    )


def stage_node(
    function: Callable[..., Any],
    scope: dict[str, Any],
    inputs: tuple[Node, ...],
    output_type: Any,
    options: FunctionStageOptions,
    batch: int | None = None,
) -> Node:
    """Create the node of a function that gets each value of one or more streams.

    With ``batch``, it gets lists or frames of up to so many values.

    Raises:
        TopologyError: The function cannot be a stage; the message shows its file and line.
    """
    whole = facts_of(function, scope)
    facts = whole if batch is None else facts_of(function, scope, batch=True)
    frames = stage_frames(whole, facts, inputs, output_type, batch)
    if frames is not None:
        output_type = result_type_of(whole, facts) if output_type is None else output_type
    elif batch is not None:
        _check_takes_lists(whole)
    check_parameters(function, facts, "stage")
    given = inputs[0].value_type if len(inputs) == 1 else None
    with errors_at(facts.location):
        key_of = context_keys(facts, source_of_keys(inputs) if facts.takes_context else None)
        called = function if frames is None else of_lists(function, frames)
        step: Step | None = _called_step(called, facts, options, key_of, batch)
        if frames is not None and batch is not None and _is_for_slices(frames, facts, options):
            step = MapFrames(called, batch)
        step = step or _stage_step(function, facts, inputs, options, key_of)
    return Node(
        options.get("name") or stage_name(facts.name),
        "stage",
        (step,),
        inputs=inputs,
        on_error=on_error_of(options),
        location=facts.location,
        value_type=_result_type(facts, given) if output_type is None else output_type,
        input_type=facts.value_type if len(inputs) == 1 else None,
    )


def sink_node(
    function: Callable[..., Any],
    scope: dict[str, Any],
    source: Node,
    target: Any,
    key: KeyOption,
    options: ShapingOptions,
) -> Node:
    """Create the node of a function that writes values, or returns the values to write.

    Raises:
        TopologyError: The function cannot be a sink; the message shows its file and line.
    """
    facts = facts_of(function, scope)
    _refuse_state(facts, "sink")
    check_parameters(function, facts, "sink")
    policy = on_error_of(options)
    batch = target.batch if isinstance(target, FunctionSink) else None
    has_target = not isinstance(target, FunctionSink)
    frames = sink_frames(facts, source, batch, has_target=has_target)
    with errors_at(facts.location):
        key_of = context_keys(facts, source_of_keys((source,)) if facts.takes_context else None)
        called = function if frames is None else of_lists(function, frames)
        needs_calls = frames is not None and not gives_columns(source)
        shaping = _sink_function(called, facts, target, options, key_of, needs_calls=needs_calls)
        if isinstance(target, FunctionSink):
            target = replace(target, function=called)
        written = _result_type(facts, source.value_type)
        endpoint = sink_endpoint(target, cast("SinkOptions", options))
        steps = sink_steps(target, key, shaping, written, options.get("value"), facts.name)
    if batch is not None and frames is None:
        _check_takes_lists(facts)
    return Node(
        options.get("name") or stage_name(facts.name),
        "sink",
        steps,
        inputs=(source,),
        endpoint=endpoint,
        on_error=policy,
        location=facts.location,
        value_type=written,
        input_type=None if batch is not None else facts.value_type,
    )


def _sink_function(
    function: Callable[..., Any],
    facts: FunctionFacts,
    target: Any,
    options: ShapingOptions,
    key_of: KeyReader | None,
    *,
    needs_calls: bool,
) -> tuple[Step, ...]:
    """Return the step of a function that writes or returns values; none if its writer calls it."""
    policy = on_error_of(options)
    if isinstance(target, FunctionSink):
        _check_function_sink(facts)
        writing = called_sink(
            function, facts.name, options, target.batch, policy, needs_calls=needs_calls
        )
        return () if writing is None else (writing,)
    _check_shaping(facts)
    if called_object(target, policy) is not None:
        raise TopologyError(
            f"the sink {facts.name!r} both makes values and writes them with retries",
            hint="make the values in a stage, then use stream.to(..., on_error=retry(...))",
        )
    called = _called_step(function, facts, options, key_of)
    return (called or _call_step(function, facts, key_of),)


def undecorated(function: Any) -> Any:
    """Return the plain function of a stage or sink that is decorated a second time."""
    while isinstance(function, DecoratedFunction):
        function = function.function
    return function


def _result_type(facts: FunctionFacts, given: Any) -> Any:
    """Return the type of a function's results; for ``def f(x: T) -> T`` that is ``given``."""
    is_same = isinstance(facts.result_type, TypeVar) and facts.result_type is facts.value_type
    return given if is_same else facts.result_type


def input_nodes(streams: Iterable[Any], what: str, at: str) -> tuple[Node, ...]:
    nodes = []
    for stream in streams:
        if not isinstance(stream, Stream):
            is_sink = isinstance(stream, Sink)
            given = "a sink, which nothing can read" if is_sink else repr(stream)
            raise TopologyError(
                f"@app.{what} needs a stream, but this is {given}",
                at=at,
                hint="use the name of a source or stage, without calling it",
            )
        nodes.append(stream.node)
    if not nodes:
        raise TopologyError(f"@app.{what} needs the stream it reads: @app.{what}(flights)", at=at)
    return tuple(nodes)


def _refuse_async(facts: FunctionFacts) -> None:
    if facts.kind in ("async", "async_flat_map"):
        raise TopologyError(
            f"{facts.name!r} is an async function; a source of a topic is a plain function",
            at=str(facts.location),
            hint="use a plain function here, and put the async one into a stage after the source",
        )


def _refuse_state(facts: FunctionFacts, what: str) -> None:
    if facts.state_type is not None:
        raise TopologyError(
            f"the {what} {facts.name!r} has a State parameter, but only a stage keeps a state",
            at=str(facts.location),
            hint="put a stage between: @app.stage(stream.key_by(...))",
        )


def _check_shaping(facts: FunctionFacts) -> None:
    if facts.returns_none:
        raise TopologyError(
            f"the sink {facts.name!r} returns nothing, so nothing would be written",
            at=str(facts.location),
            hint="return the value to write, or leave out to=",
        )


def _check_function_sink(facts: FunctionFacts) -> None:
    if facts.kind in ("flat_map", "async_flat_map"):
        raise TopologyError(
            f"the sink {facts.name!r} is a generator, so its body would never run",
            at=str(facts.location),
            hint="write the values without yield, or name the target of the values with to=",
        )
    if facts.takes_context:
        raise TopologyError(
            f"the sink {facts.name!r} has a context parameter; a function sink gets only the value",
            at=str(facts.location),
            hint="add what it needs from the context to the value, in a stage before the sink",
        )


def _check_takes_lists(facts: FunctionFacts) -> None:
    """Refuse a function of batches whose parameter is annotated as something else than a list."""
    found = unwrapped(facts.value_type)
    kind = get_origin(found) or found
    if not isinstance(kind, type) or kind is Any or getattr(kind, "_is_protocol", False):
        return
    if not issubclass(list, kind):
        raise TopologyError(
            f"{facts.name!r} gets batches, but its parameter is annotated as {kind.__name__}",
            at=str(facts.location),
            hint=f"annotate list[{kind.__name__}], or leave out batch=",
        )


def _called_step(
    function: Callable[..., Any],
    facts: FunctionFacts,
    options: Mapping[str, Any],
    key_of: KeyReader | None,
    batch: int | None = None,
) -> Called | None:
    """Return the step of a function that is called outside of slices; None for others."""
    is_async = facts.kind in ("async", "async_flat_map")
    spec = call_spec(calling_options(options), facts.name, is_async=is_async, batch=batch)
    if spec is None:
        return None
    if facts.state_type is not None:
        raise TopologyError(
            f"{facts.name!r} has a State parameter, but a stage that is async, blocking, in "
            "processes or in batches keeps no state",
            at=str(facts.location),
            hint="keep the state in another stage, before or after this one",
        )
    if batch is not None and facts.takes_context:
        raise TopologyError(
            f"{facts.name!r} gets batches, whose records have no common context",
            hint="leave out the context, or read a stream of records: app.stream(topic, Record[T])",
        )
    expands = facts.kind in ("flat_map", "async_flat_map")
    return Called(function, spec, expands, is_generator(function), key_of=key_of)


def _is_for_slices(frames: Frames, facts: FunctionFacts, options: FunctionStageOptions) -> bool:
    """Return whether a function of frames can be called in slices, which is faster.

    Its results must not depend on which records are in a frame.
    """
    is_plain = facts.kind == "map" and frames.is_row_by_row
    return is_plain and not has_calls(options, on_error_of(options))


def _stage_step(
    function: Callable[..., Any],
    facts: FunctionFacts,
    inputs: tuple[Node, ...],
    options: FunctionStageOptions,
    key_of: KeyReader | None,
) -> Step:
    if facts.state_type is None:
        if names := [each for each in ("ttl", "migrate") if options.get(each) is not None]:
            raise UsageError(
                f"{names[0]}= is for a stage that keeps a state",
                hint="add a parameter annotated State[...], and group the stream with key_by",
            )
        return _call_step(function, facts, key_of)
    name = options.get("name") or stage_name(facts.name)
    with errors_at(facts.location):
        check_keyed(inputs, name)
        form, ttl_ms = stateful_form(facts.state_type, name, options)
    return Stateful(function, name, form, facts.kind == "flat_map", key_of, ttl_ms)


def _call_step(
    function: Callable[..., Any], facts: FunctionFacts, key_of: KeyReader | None
) -> Step:
    """Return the step that calls the user's function for a column of values."""
    if key_of is not None:
        if facts.kind == "flat_map":
            return ContextFlatMap(function, key_of)
        return ContextMapOrDrop(function, key_of)
    return FlatMap(function) if facts.kind == "flat_map" else MapOrDrop(function)
