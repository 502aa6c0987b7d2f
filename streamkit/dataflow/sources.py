"""What a source is in the graph: a topic with the steps that decode it, or a generator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

from streamkit.dataflow.endpoints import FunctionSource, TopicSource
from streamkit.dataflow.functions import FunctionFacts, blamed_on, resume_type_of
from streamkit.dataflow.operators import AsRecords, Map, Step
from streamkit.dataflow.options import SourceOptions, TopicSourceOptions, checked_options
from streamkit.dataflow.topology import Location, Node, stage_name
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Offset, Topic
from streamkit.serde.values import format_for


def topic_source(topic: Any, options: SourceOptions) -> TopicSource:
    """Describe the topic to read.

    Raises:
        UsageError: An option does not exist or has an invalid value.
    """
    checked_options(options, SourceOptions)
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


def reading_steps(wanted: Any, options: TopicSourceOptions, location: Location) -> tuple[Step, ...]:
    """Line up what turns the bytes of a topic into what the source's function takes."""
    with blamed_on(location):
        found = format_for(wanted, options.get("value"))
    steps: list[Step] = [] if found.loads is None else [Map(found.loads)]
    if found.as_record:
        steps.append(AsRecords())
    return tuple(steps)


def generator_node(
    function: Callable[..., Any], facts: FunctionFacts, scope: dict[str, Any], name: str | None
) -> Node:
    """Make the node of a source that is a generator.

    Raises:
        TopologyError: The function is not a generator, or has parameters other than ``resume``.
    """
    if facts.kind not in ("flat_map", "async_flat_map"):
        raise TopologyError(
            f"@app.source without a topic needs a generator, {facts.name!r} is not one",
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
            f"the generator {facts.name!r} has the parameters {', '.join(wanted)}",
            at=str(facts.location),
            hint="a generator source has no parameters, or one called `resume`",
        )
    return Node(
        name or stage_name(facts.name),
        "source",
        (),
        endpoint=endpoint,
        location=facts.location,
        value_type=_yielded(facts.result_type, has_positions=endpoint.is_replayable),
    )


def _yielded(kind: Any, *, has_positions: bool) -> Any:
    """Return the type of the values that a source of one's own yields."""
    if not has_positions:
        return kind
    pair = get_args(kind)
    return pair[1] if len(pair) == 2 else None
