"""The client without an event loop: the same names, plain calls and plain iterators.

One event loop runs in a thread of its own, started with the first client and shared by all.
Waiting never holds the interpreter: other threads go on.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from streamkit.client import Client as AsyncClient
from streamkit.client import (
    ManyHandle,
    ManyMetadata,
    RecordHandle,
    RecordMetadata,
)
from streamkit.client.consumer import Consumer as AsyncConsumer
from streamkit.client.producer import Producer as AsyncProducer
from streamkit.record import Chunk, Record
from streamkit.sync.admin import Admin

T = TypeVar("T")

_lock = threading.Lock()
_portal: BlockingPortal | None = None


def _shared_portal() -> BlockingPortal:
    """Return the one loop in its thread; it ends with the process."""
    global _portal
    with _lock:
        if _portal is None:
            manager = start_blocking_portal()
            _portal = manager.__enter__()
            atexit.register(manager.__exit__, None, None, None)
        return _portal


class Handle:
    """A record on its way."""

    def __init__(self, portal: BlockingPortal, handle: RecordHandle) -> None:
        self._portal = portal
        self._handle = handle

    def wait(self) -> RecordMetadata:
        """Wait until the record is stored and return where."""
        return self._portal.call(_await, self._handle)


class HandleOfMany:
    """The records of one `Producer.send_many`."""

    def __init__(self, portal: BlockingPortal, handle: ManyHandle) -> None:
        self._portal = portal
        self._handle = handle

    def wait(self) -> ManyMetadata:
        """Wait until all records are stored and return where."""
        return self._portal.call(_await, self._handle)


class Producer:
    """Writes to one topic; use it with ``with``. See `streamkit.client.Producer`."""

    def __init__(self, portal: BlockingPortal, producer: AsyncProducer) -> None:
        self._portal = portal
        self._producer = producer

    def send(
        self,
        value: bytes | str,
        key: bytes | str | None = None,
        *,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Handle:
        """Take a record; see `streamkit.client.Producer.send`."""

        async def send() -> RecordHandle:
            return await self._producer.send(
                value, key, timestamp_ms=timestamp_ms, partition=partition
            )

        return Handle(self._portal, self._portal.call(send))

    def send_many(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None = None,
        *,
        timestamps_ms: Sequence[int] | None = None,
    ) -> HandleOfMany:
        """Take many records as columns; see `streamkit.client.Producer.send_many`."""

        async def send() -> ManyHandle:
            return await self._producer.send_many(values, keys, timestamps_ms=timestamps_ms)

        return HandleOfMany(self._portal, self._portal.call(send))

    def flush(self) -> None:
        """Wait until everything is stored; raise the first refusal."""
        self._portal.call(self._producer.flush)

    def close(self, *, deadline_s: float | None = None) -> None:
        """Flush, then stop; see `streamkit.client.Producer.close`."""
        self._portal.call(lambda: self._producer.close(deadline_s=deadline_s))

    def __enter__(self) -> Producer:
        self._portal.call(self._producer.open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal.call(self._producer.__aexit__, kind, error, trace)


class Consumer:
    """Reads one topic; iterate it. See `streamkit.client.Consumer`."""

    def __init__(self, portal: BlockingPortal, consumer: AsyncConsumer) -> None:
        self._portal = portal
        self._consumer = consumer

    def chunks(self) -> Iterator[Chunk]:
        """Read whole columns: the fast way."""
        source = self._consumer.chunks()
        try:
            while (chunk := self._portal.call(_next_or_none, source)) is not None:
                yield chunk
        finally:
            self._portal.call(source.aclose)

    def __iter__(self) -> Iterator[Record[bytes]]:
        # One hop to the loop is paid per chunk, not per record.
        for chunk in self.chunks():
            yield from chunk.records()

    def commit(self, record: Record[Any] | None = None) -> None:
        """Store how far the application has processed."""
        self._portal.call(self._consumer.commit, record)

    def close(self) -> None:
        """Stop reading."""
        self._portal.call(self._consumer.close)

    def __enter__(self) -> Consumer:
        self._portal.call(self._consumer.open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal.call(self._consumer.__aexit__, kind, error, trace)


class Client:
    """A connection to a cluster; use it with ``with``. Options as in `streamkit.Client`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._portal = _shared_portal()
        self.admin = Admin(self._portal, client)
        self._life: Any = None

    @classmethod
    def connect(cls, address: str | None = None, **options: Any) -> Client:
        """Prepare a connection, which ``with`` opens; options as in `streamkit.Client.connect`."""
        return cls(AsyncClient.connect(address, **options))

    def producer(self, topic: str, **options: Any) -> Producer:
        """Make a producer; options as in `streamkit.Client.producer`."""
        return Producer(self._portal, self._client.producer(topic, **options))

    def consumer(self, topic: str, **options: Any) -> Consumer:
        """Make a consumer; options as in `streamkit.Client.consumer`."""
        return Consumer(self._portal, self._client.consumer(topic, **options))

    def __enter__(self) -> Client:
        # One task enters and leaves: cancel scopes belong to the task that made them.
        self._life = self._portal.wrap_async_context_manager(self._client)
        self._life.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._life.__exit__(kind, error, trace)


async def _await(handle: Awaitable[T]) -> T:
    return await handle


async def _next_or_none(source: AsyncGenerator[Chunk, None]) -> Chunk | None:
    return await anext(source, None)
