"""Creates sources of the graph: topics with their decoding steps, and generators."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args, get_origin

from streamkit.dataflow.contracts import Source
from streamkit.dataflow.encoding import Decode
from streamkit.dataflow.endpoints import FunctionSource, TopicSource
from streamkit.dataflow.event_time import EventTime
from streamkit.dataflow.functions import FunctionFacts, check_callable, errors_at, resume_type_of
from streamkit.dataflow.operators import AsRecords, Filter, Map
from streamkit.dataflow.options import (
    SourceOptions,
    TimeOptions,
    checked_options,
    timing_of,
    topic_options,
)
from streamkit.dataflow.steps import Step
from streamkit.dataflow.tables import DELETED, TableKeys, Upsert, or_deleted
from streamkit.dataflow.topology import Location, Node, refuse_other_type, stage_name
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Kind, Offset, Record, Topic
from streamkit.serde.binding import Usage, bound
from streamkit.serde.keys import KeyReader, stored_key_reader
from streamkit.serde.kinds import in_record
from streamkit.serde.values import format_for
from streamkit.state.types import format_of


def topic_source(topic: Any, options: SourceOptions) -> TopicSource:
    """Return the endpoint of the topic to read.

    Raises:
        UsageError: An option does not exist or its value is not valid.
    """
    checked_options(options, SourceOptions)
    name = topic.name if isinstance(topic, Topic) else topic
    if not isinstance(name, str):
        raise UsageError(f"{topic!r} is not a topic", hint="use a topic name or a Topic")
    partitions = options.get("partitions")
    return TopicSource(
        name,
        Offset.parse(options.get("start", "beginning")),
        None if partitions is None else tuple(partitions),
        options.get("isolation"),
        options.get("max_bytes"),
        topic.partitions if isinstance(topic, Topic) else None,
        options.get("value"),
        options.get("key_format"),
    )


def typed_source(endpoint: TopicSource, kind: Kind, location: Location) -> TopicSource:
    """Return the endpoint with its format bound to the type of its values.

    Raises:
        TopologyError: The format has values of another type, or cannot represent them.
    """
    if endpoint.format is None:
        return endpoint
    with errors_at(location):
        expected = in_record(kind)
        refuse_other_type(endpoint.format, expected, "expected")
        found = bound(endpoint.format, Usage(expected, endpoint.topic))
        return replace(endpoint, format=found)


def reading_steps(
    kind: Kind, endpoint: TopicSource, options: TimeOptions, location: Location
) -> tuple[Step, ...]:
    """Return the steps that decode the bytes of a topic and set event times."""
    with errors_at(location):
        found = format_for(kind, endpoint.format)
    steps: list[Step] = [] if found.loads is None else [Map(found.loads)]
    if found.as_record:
        steps.append(AsRecords())
    return (*steps, time_step(options))


def connector_steps(
    source: Source[Any], kind: Any, options: SourceOptions, location: Location
) -> tuple[Step, ...]:
    """Return the steps that decode the rows of a connector and set event times.

    Raises:
        TopologyError: Values of the type cannot be made from the rows of the connector.
        UsageError: An option is only for topics.
    """
    with errors_at(location):
        refuse_topic_options(source, options)
        as_record = kind is Record or get_origin(kind) is Record
        inner = (get_args(kind) or (bytes,))[0] if as_record else kind
        serde = options.get("value")
        found = None if serde is None else bound(serde, source.usage(inner))
        decoder = source.decoder(inner, found)
    steps: list[Step] = []
    if decoder is not None:
        if decoder.keeps is not None:
            steps.append(Filter(decoder.keeps))
        steps.append(Decode(decoder, found))
    if as_record:
        steps.append(AsRecords())
    return (*steps, time_step(options))


def refuse_topic_options(source: Source[Any], options: SourceOptions) -> None:
    """Refuse options that a connector does not have.

    Raises:
        UsageError: An option is only for topics.
    """
    checked_options(options, SourceOptions)
    has_keys = source.raw_type is not None
    allowed = {"value", "key_format"} if has_keys else {"value"}
    names = [each for each in topic_options(options) if each not in allowed]
    if names:
        raise UsageError(f"{', '.join(names)}: only a topic has this option")


def table_steps(
    name: str,
    kind: Any,
    key: Callable[[Any], object] | None,
    options: SourceOptions,
    endpoint: TopicSource | None,
    location: Location,
) -> tuple[Step, ...]:
    """Return the steps that decode the rows of a table, find their keys, and keep them.

    Without ``endpoint``, the table is a file.

    Raises:
        TopologyError: The rows cannot be stored, or have no key.
    """
    with errors_at(location):
        form = format_of(kind, name)
        if key is not None:
            check_callable(key, "key=")
        elif endpoint is None:
            raise TopologyError(
                f"the rows of {name!r} have no key",
                hint="give the table key=, for example key=lambda row: row.id",
            )
        reading: tuple[Step, ...] = (time_step(options),)
        if endpoint is not None:
            steps = reading_steps(kind, endpoint, options, location)
            reading = tuple(map(_with_deletions, steps))
            if not any(isinstance(each, Map) for each in reading):  # rows that stay bytes
                reading = (Map(or_deleted(bytes)), *reading)
        keys = TableKeys(key, _stored_keys(endpoint) if key is None else None)
        return (*reading, keys, Upsert(name, form, is_kept=endpoint is not None))


def _stored_keys(endpoint: TopicSource | None) -> KeyReader | None:
    """Return how the keys of the records of a table are read; None if they stay bytes."""
    if endpoint is None or endpoint.key_format is None:
        return None
    return stored_key_reader(endpoint.key_format, Usage(None, endpoint.topic, "key"))


def _with_deletions(step: Step) -> Step:
    """Return a step that leaves deletions as they are."""
    if isinstance(step, Map):
        return Map(or_deleted(step.function))
    return replace(step, ignored=DELETED) if isinstance(step, EventTime) else step


def time_step(options: TimeOptions) -> EventTime:
    """Return the step that sets event times.

    Raises:
        TopologyError: ``event_time`` is not a function of one value.
    """
    function = options.get("event_time")
    if function is not None:
        check_callable(function, "event_time=")
    return EventTime(function)


def generator_node(
    function: Callable[..., Any],
    facts: FunctionFacts,
    scope: dict[str, Any],
    options: SourceOptions,
) -> Node:
    """Create the node of a source that is a generator.

    Raises:
        TopologyError: The function is not a generator, or has parameters other than ``resume``.
    """
    if facts.kind not in ("flat_map", "async_flat_map"):
        raise TopologyError(
            f"@app.source without a topic needs a generator, but {facts.name!r} is not one",
            at=str(facts.location),
            hint='name the topic, @app.source("flights"), or yield the values',
        )
    endpoint = FunctionSource(function, resume_type_of(function, scope), str(facts.location))
    required = [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty
        and (each.name != "resume" or each.kind is each.POSITIONAL_ONLY)
    ]
    if required:
        raise TopologyError(
            f"the generator {facts.name!r} has the parameters {', '.join(required)}",
            at=str(facts.location),
            hint="a generator source may have only one parameter, named `resume`",
        )
    return Node(
        options.get("name") or stage_name(facts.name),
        "source",
        (time_step(options),),
        endpoint=endpoint,
        location=facts.location,
        timing=timing_of(options),
        value_type=_yielded(facts.result_type, has_positions=endpoint.is_replayable),
    )


def _yielded(kind: Any, *, has_positions: bool) -> Any:
    """Return the type of the values that a generator source yields."""
    if not has_positions:
        return kind
    pair = get_args(kind)
    return pair[1] if len(pair) == 2 else None
