"""Opens the state store, sinks and sources of a graph; if one fails, closes those already open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamkit.dataflow.contracts import (
    AcknowledgedWriter,
    ConnectorEnv,
    Sink,
    SinkWriter,
    Source,
    SourceFacts,
    SourceReader,
)
from streamkit.dataflow.dead_letters import replay_source
from streamkit.dataflow.endpoints import (
    FileTable,
    FunctionSource,
    TopicSink,
    TopicSource,
)
from streamkit.dataflow.lookup_tables import RowLookup
from streamkit.dataflow.topology import Node, Topology
from streamkit.env import Clock, machine_memory_bytes
from streamkit.errors import StageError, StreamKitError, TopologyError
from streamkit.observe.facts import Started
from streamkit.record import Kind
from streamkit.run.graph import needs_broker
from streamkit.run.options import RunOptions
from streamkit.runtime.called_sinks import own_writer
from streamkit.runtime.failures import error_text
from streamkit.runtime.file_table_reader import FileTableReader
from streamkit.runtime.function_source import FunctionReader
from streamkit.runtime.letters import JobFacts
from streamkit.runtime.ports import Port, Ports
from streamkit.runtime.row_lookups import OpenLookup
from streamkit.runtime.task import Task
from streamkit.runtime.task_env import TaskEnv
from streamkit.runtime.user_calls import is_ours
from streamkit.state.states import States
from streamkit.state.store import Changes, Store, StoreFacts
from streamkit.target import Target

if TYPE_CHECKING:
    from streamkit.client.backoff import OnRetry
    from streamkit.client.client import Client
    from streamkit.run.topic_ends import TopicEnds

_STORE_NAME = "main.sqlite"


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything that is open, and the facts for the start report."""

    ports: Ports
    started: Started


class Opening:
    """Opens one run of a graph.

    Args:
        app: The name of the app.
        topology: The graph of the app, with the topic names of this environment.
        options: The options of the run.
        target: The broker to use.
        address: The address of the broker.
        clock: Source of time.
        note: Called with messages for the user.
        on_retry_of: Returns the callback for retries of a source or sink, given its name.
    """

    def __init__(
        self,
        app: str,
        topology: Topology,
        options: RunOptions,
        target: Target,
        address: str,
        clock: Clock,
        note: Callable[[str], None],
        on_retry_of: Callable[[str], OnRetry],
    ) -> None:
        self._app = app
        self._topology = topology
        self._options = options
        self._target = target
        self._address = address
        self._clock = clock
        self._note = note
        self._on_retry_of = on_retry_of
        self._shared: dict[object, object] = {}
        self._topics: TopicEnds | None = None
        self._is_first = False

    async def open(self, client: Client | None, stack: AsyncExitStack) -> Opened:
        """Open topics, store, sinks and sources; ``stack`` closes the store at the end.

        ``client`` is connected to the broker; None if the job needs no broker.

        Raises:
            StreamKitError: One of them cannot be opened; the others are closed again.
        """
        if client is not None:
            self._topics = await self._open_topics(client)
        store = Store(self._state_dir / _STORE_NAME)
        stack.callback(store.close)
        facts = store.open(app=self._app, cluster=self._cluster, fresh=self._options.fresh_state)
        self._is_first = facts.is_new and not self._options.fresh_state
        readers = self._readers(facts)
        writers = self._writers()
        lookups = self._lookups()
        states = self._states(store)
        committed = store.positions()
        async with AsyncExitStack() as opened:
            for lookup in lookups.values():
                opened.push_async_callback(self._close_quietly, lookup)
                await lookup.open()
            await self._open_writers(writers, store.sink_positions(), opened)
            sources = await self._open_readers(readers, committed, opened)
            await self._keep_starts(store, committed, sources, writers)
            self._note_unused(committed, readers)
            opened.pop_all()  # the worker closes them
        ports = Ports(readers, writers, store, states, lookups)
        return Opened(ports, self._started(facts, sources, writers))

    @property
    def _cluster(self) -> str:
        """The cluster to which the state belongs, or an empty text if there are no topics."""
        if not needs_broker(self._topology, self._options):
            return ""
        return "embedded" if self._is_embedded else self._address

    @property
    def _is_embedded(self) -> bool:
        return self._target.kind == "embedded"

    async def _open_topics(self, client: Client) -> TopicEnds:
        from streamkit.run.topic_ends import TopicEnds

        topics = TopicEnds(self._app, client, self._options, self._note, self._on_retry_of)
        creates_sinks = self._is_embedded or self._options.create_topics
        await topics.prepare(self._topology, creates_sinks=creates_sinks)
        return topics

    def _readers(self, facts: StoreFacts) -> dict[Node, SourceReader]:
        readers: dict[Node, SourceReader] = {}
        for node in self._topology.of_kind("source"):
            if self._options.replay_only and not (node.is_replay or node.is_table):
                continue
            match node.endpoint:
                case TopicSource() as source:
                    assert self._topics is not None, "a job with topics needs a broker"
                    readers[node] = self._topics.reader(node, source, is_new=facts.is_new)
                case FunctionSource() as source:
                    readers[node] = FunctionReader(node.name, source, self._clock)
                case FileTable() as table:
                    readers[node] = FileTableReader(node.name, table, node.value_type, self._clock)
                case Source() as source:
                    readers[node] = source.reader(self._env_of(node))
                case other:
                    raise TopologyError(f"{other!r} is not a source", at=str(node.location))
        return readers

    def _env_of(self, node: Node) -> ConnectorEnv:
        return ConnectorEnv(
            node.name,
            self._app,
            self._state_dir / "connectors" / node.name,
            self._clock,
            until_end=self._options.once or self._options.replay_only,
            note=self._note,
            kind=_kind_of(node),
            shared=self._shared,
            is_first=self._is_first,
        )

    @property
    def _state_dir(self) -> Path:
        return self._target.data_dir / "state" / self._app

    def _writers(self) -> dict[Node, SinkWriter]:
        return {node: self._writer(node) for node in self._topology.of_kind("sink")}

    def _writer(self, node: Node) -> SinkWriter:
        endpoint = node.endpoint
        if isinstance(endpoint, TopicSink):
            assert self._topics is not None, "a job with topics needs a broker"
            return self._topics.writer(node, endpoint)
        if isinstance(endpoint, Sink):
            return endpoint.writer(self._env_of(node))
        own = own_writer(node, self._clock)
        if own is not None:
            return own
        raise TopologyError(
            f"{endpoint!r} is not a sink",
            at=str(node.location),
            hint="use a topic, a connector, or a class with open, write, flush and close",
        )

    def _lookups(self) -> dict[Node, OpenLookup]:
        return {
            node: OpenLookup(
                node.endpoint,
                node.endpoint.table.finder(self._env_of(node)),
                self._clock.monotonic_s,
            )
            for node in self._topology.of_kind("stage")
            if isinstance(node.endpoint, RowLookup)
        }

    async def _open_writers(
        self, writers: dict[Node, SinkWriter], committed: Changes, opened: AsyncExitStack
    ) -> None:
        for node, writer in writers.items():
            is_connector = isinstance(node.endpoint, Sink)  # others are closed only after an open
            if is_connector:
                opened.push_async_callback(self._close_quietly, writer)
            try:
                await writer.open(committed.get(node.name, {}))
            except StreamKitError:
                raise  # its text names the sink already
            except BaseException as error:
                if is_ours(error):
                    raise
                raise StageError(
                    f"sink {node.name!r} could not be opened: {error_text(error)}\n"
                    f"  at: {node.location}",
                    stage=node.name,
                    topic="",
                    partition=0,
                    offset=None,
                ) from error
            if not is_connector:
                opened.push_async_callback(self._close_quietly, writer)

    async def _open_readers(
        self, readers: dict[Node, SourceReader], committed: Changes, opened: AsyncExitStack
    ) -> dict[Node, SourceFacts]:
        found: dict[Node, SourceFacts] = {}
        for node, reader in readers.items():
            opened.push_async_callback(self._close_quietly, reader)
            found[node] = await reader.open(committed.get(node.name, {}))
        return found

    async def _close_quietly(self, port: Port) -> None:
        try:
            await port.close()
        except Exception as error:  # the run already fails with another error
            self._note(f"another source, sink or lookup could not be closed: {error_text(error)}")

    async def _keep_starts(
        self,
        store: Store,
        committed: Changes,
        sources: dict[Node, SourceFacts],
        writers: dict[Node, SinkWriter],
    ) -> None:
        """Commit the start position of every part of every source before anything is read.

        Raises:
            StreamKitError: A sink cannot take part in the commit.
        """
        starts: Changes = {}
        for node, facts in sources.items():
            known = committed.get(node.name, {})
            fresh = {p: at for p, at in (facts.start_offsets or {}).items() if known.get(p) != at}
            if fresh:
                starts[node.name] = fresh
        parts = {
            node.name: writer.prepare_commit(is_last=False)
            for node, writer in writers.items()
            if isinstance(writer, AcknowledgedWriter)
        }
        for part in parts.values():
            await part.wait()
        sinks = {name: dict(part.positions) for name, part in parts.items() if part.positions}
        if starts or sinks:
            store.commit(starts, sinks)
        for part in parts.values():
            if part.publish is not None:
                await part.publish()

    def _states(self, store: Store) -> States:
        """Read the states of all stages, so that one that cannot be read stops the start."""
        memory_max_bytes = self._options.state_memory_bytes or machine_memory_bytes() // 2
        states = States(store.state_rows, store.state_types(), memory_max_bytes=memory_max_bytes)
        Task(self._topology, states=states, env=TaskEnv(JobFacts(self._app)))  # it opens them
        for name in states.unused():
            self._note(
                f"the state of a stage {name!r} is stored, but this app has no such stage; it is "
                f'kept. If you renamed the stage, set name="{name}"; to remove the state, run '
                f"streamkit state delete {self._app} {name}"
            )
        return states

    def _note_unused(self, committed: Changes, readers: dict[Node, SourceReader]) -> None:
        names = {node.name for node in readers}
        for name in sorted(committed.keys() - names):
            if name.startswith(replay_source("")) or self._options.replay_only:
                continue
            self._note(
                f"the state has positions of a source {name!r}, which this app does not have; "
                f'they are kept but not used. If you renamed the source, set name="{name}" to '
                "resume from them"
            )

    def _started(
        self,
        facts: StoreFacts,
        sources: dict[Node, SourceFacts],
        writers: dict[Node, SinkWriter],
    ) -> Started:
        waiting = [each.waiting for each in sources.values()]
        return Started(
            self._app,
            self._where_text(),
            self._state_text(facts),
            [f"{node.name}: {each.description}" for node, each in sources.items()],
            [f"{node.name}: {writer.description}" for node, writer in writers.items()],
            None if None in waiting else sum(each for each in waiting if each is not None),
        )

    def _where_text(self) -> str:
        if not self._cluster:
            return "without a broker, because it has no topics"
        if self._is_embedded:
            folder = self._target.data_dir
            return f"on the embedded broker at {self._address} in {folder} ({self._target.why})"
        return f"on the cluster at {self._address} ({self._target.why})"

    def _state_text(self, facts: StoreFacts) -> str:
        if self._options.fresh_state:
            return f"{facts.path.parent} (started over, --fresh-state)"
        return f"{facts.path.parent} ({'new' if facts.is_new else 'resumes from its last commit'})"


def _kind_of(node: Node) -> Kind:
    """Return the type of the values of a source or sink, or of the rows of a lookup."""
    if isinstance(node.endpoint, RowLookup):
        return node.endpoint.row_type
    return node.input_type if node.kind == "source" else node.value_type
