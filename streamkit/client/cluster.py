"""The connections of a client: one to the SC with its watches, one to each SPU in use."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from streamkit.broadcast import Broadcast
from streamkit.client.backoff import Backoff, OnRetry
from streamkit.client.channel import Channel, open_channel
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

# How long to wait for a delta before a topic or partition counts as missing: an answer to
# Create can overtake it on another connection. Source: control plane reference, 2.3.
_DELTA_S = 1.0
_FIRST_METADATA_S = 10.0
# How long it is tried again where a server accepts no more connections: others may be leaving.
# Not equally long by all clients: those that all have one connection and wait for a second one
# would give up together, and none of them would ever work.
_CROWDED_S_MIN, _CROWDED_S_MAX = 0.2, 3.0
_CROWDED_PAUSE_S = 0.1


class Unfinished(Protocol):
    """Something that holds what was accepted, and that the end of the client has to close."""

    def shut(self) -> None:
        """Accept nothing more."""

    async def close_with(self, error: BaseException | None, *, is_last: bool = False) -> None:
        """Finish what was accepted; ``error`` is what ended the client's block.

        Raises:
            StreamKitError: It cannot be finished, and the block has no error of its own.
        """


class Cluster:
    """Knows where partitions are and carries requests there.

    Args:
        address: The SC, as ``host:port``.
        client_id: What servers shall call us.
        clock: Time.
        connect_s: How long a connection may take.
        use_local_address: Whether SPUs are reached by their local endpoint.
        tls: How connections are secured; None leaves them plain.

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

    # --- life --------------------------------------------------------------------

    async def open(self, tasks: TaskGroup) -> None:
        """Connect to the SC and start the watches.

        Raises:
            ConnectFailed: Nothing answers there.
            UnsupportedServer: It is no Fluvio SC, or too old.
            UsageError: It was closed.
        """
        if self.is_closed:
            raise self._closed()
        self._tasks = tasks
        await self._sc_channel()

    def start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something for as long as the client lives.

        What it raises ends itself and is logged: the other tasks of the client work on.

        Raises:
            UsageError: It is not open, or was closed.
        """
        self._open_tasks().start_soon(_guarded, function)

    def must_close(self, unfinished: Unfinished) -> None:
        """Remember to close something before the connections.

        Raises:
            UsageError: The client is being closed.
        """
        if self._unfinished is None:
            raise self._closed()
        self._unfinished[id(unfinished)] = unfinished

    def is_done(self, finished: Unfinished) -> None:
        """Forget it again."""
        if self._unfinished is not None:
            self._unfinished.pop(id(finished), None)

    async def finish(self, error: BaseException | None) -> None:
        """Close what has to be closed, all of it at once; nothing more is accepted.

        Args:
            error: What ended the client's block; it gets notes of what could not be delivered.

        Raises:
            StreamKitError: The first problem, with notes of the others.
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
        """Learn that the SC is reached elsewhere from now on."""
        self.address = address

    async def close(self) -> None:
        self.is_closed = True
        for channel in (self._sc, *self._spus.values()):
            if channel is not None:
                await channel.close()

    def ended(self) -> None:
        """Learn that the tasks have ended; nothing can be started any more."""
        self._tasks = None

    def _open_tasks(self) -> TaskGroup:
        if self._tasks is not None:
            return self._tasks
        if self.is_closed:
            raise self._closed()
        raise UsageError(
            f"the client of {self.address} is not open",
            hint="enter it first: `async with Client.connect(...) as client:`",
        )

    def _closed(self) -> UsageError:
        return UsageError(f"the client of {self.address} is closed")

    # --- requests ------------------------------------------------------------------

    async def admin(self, api: Api[Q, A], request: Q, *, timeout_s: float = 60.0) -> A:
        """Ask the SC; reconnect first if the connection was lost before.

        Raises:
            TransportError: The connection failed; ``sent`` tells whether the request may have
                been carried out.
        """
        channel = await self._sc_channel()
        return await channel.call(api, request, timeout_s=timeout_s)

    async def leader(self, topic: str, partition: int) -> str:
        """Return where the SPU is that leads a partition; it is for `spu` and `connect`.

        ``host:port``; in front of it, where servers are called by a domain, ``name@``. So SPUs
        that share an address, behind one proxy, are still told apart.

        Raises:
            TopicNotFound: There is no such topic.
            NotLeader: The topic is there; the partition, or its leader, is not yet.
        """
        await self.partition_count(topic)

        def find() -> str | None:
            return self.metadata.leader_address(
                topic, partition, local=self._use_local_address, domain=self._domain
            )

        address = await self._wait_for(find)
        if address is None:
            raise NotLeader(3001, f"nobody leads {topic}-{partition}", retryable=True)
        return address

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has.

        Raises:
            TopicNotFound: There is no such topic.
        """
        count = await self._wait_for(lambda: self.metadata.partition_count(topic) or None)
        if count is None:
            raise TopicNotFound(topic, hint=self.metadata.did_you_mean(topic))
        return count

    async def spu(self, address: str) -> Channel:
        """Return the shared connection to an SPU.

        Raises:
            ConnectFailed: It cannot be reached.
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
        """Open a connection of one's own to what `leader` gave, or to the SC.

        Raises:
            ConnectFailed: It cannot be reached, or there is no trust.
            TooManyConnections: It accepts no more connections.
            UsageError: The client is not open, or was closed.
        """
        name, _, place = address.rpartition("@")
        until_s = None
        while True:
            self._open_tasks()
            try:
                return await open_channel(
                    place,
                    self._client_id,
                    self.start,
                    connect_s=self._connect_s,
                    tls=self._server_tls(name, place),
                )
            except TooManyConnections as error:
                now_s = self.clock.monotonic_s()
                if until_s is None:
                    logger.warning("waiting a moment: %s", error)
                    until_s = now_s + _patience_s()
                if now_s > until_s:
                    raise
                await self.clock.sleep(_CROWDED_PAUSE_S)

    def _server_tls(self, name: str, place: str) -> ServerTls | None:
        if self._tls is None or self._tls_context is None:
            return None
        name = name or self._domain or place.rpartition(":")[0].strip("[]")
        return ServerTls(self._tls_context, name, self._tls.client_cert is not None)

    # --- metadata --------------------------------------------------------------------

    async def metadata_changed(self) -> None:
        """Wait until something is learned of topics, partitions or SPUs, or a watch ends."""
        await self._changed.wait()

    async def _wait_for(self, find: Callable[[], A | None]) -> A | None:
        """Look something up; give a delta a moment to arrive before it counts as missing."""
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
                # Nobody knows of it yet, so nobody else would close it.
                with anyio.CancelScope(shield=True):
                    await channel.close()
                raise
            self._sc = channel
            return channel

    async def _watch_all(self, channel: Channel) -> None:
        """Start the watches and wait for their first answers.

        Raises:
            ConnectFailed: They do not come.
            UnsupportedServer: It is no SC, or none that serves watches.
        """
        check_platform(channel.platform_version)
        channel.version_of(WATCH)
        for kind in WATCHED:
            self._start_watch(channel, kind)
        with anyio.move_on_after(_FIRST_METADATA_S):
            while not self.metadata.is_filled and channel.is_open:
                await self._changed.wait()
        if not self.metadata.is_filled:
            raise ConnectFailed(self.address, "it did not say which topics there are")

    def _start_watch(self, channel: Channel, kind: ObjectKind) -> None:
        async def keep() -> None:
            try:
                responses = await channel.open_stream(WATCH, WatchRequest(kind))
                while True:
                    self.metadata.apply(await responses.receive())
                    self._wake()
            except TransportError:
                self._wake()  # the next request reconnects and starts anew
            except StreamKitError:
                logger.exception("watching %s failed", kind.name)
                await channel.close()
                self._wake()

        self.start(keep)

    def _wake(self) -> None:
        self._changed.notify()


def _patience_s() -> float:
    share = random_bits(16) / (1 << 16)
    return _CROWDED_S_MIN + share * (_CROWDED_S_MAX - _CROWDED_S_MIN)


async def _guarded(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a task of the client; an error that it leaks must not end those beside it."""
    try:
        await function()
    except Exception:
        logger.exception("a task of the client failed")


async def pause_before_retry(
    cluster: Cluster, backoff: Backoff, error: StreamKitError, what: str, on_retry: OnRetry | None
) -> None:
    """Tell that something is tried again, and wait for as long as its turn takes.

    Args:
        cluster: Whose clock counts.
        backoff: That of this incident.
        error: What went wrong.
        what: What is tried again, for the log, which is told where nobody else is.
        on_retry: Told the error and the number of the attempt that failed. What it raises is
            logged: it must not end the work of others.
    """
    pause_s = backoff.next_s()
    if on_retry is None:
        logger.warning("%s: trying again in %.1f s: %s", what, pause_s, error)
    else:
        try:
            on_retry(error, backoff.attempt)
        except Exception:
            logger.exception("on_retry failed for %s", what)
    await cluster.clock.sleep(pause_s)


async def retrying(
    cluster: Cluster,
    attempt: Callable[[], Awaitable[A]],
    what: str,
    *,
    open_timeout_s: float | None,
    on_retry: OnRetry | None = None,
) -> A:
    """Do something that is safe to repeat until it succeeds or time is up.

    Args:
        cluster: Whose clock counts.
        attempt: What to do; retried on every error that says it is retryable.
        what: As for `pause_before_retry`, with ``on_retry``.
        open_timeout_s: Seconds after which the last error is raised; None never gives up.
        on_retry: Told of each failure.
    """
    backoff = Backoff()
    started_s = cluster.clock.monotonic_s()
    while True:
        try:
            return await attempt()
        except StreamKitError as error:
            waited_s = cluster.clock.monotonic_s() - started_s
            if not error.retryable or (open_timeout_s is not None and waited_s >= open_timeout_s):
                raise
            await pause_before_retry(cluster, backoff, error, what, on_retry)
