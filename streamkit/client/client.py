"""The client: one object for producers, consumers and administration of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

import anyio

from streamkit.client import checks
from streamkit.client.admin.admin import Admin
from streamkit.client.backoff import DEFAULT_POLICY, OnRetry, RetryPolicy
from streamkit.client.cluster import Cluster
from streamkit.client.consume.consumer import Consumer
from streamkit.client.consume.fetch import Fetched, fetch
from streamkit.client.options import (
    BatchReport,
    ConsumerOptions,
    Delivery,
    OffsetStrategy,
    OnEvicted,
    Partitioner,
    ProducerOptions,
)
from streamkit.client.produce.producer import Producer
from streamkit.client.profile.profile import load_profiles, profile_path
from streamkit.client.smartmodules.smartmodule import SmartModule, chain_of
from streamkit.client.tls import Tls
from streamkit.env import Clock, SystemClock
from streamkit.errors import ConfigError, UsageError
from streamkit.limits import (
    BATCH_BYTES_DEFAULT,
    BATCH_BYTES_HARD_MAX,
    FETCH_BYTES_DEFAULT,
    FRAME_BYTES_MAX,
    MIB,
    REQUEST_BYTES_DEFAULT,
)
from streamkit.protocol.compression import Codec
from streamkit.protocol.data_plane import (
    ACKS_ALL,
    ACKS_LEADER,
    READ_COMMITTED,
    READ_UNCOMMITTED,
)
from streamkit.record import Compression, Isolation, Offset, Topic

_ACKS: Final = {"read_committed": ACKS_ALL, "read_uncommitted": ACKS_LEADER}
_ISOLATIONS: Final = {"read_committed": READ_COMMITTED, "read_uncommitted": READ_UNCOMMITTED}
_CODECS: Final = {codec.name.lower(): codec for codec in Codec}
_DELIVERIES: Final[dict[str, Delivery]] = {
    "at-least-once": "at-least-once",
    "at-most-once": "at-most-once",
}
_STRATEGIES: Final[dict[str, OffsetStrategy]] = {"none": "none", "manual": "manual", "auto": "auto"}
_ON_EVICTED: Final[dict[str, OnEvicted]] = {
    "fail": "fail",
    "earliest": "earliest",
    "latest": "latest",
}
_TIMEOUT_S_MAX: Final = checks.I32_MAX // 1_000
# A response frame also holds headers around the records.
_READ_BYTES_MAX: Final = FRAME_BYTES_MAX - MIB


class Client:
    """A connection to a Fluvio cluster, or to the embedded broker.

    Create one with `connect` and use it with ``async with``. It runs on asyncio and on trio.
    """

    def __init__(
        self,
        address: str,
        *,
        client_id: str = "streamkit",
        connect_timeout: float | timedelta = 5.0,
        clock: Clock | None = None,
        use_local_address: bool = False,
        tls: Tls | None = None,
    ) -> None:
        self._cluster = Cluster(
            checks.text("address", address, may_be_empty=True),
            client_id=checks.text("client_id", client_id),
            clock=clock or SystemClock(),
            connect_s=checks.seconds("connect_timeout", connect_timeout),
            use_local_address=use_local_address,
            tls=checks.optional(checks.instance, "tls", tls, Tls),
        )
        self._stack = AsyncExitStack()
        self.admin = Admin(self._cluster)

    @classmethod
    def connect(
        cls,
        address: str | None = None,
        *,
        profile: str | None = None,
        tls: Tls | None = None,
        client_id: str = "streamkit",
        connect_timeout: float | timedelta = 5.0,
    ) -> Client:
        """Prepare a connection, which ``async with`` opens.

        Args:
            address: The SC as ``host:port``.
            profile: A profile from Fluvio's profile file, instead of an address. Without an
                address or a profile, the file's current profile is used.
            tls: How to secure connections to ``address``; a profile has its own TLS settings.
            client_id: The name that this client sends to servers.
            connect_timeout: How long to try to connect, in seconds or as a timedelta.

        Raises:
            ConfigError: The profile does not exist, or a certificate cannot be read.
            UsageError: Both an address and a profile are given, or ``tls`` without an address.
        """
        local = False
        if address is not None and profile is not None:
            raise UsageError("give an address or a profile, not both")
        if address is None and tls is not None:
            raise UsageError(
                "tls is given without an address",
                hint="a profile has its own TLS settings; `streamkit profile add` creates one",
            )
        if address is None:
            profiles = load_profiles(profile_path(os.environ, Path.home()))
            name = checks.optional(checks.text, "profile", profile)
            found = profiles.active() if name is None else profiles.get(name)
            if found is None:
                raise ConfigError(
                    f"no address or profile is given, and {profiles.path} has no current profile",
                    hint='give an address: Client.connect("127.0.0.1:9103")',
                )
            address, local = found.endpoint, found.use_spu_local_address
            tls = found.tls
        return cls(
            address,
            client_id=client_id,
            connect_timeout=connect_timeout,
            use_local_address=local,
            tls=tls,
        )

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    @property
    def address(self) -> str:
        """The SC's address."""
        return self._cluster.address

    @property
    def cluster(self) -> Cluster:
        """The connections to the cluster; for code that extends the client."""
        return self._cluster

    async def __aenter__(self) -> Client:
        tasks = await self._stack.enter_async_context(_Background())
        try:
            await self._cluster.open(tasks.group)
        except BaseException:
            await self._stack.aclose()
            self._cluster.forget_tasks()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._cluster.finish(error)
        finally:
            with anyio.CancelScope(shield=True):
                await self._cluster.close()
            # Outside the shield: the task group was entered outside it as well.
            try:
                await self._stack.aclose()
            finally:
                self._cluster.forget_tasks()

    def producer(
        self,
        topic: str | Topic[object],
        *,
        batch_size: int = BATCH_BYTES_DEFAULT,
        max_request_size: int = REQUEST_BYTES_DEFAULT,
        linger: float | timedelta = 0.1,
        compression: Compression | None = None,
        isolation: Isolation = "read_uncommitted",
        timeout: float | timedelta = 1.5,
        partitioner: Partitioner | None = None,
        partition: int | None = None,
        queue_bytes: int = 8 << 20,
        queue_batches: int | None = None,
        delivery: Delivery = "at-least-once",
        delivery_timeout: float | timedelta | None = 300.0,
        close_timeout: float | timedelta | None = 30.0,
        retry: RetryPolicy = DEFAULT_POLICY,
        on_retry: OnRetry | None = None,
        on_batch: Callable[[BatchReport], None] | None = None,
        smartmodules: Sequence[SmartModule | str] = (),
    ) -> Producer:
        """Create a producer for one topic.

        Args:
            topic: The topic to write to.
            batch_size: Soft limit of a batch in bytes, before compression.
            max_request_size: Hard limit of a batch that holds a single record, in bytes. Servers
                reject batches above 32 MiB.
            linger: How long a batch that is not full may wait for more records.
            compression: The codec; by default that of the topic, or no compression.
            isolation: ``read_committed`` waits until every replica has a record.
            timeout: How long the server may wait for replicas.
            partitioner: A function that chooses a partition for each key of a column. By
                default SipHash for records with a key, and round robin for the others.
            partition: A single partition for all records.
            queue_bytes: How many bytes may wait per partition before `send` waits.
            queue_batches: How many full batches may wait per partition; None means that only
                ``queue_bytes`` limits them.
            delivery: ``at-least-once`` resends a batch until its outcome is known, so a batch
                may be stored twice. ``at-most-once`` sends each batch once, without waiting for
                the response to the batch before it, so a batch may be lost.
            delivery_timeout: How long a batch is retried before it fails; None never gives up.
            close_timeout: How long closing waits for unacknowledged records; None means that
                only the delivery timeout limits it.
            retry: The pauses between attempts, and the maximum number of retries.
            on_retry: Called with the error and the number of the attempt before each retry.
                Without it, each retry is logged as a warning.
            on_batch: Called with the outcome of each batch.
            smartmodules: A chain of SmartModules that the server applies to the records before
                it stores them, each a `SmartModule` or a name. The stored records then differ
                from the ones sent, so offsets are -1.

        Raises:
            UsageError: A value is not valid.
        """
        if partition is not None and partitioner is not None:
            raise UsageError(
                "partition and partitioner cannot be used together", hint="keep one of them"
            )
        size = partial(checks.whole, low=1, high=BATCH_BYTES_HARD_MAX)
        options = ProducerOptions(
            batch_size_bytes=size("batch_size", batch_size),
            max_request_size_bytes=size("max_request_size", max_request_size),
            linger_s=checks.seconds("linger", linger),
            compression=checks.optional(_codec, "compression", compression),
            acks=checks.choice("isolation", isolation, _ACKS),
            timeout_ms=round(checks.seconds("timeout", timeout, _TIMEOUT_S_MAX) * 1_000),
            partitioner=checks.function("partitioner", partitioner),
            partition=checks.optional(checks.whole, "partition", partition, 0, checks.U32_MAX),
            queue_bytes_max=checks.whole("queue_bytes", queue_bytes, 1, checks.I64_MAX),
            queue_batches_max=checks.optional(
                checks.whole, "queue_batches", queue_batches, 1, checks.I64_MAX
            ),
            delivery=checks.choice("delivery", delivery, _DELIVERIES),
            retry=checks.instance("retry", retry, RetryPolicy),
            delivery_timeout_s=checks.optional(
                checks.seconds, "delivery_timeout", delivery_timeout
            ),
            close_timeout_s=checks.optional(checks.seconds, "close_timeout", close_timeout),
            on_retry=checks.function("on_retry", on_retry),
            on_batch=checks.function("on_batch", on_batch),
            smartmodules=chain_of(smartmodules),
        )
        return Producer(self._cluster, checks.topic(topic), options)

    def consumer(
        self,
        topic: str | Topic[object],
        *,
        start: Offset | str | int = "beginning",
        partitions: int | Iterable[int] | None = None,
        until_end: bool = False,
        isolation: Isolation = "read_uncommitted",
        max_bytes: int = FETCH_BYTES_DEFAULT,
        prefetch_bytes: int = 4 << 20,
        consumer_id: str | None = None,
        offset_strategy: OffsetStrategy = "none",
        resume: bool = True,
        on_evicted: OnEvicted = "fail",
        smartmodules: Sequence[SmartModule | str] = (),
        start_offsets: dict[int, int] | None = None,
        open_timeout: float | timedelta | None = None,
        on_retry: OnRetry | None = None,
    ) -> Consumer:
        """Create a consumer of one topic.

        Args:
            topic: The topic to read.
            start: Where to start in each partition; see `Offset`.
            partitions: The partitions to read; all by default.
            until_end: Stop at the end offsets that the partitions have when the consumer opens.
            isolation: ``read_committed`` waits until every replica has a record.
            max_bytes: The size of one response of a partition.
            prefetch_bytes: How many bytes may wait for the application, over all partitions.
            consumer_id: The id of the consumer: reading resumes from its stored offsets.
            resume: Whether to resume from stored offsets; otherwise only ``start`` counts.
            offset_strategy: ``auto`` commits records when the application asks for the next
                ones, ``manual`` commits only in `Consumer.commit`.
            on_evicted: What to do if retention has removed the next offset.
            smartmodules: A chain of SmartModules that the server applies to the records before
                it sends them, each a `SmartModule` or a name.
            start_offsets: The first offset of single partitions, instead of ``start``.
            open_timeout: How long opening is retried after transient errors; None never gives
                up.
            on_retry: Called with the error and the number of the attempt before each retry.

        Raises:
            UsageError: A value is not valid.
        """
        options = ConsumerOptions(
            start=Offset.parse(start),
            partitions=checks.optional(checks.partitions, "partitions", partitions),
            start_offsets=checks.optional(checks.start_offsets, "start_offsets", start_offsets),
            until_end=checks.flag("until_end", until_end),
            isolation=checks.choice("isolation", isolation, _ISOLATIONS),
            max_bytes=checks.whole("max_bytes", max_bytes, 1, _READ_BYTES_MAX),
            prefetch_bytes=checks.whole("prefetch_bytes", prefetch_bytes, 1, checks.I64_MAX),
            consumer_id=checks.optional(checks.text, "consumer_id", consumer_id),
            offset_strategy=checks.choice("offset_strategy", offset_strategy, _STRATEGIES),
            resumes=checks.flag("resume", resume),
            on_evicted=checks.choice("on_evicted", on_evicted, _ON_EVICTED),
            smartmodules=chain_of(smartmodules),
            open_timeout_s=checks.optional(checks.seconds, "open_timeout", open_timeout),
            on_retry=checks.function("on_retry", on_retry),
        )
        return Consumer(self._cluster, checks.topic(topic), options)

    async def fetch(
        self,
        topic: str | Topic[object],
        partition: int,
        offset: int,
        *,
        max_bytes: int = FETCH_BYTES_DEFAULT,
        isolation: Isolation = "read_uncommitted",
    ) -> Fetched:
        """Read once from a partition, without a stream. At the end offset, nothing is returned.

        Args:
            topic: The topic to read.
            partition: The number of the partition.
            offset: The first offset to read.
            max_bytes: The size limit; the first batch is returned even if it is larger.
            isolation: See `consumer`.

        Raises:
            UsageError: A value is not valid.
            OffsetEvicted: Retention has removed the offset.
            OffsetOutOfRange: The offset is after the end offset.
            CorruptBatch: A batch does not match its checksum or its counts.
            BrokerError: The broker cannot serve it.
            TransportError: The connection failed.
        """
        return await fetch(
            self._cluster,
            checks.topic(topic),
            checks.whole("partition", partition, 0, checks.U32_MAX),
            checks.whole("offset", offset, 0, checks.I64_MAX),
            max_bytes=checks.whole("max_bytes", max_bytes, 1, _READ_BYTES_MAX),
            isolation=checks.choice("isolation", isolation, _ISOLATIONS),
        )


class _Background:
    """A task group that cancels its remaining tasks when its block ends."""

    def __init__(self) -> None:
        self.group = anyio.create_task_group()

    async def __aenter__(self) -> _Background:
        await self.group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.group.cancel_scope.cancel()
        # The block's own error is raised unchanged; a task group would wrap it.
        await self.group.__aexit__(None, None, None)


def _codec(name: str, value: object) -> Codec:
    return value if isinstance(value, Codec) else checks.choice(name, value, _CODECS)
