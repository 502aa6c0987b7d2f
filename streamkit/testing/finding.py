"""Finds the nodes and the states that a test names by a stream or by a topic."""

from __future__ import annotations

from typing import Any

from streamkit.dataflow.contracts import Source
from streamkit.dataflow.decorated_function import Sink
from streamkit.dataflow.encoding import Decode
from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.dataflow.join_stream import Table
from streamkit.dataflow.keys import group_key
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import UsageError
from streamkit.record import Record, Value
from streamkit.serde.values import encode_as
from streamkit.state.keyed import Keyed
from streamkit.state.states import States


def source_of(topology: Topology, source: Stream[Any] | Table[Any] | str) -> Node:
    """Return a source.

    Raises:
        UsageError: No source reads the topic.
    """
    if not isinstance(source, str):
        return source.node
    for node in topology.of_kind("source"):
        if isinstance(node.endpoint, TopicSource) and node.endpoint.topic == source:
            return node
    raise UsageError(f"no source reads the topic {source!r}")


def row_of(node: Node, record: Record[Any]) -> Value:
    """Return what a source reads for a record that a test sends to it."""
    endpoint, value = node.endpoint, record.value
    if isinstance(endpoint, TopicSource):
        return encode_as(value, node.input_type, endpoint.format)
    if isinstance(endpoint, Source):
        serdes = [each.serde for each in node.steps if isinstance(each, Decode)]
        given = value if type(record) is Record else record
        return endpoint.encoded(given, node.input_type, serdes[0] if serdes else None)
    return value


def nodes_of(topology: Topology, stream: Stream[Any] | Sink[..., Any] | str) -> list[Node]:
    """Return the node of a stream, or the sinks of a topic.

    Raises:
        UsageError: No sink writes to the topic.
    """
    if not isinstance(stream, str):
        return [stream.node]
    found = [
        node
        for node in topology.of_kind("sink")
        if isinstance(node.endpoint, TopicSink) and node.endpoint.topic == stream
    ]
    if not found:
        raise UsageError(f"no sink writes to the topic {stream!r}")
    return found


def kept_value(states: States, stage: Stream[Any] | Table[Any] | str, key: Any) -> Any:
    """Return what a stage keeps for a key; None if it keeps nothing.

    Raises:
        UsageError: The stage keeps no state.
    """
    name = stage if isinstance(stage, str) else stage.name
    if name not in states.by_name:
        raise UsageError(
            f"the stage {name!r} keeps no state",
            hint=f"these do: {', '.join(sorted(states.by_name)) or 'none'}",
        )
    state = states.by_name[name]
    if not isinstance(state, Keyed):
        raise UsageError(f"the stage {name!r} keeps windows or waiting records, not values")
    return state.values.get(group_key(key))
