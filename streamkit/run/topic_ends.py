"""Creates topics, and their readers and writers; imported only if a job has topics.

The client and the protocol are a third of what is imported for a run.
"""

from __future__ import annotations

from collections.abc import Callable

from streamkit.client.backoff import OnRetry
from streamkit.client.client import Client
from streamkit.connectors.broker_offsets import BrokerOffsets
from streamkit.connectors.topics import TopicReader, TopicWriter, prepare_topics
from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.dataflow.topology import Node, Topology
from streamkit.run.options import RunOptions


class TopicEnds:
    """The topics of one run.

    Args:
        app: The name of the app.
        client: The connected client.
        options: The options of the run.
        note: Called with messages for the user.
        on_retry_of: Returns the callback for retries of a source or sink, given its name.
    """

    def __init__(
        self,
        app: str,
        client: Client,
        options: RunOptions,
        note: Callable[[str], None],
        on_retry_of: Callable[[str], OnRetry],
    ) -> None:
        self._client = client
        self._options = options
        self._note = note
        self._on_retry_of = on_retry_of
        self._offsets = BrokerOffsets(app)

    async def prepare(self, topology: Topology, *, creates_sinks: bool) -> None:
        """Check the topics of a graph, and create those that are missing and may be created."""
        endpoints = [node.endpoint for node in topology.nodes]
        await prepare_topics(
            self._client,
            [each for each in endpoints if isinstance(each, TopicSource)],
            [each for each in endpoints if isinstance(each, TopicSink)],
            creates_sinks=creates_sinks,
            creates_sources=self._options.create_topics,
            on_created=lambda topic, partitions: self._note(
                f"created topic {topic!r} with {partitions} partition(s)"
            ),
            on_mismatch=lambda topic, wanted, found: self._note(
                f"topic {topic!r} has {found} partition(s), but the app declares {wanted}"
            ),
        )

    def reader(self, node: Node, source: TopicSource, *, is_new: bool) -> TopicReader:
        """Create the reader of a source; ``is_new``: the job has no state yet."""
        return TopicReader(
            self._client,
            source,
            name=node.name,
            offsets=self._offsets,
            until_end=self._options.once or self._options.replay_only or node.is_replay,
            resumes_from_broker=is_new and not self._options.fresh_state,
            starts_over=self._options.fresh_state,
            on_retry=self._on_retry_of(f"source {node.name}"),
        )

    def writer(self, node: Node, sink: TopicSink) -> TopicWriter:
        """Create the writer of a sink."""
        return TopicWriter(self._client, sink, on_retry=self._on_retry_of(f"sink {node.name}"))
