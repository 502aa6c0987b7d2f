"""The graph of one run: with the topics of this environment, and with what is replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streamkit.dataflow.dead_letters import replay_source
from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.dataflow.topology import NAME_BYTES_MAX, Node, Topology
from streamkit.policies import DeadLetter
from streamkit.run.options import RunOptions
from streamkit.settings import Settings

_LETTERS_SUFFIX = "-dead-letters"


def with_settings(topology: Topology, settings: Settings) -> Topology:
    """Return the graph with the topic names of this environment."""
    renamed: dict[Node, Node] = {}
    # The sinks of dead letters first: the nodes before them refer to them.
    for node in sorted(topology.nodes, key=lambda node: not node.takes_letters):
        endpoint: Any = node.endpoint
        if isinstance(endpoint, TopicSource | TopicSink):
            endpoint = replace(endpoint, topic=settings.topic(endpoint.topic))
        inputs = tuple(renamed[each] for each in node.inputs)
        tables = tuple(renamed[each] for each in node.tables)
        letters = None if node.dead_letters is None else renamed[node.dead_letters]
        renamed[node] = replace(
            node, endpoint=endpoint, inputs=inputs, tables=tables, dead_letters=letters
        )
    return Topology([renamed[node] for node in topology.nodes])


def with_replays(topology: Topology, topics: Sequence[str]) -> Topology:
    """Return the graph with a source for each topic of dead letters that is replayed."""
    nodes = [
        Node(replay_source(topic), "source", endpoint=TopicSource(topic), is_replay=True)
        for topic in dict.fromkeys(topics)
    ]
    return Topology([*topology.nodes, *nodes])


def letters_topic(app: str) -> str:
    """Return the topic for records at which an app fails again and again."""
    return f"{app[: NAME_BYTES_MAX - len(_LETTERS_SUFFIX)].rstrip('-')}{_LETTERS_SUFFIX}"


def with_letters(topology: Topology, app: str) -> tuple[Topology, Node]:
    """Return the graph with a sink for records at which the app fails again and again."""
    extended = Topology(list(topology.nodes))
    topic = letters_topic(app)
    for node in topology.of_kind("sink"):
        is_topic = isinstance(node.endpoint, TopicSink) and node.endpoint.topic == topic
        if is_topic and node.takes_letters:
            return extended, node
    sink = extended.dead_letter_sink(DeadLetter(topic), topology.nodes[0].location)
    return extended, sink


def needs_broker(topology: Topology, options: RunOptions) -> bool:
    """Return whether a run of a graph with these options reads or writes a topic."""
    return bool(topics_of(topology) or options.replay or options.on_crash_loop == "dead-letter")


def topics_of(topology: Topology) -> set[str]:
    """Return the topic names in the code of a job."""
    endpoints = [node.endpoint for node in topology.nodes]
    return {each.topic for each in endpoints if isinstance(each, TopicSource | TopicSink)}
