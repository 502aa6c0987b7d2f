"""The connections of a client: one to the SC with its watches, one to each SPU in use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from streamkit.broadcast import Broadcast
from streamkit.client.channel import Channel
from streamkit.client.connecting import open_channel
from streamkit.client.metadata import WATCHED, MetadataStore
from streamkit.client.tls import ServerTls, Tls
from streamkit.env import Clock, random_bits
from streamkit.errors import (
    ConnectFailed,
    NotLeader,
    StreamKitError,
    TooManyConnections,
    TopicNotFound,
    TransportError,
    UsageError,
)
from streamkit.protocol.apis import WATCH, Api
from streamkit.protocol.connection import check_platform
from streamkit.protocol.control_plane import WatchRequest
from streamkit.protocol.specs import ObjectKind

logger = logging.getLogger("streamkit.client")

Q = TypeVar("Q")
A = TypeVar("A")

# How long to wait for a watch update before a topic or partition counts as missing. The response
# to Create uses another connection, so it can arrive before the update.
# Source: docs/protocol/admin.md, "Keeping a copy of the metadata".
_DELTA_S = 1.0
_FIRST_METADATA_S = 10.0
# How long to retry when a server accepts no more connections, because others may close soon. The
# time is random per client: if several clients had one connection each, waited for a second one
# and gave up at the same moment, none of them would ever succeed.
_FULL_SERVER_S_MIN, _FULL_SERVER_S_MAX = 0.2, 3.0
_FULL_SERVER_PAUSE_S = 0.1


class Unfinished(Protocol):
    """An object with accepted but unfinished work, which the client closes when it ends."""

    def shut(self) -> None:
        """Accept no more work."""

    async def close_with(self, error: BaseException | None, *, is_last: bool = False) -> None:
        """Finish the accepted work; ``error`` is the exception that ended the client's block.

        Raises:
            StreamKitError: The work cannot be finished, and the block ended without an error.
        """


class Cluster:
    """Finds the leaders of partitions and sends requests to them.

    Args:
        address: The SC, as ``host:port``.
        client_id: The name that this client sends to servers.
        clock: The source of time.
        connect_s: The timeout for opening a connection.
        use_local_address: Whether to connect to the local endpoint of SPUs.
        tls: How to secure connections; None means no TLS.

    Raises:
        ConfigError: A certificate cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        client_id: str,
        clock: Clock,
        connect_s: float,
        use_local_address: bool = False,
        tls: Tls | None = None,
    ) -> None:
        self.address = address
        self.clock = clock
        self.metadata = MetadataStore()
        self._client_id = client_id
        self._connect_s = connect_s
        self._use_local_address = use_local_address
        self._tls = tls
        self._tls_context = None if tls is None else tls.context()
        self._domain = None if tls is None else tls.domain
        self.is_closed = False
        self._unfinished: dict[int, Unfinished] | None = {}
        self._tasks: TaskGroup | None = None
        self._sc: Channel | None = None
        self._spus: dict[str, Channel] = {}
        self._opening: dict[str, anyio.Lock] = {}
        self._changed = Broadcast()

    # --- lifecycle ---------------------------------------------------------------

    async def open(self, tasks: TaskGroup) -> None:
        """Connect to the SC and start the watches.

        Raises:
            ConnectFailed: There is no response from that address.
            UnsupportedServer: The server is not a Fluvio SC, or is too old.
            UsageError: The client was closed.
        """
        if self.is_closed:
            raise self._closed()
        self._tasks = tasks
        await self._sc_channel()

    def start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task until the client closes.

        An error of the task is logged and ends only this task.

        Raises:
            UsageError: The client is not open, or was closed.
        """
        self._open_tasks().start_soon(_guarded, function)

    def add_unfinished(self, unfinished: Unfinished) -> None:
        """Register an object to close before the connections are closed.

        Raises:
            UsageError: The client is being closed.
        """
        if self._unfinished is None:
            raise self._closed()
        self._unfinished[id(unfinished)] = unfinished

    def remove_unfinished(self, finished: Unfinished) -> None:
        """Remove an object that `add_unfinished` registered."""
        if self._unfinished is not None:
            self._unfinished.pop(id(finished), None)

    async def finish(self, error: BaseException | None) -> None:
        """Close all registered objects concurrently and accept no more.

        Args:
            error: The exception that ended the client's block. Notes about records that could
                not be delivered are added to it.

        Raises:
            StreamKitError: The first failure, with the others as notes.
        """
        unfinished, self._unfinished = list((self._unfinished or {}).values()), None
        problems: list[Exception] = []

        async def close(each: Unfinished) -> None:
            try:
                await each.close_with(error, is_last=True)
            except Exception as problem:
                problems.append(problem)

        for each in unfinished:
            each.shut()
        if unfinished:
            async with anyio.create_task_group() as tasks:
                for each in unfinished:
                    tasks.start_soon(close, each)
        if problems:
            for other in problems[1:]:
                problems[0].add_note(str(other))
            raise problems[0]

    def move(self, address: str) -> None:
        """Use another address of the SC from now on."""
        self.address = address

    async def close(self) -> None:
        self.is_closed = True
        for channel in (self._sc, *self._spus.values()):
            if channel is not None:
                await channel.close()

    def forget_tasks(self) -> None:
        """Forget the task group, which has ended; no task can be started any more."""
        self._tasks = None

    def _open_tasks(self) -> TaskGroup:
        if self._tasks is not None:
            return self._tasks
        if self.is_closed:
            raise self._closed()
        raise UsageError(
            f"the client of {self.address} is not open",
            hint="open it first: `async with Client.connect(...) as client:`",
        )

    def _closed(self) -> UsageError:
        return UsageError(f"the client of {self.address} is closed")

    # --- requests ------------------------------------------------------------------

    async def admin(self, api: Api[Q, A], request: Q, *, timeout_s: float = 60.0) -> A:
        """Send a request to the SC; reconnect first if the connection was lost.

        Raises:
            TransportError: The connection failed; ``sent`` shows whether the server may have
                processed the request.
        """
        channel = await self._sc_channel()
        return await channel.call(api, request, timeout_s=timeout_s)

    async def leader(self, topic: str, partition: int) -> str:
        """Return the address of the SPU that leads a partition, to pass to `spu` or `connect`.

        The address is ``host:port``, or ``name@host:port`` if the TLS settings have a domain. The
        name distinguishes SPUs that share the address of one proxy.

        Raises:
            TopicNotFound: The topic does not exist.
            NotLeader: The topic exists, but its partition or the leader is not known yet.
        """
        await self.partition_count(topic)

        def find() -> str | None:
            return self.metadata.leader_address(
                topic, partition, local=self._use_local_address, domain=self._domain
            )

        address = await self._wait_for(find)
        if address is None:
            raise NotLeader(3001, f"{topic}-{partition} has no leader", retryable=True)
        return address

    async def partition_count(self, topic: str) -> int:
        """Return the number of partitions of a topic.

        Raises:
            TopicNotFound: The topic does not exist.
        """
        count = await self._wait_for(lambda: self.metadata.partition_count(topic) or None)
        if count is None:
            raise TopicNotFound(topic, hint=self.metadata.did_you_mean(topic))
        return count

    async def spu(self, address: str) -> Channel:
        """Return the shared connection to an SPU.

        Raises:
            ConnectFailed: The SPU cannot be reached.
        """
        channel = self._spus.get(address)
        if channel is not None and channel.is_open:
            return channel
        lock = self._opening.setdefault(address, anyio.Lock())
        async with lock:
            channel = self._spus.get(address)
            if channel is None or not channel.is_open:
                channel = self._spus[address] = await self.connect(address)
            return channel

    async def connect(self, address: str) -> Channel:
        """Open a separate connection to an address that `leader` returned, or to the SC.

        Raises:
            ConnectFailed: The server cannot be reached, or its certificate is not trusted.
            TooManyConnections: The server accepts no more connections.
            UsageError: The client is not open, or was closed.
        """
        name, _, endpoint = address.rpartition("@")
        until_s = None
        while True:
            self._open_tasks()
            try:
                return await open_channel(
                    endpoint,
                    self._client_id,
                    self.start,
                    connect_s=self._connect_s,
                    tls=self._server_tls(name, endpoint),
                )
            except TooManyConnections as error:
                now_s = self.clock.monotonic_s()
                if until_s is None:
                    logger.warning("waiting until the server accepts a connection: %s", error)
                    until_s = now_s + _full_server_s()
                if now_s > until_s:
                    raise
                await self.clock.sleep(_FULL_SERVER_PAUSE_S)

    def _server_tls(self, name: str, endpoint: str) -> ServerTls | None:
        if self._tls is None or self._tls_context is None:
            return None
        name = name or self._domain or endpoint.rpartition(":")[0].strip("[]")
        return ServerTls(self._tls_context, name, self._tls.client_cert is not None)

    # --- metadata --------------------------------------------------------------------

    async def metadata_changed(self) -> None:
        """Wait until a watch reports a change of topics, partitions or SPUs, or ends."""
        await self._changed.wait()

    async def _wait_for(self, find: Callable[[], A | None]) -> A | None:
        """Look something up; wait briefly for a watch update before it counts as missing."""
        found = find()
        if found is not None and self._sc is not None and self._sc.is_open:
            return found
        await self._sc_channel()
        with anyio.move_on_after(_DELTA_S):
            while (found := find()) is None:
                await self._changed.wait()
        return found

    async def _sc_channel(self) -> Channel:
        lock = self._opening.setdefault(self.address, anyio.Lock())
        async with lock:
            if self._sc is not None and self._sc.is_open:
                return self._sc
            self.metadata.forget()
            channel = await self.connect(self.address)
            try:
                await self._watch_all(channel)
            except BaseException:
                # No other code has the channel yet, so it must be closed here.
                with anyio.CancelScope(shield=True):
                    await channel.close()
                raise
            self._sc = channel
            return channel

    async def _watch_all(self, channel: Channel) -> None:
        """Start the watches and wait for their first responses.

        Raises:
            ConnectFailed: The responses do not arrive.
            UnsupportedServer: The server is not an SC, or does not support watches.
        """
        check_platform(channel.platform_version)
        channel.version_of(WATCH)
        for kind in WATCHED:
            self._start_watch(channel, kind)
        with anyio.move_on_after(_FIRST_METADATA_S):
            while not self.metadata.is_filled and channel.is_open:
                await self._changed.wait()
        if not self.metadata.is_filled:
            raise ConnectFailed(self.address, "it did not send the list of topics")

    def _start_watch(self, channel: Channel, kind: ObjectKind) -> None:
        async def keep() -> None:
            try:
                responses = await channel.open_stream(WATCH, WatchRequest(kind))
                while True:
                    self.metadata.apply(await responses.receive())
                    self._wake()
            except TransportError:
                self._wake()  # the next request reconnects and starts the watches again
            except StreamKitError:
                logger.exception("watching %s failed", kind.name)
                await channel.close()
                self._wake()

        self.start(keep)

    def _wake(self) -> None:
        self._changed.notify()


def _full_server_s() -> float:
    fraction = random_bits(16) / (1 << 16)
    return _FULL_SERVER_S_MIN + fraction * (_FULL_SERVER_S_MAX - _FULL_SERVER_S_MIN)


async def _guarded(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a task of the client; an error in it must not end the other tasks."""
    try:
        await function()
    except Exception:
        logger.exception("a task of the client failed")
