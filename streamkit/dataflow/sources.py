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
from streamkit.dataflow.operators import AsRecords, Map
from streamkit.dataflow.options import (
    SourceOptions,
    TimeOptions,
    checked_options,
    timing_of,
    topic_options,
)
from streamkit.dataflow.steps import Step
from streamkit.dataflow.tables import DELETED, TableKeys, Upsert, or_deleted
from streamkit.dataflow.topology import Location, Node, stage_name
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Offset, Record, Topic
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
    )


def reading_steps(kind: Any, options: SourceOptions, location: Location) -> tuple[Step, ...]:
    """Return the steps that decode the bytes of a topic and set event times."""
    with errors_at(location):
        found = format_for(kind, options.get("value"))
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
        refuse_topic_options(options)
        as_record = kind is Record or get_origin(kind) is Record
        inner = (get_args(kind) or (bytes,))[0] if as_record else kind
        decoder = source.decoder(inner, options.get("value"))
    steps: list[Step] = [] if decoder is None else [Decode(decoder)]
    if as_record:
        steps.append(AsRecords())
    return (*steps, time_step(options))


def refuse_topic_options(options: SourceOptions) -> None:
    """Refuse options that connectors do not have.

    Raises:
        UsageError: An option is only for topics.
    """
    checked_options(options, SourceOptions)
    names = [each for each in topic_options(options) if each != "value"]
    if names:
        raise UsageError(f"{', '.join(names)}: only a topic has this option")


def table_steps(
    name: str,
    kind: Any,
    key: Callable[[Any], object] | None,
    options: SourceOptions,
    location: Location,
    *,
    is_file: bool,
) -> tuple[Step, ...]:
    """Return the steps that decode the rows of a table, find their keys, and keep them.

    Raises:
        TopologyError: The rows cannot be stored, or have no key.
    """
    with errors_at(location):
        form = format_of(kind, name)
        if key is not None:
            check_callable(key, "key=")
        elif is_file:
            raise TopologyError(
                f"the rows of {name!r} have no key",
                hint="give the table key=, for example key=lambda row: row.id",
            )
        reading: tuple[Step, ...] = (time_step(options),)
        if not is_file:
            reading = tuple(map(_with_deletions, reading_steps(kind, options, location)))
            if not any(isinstance(each, Map) for each in reading):  # rows that stay bytes
                reading = (Map(or_deleted(bytes)), *reading)
        return (*reading, TableKeys(key), Upsert(name, form, is_kept=not is_file))


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
