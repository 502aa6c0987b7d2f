"""The work of `streamkit consume`: whole chunks from the topic to standard output."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio

from streamkit.cli.formats import format_of, select_until, template
from streamkit.cli.session import GIVE_UP_S, Session, note, run_with_client
from streamkit.cli.signals import stop_signals
from streamkit.client import Consumer
from streamkit.record import Chunk, Offset

_COMMIT_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class ConsumeOptions:
    """The options of the command, as they were given."""

    topic: str
    beginning: bool
    head: int | None
    tail: int | None
    start: int | None
    end: int | None
    disable_continuous: bool
    count: int | None
    partitions: tuple[int, ...]
    consumer: str | None
    key_value: bool
    template: str | None
    output: str | None
    maxbytes: int
    isolation: Any

    @property
    def first(self) -> Offset:
        """Where to start."""
        if self.beginning:
            return Offset.beginning()
        if self.head is not None:
            return Offset.beginning(self.head)
        if self.tail is not None:
            return Offset.end(self.tail)
        return Offset.end() if self.start is None else Offset.absolute(self.start)


def run(options: ConsumeOptions) -> None:
    """Print until the end, the count, Ctrl-C or a closed pipe."""
    write = (
        format_of(options.output or "dynamic", with_keys=options.key_value)
        if options.template is None
        else template(options.template)
    )
    run_with_client(lambda session: _Work(session, options, write).run())


class _Work:
    """One call of `consume` on its way."""

    def __init__(self, session: Session, options: ConsumeOptions, write: Any) -> None:
        self._session = session
        self._options = options
        self._write = write
        self._left = options.count
        self._reached: set[int] = set()
        self._scope = anyio.CancelScope()
        self._failure: Exception | None = None
        self._failing_since_s: float | None = None

    async def run(self) -> None:
        options = self._options
        consumer = self._session.client.consumer(
            options.topic,
            start=options.first,
            partitions=options.partitions or None,
            until_end=options.disable_continuous,
            isolation=options.isolation,
            max_bytes=options.maxbytes,
            consumer_id=options.consumer,
            offset_strategy="none" if options.consumer is None else "manual",
            give_up=GIVE_UP_S,
            on_retry=self._on_retry,
        )
        with stop_signals(lambda number: self._scope.cancel()), self._scope:
            await consumer.open()
            self._tell_start(consumer)
            await self._print_all(consumer)
        if self._failure is not None:
            raise self._failure

    async def _print_all(self, consumer: Consumer) -> None:
        self._session.client.cluster.start(self._stop_when_nobody_reads)
        async with aclosing(consumer.chunks()) as chunks:
            async for chunk in chunks:
                self._failing_since_s = None
                await self._print(consumer, chunk)
                if self._left == 0 or self._is_complete(consumer):
                    return

    async def _print(self, consumer: Consumer, chunk: Chunk) -> None:
        last = chunk.offsets[-1]
        if self._options.end is not None:
            if last >= self._options.end:
                self._reached.add(chunk.partition)
            chunk = select_until(chunk, self._options.end)
        if self._left is not None:
            chunk = chunk.slice(0, self._left)
            self._left -= len(chunk)
        if not len(chunk):
            return
        sys.stdout.buffer.write(self._write(chunk))
        sys.stdout.buffer.flush()
        if self._options.consumer is not None:
            # What is printed is processed; not even Ctrl-C comes between the two.
            deadline_s = anyio.current_time() + _COMMIT_S_MAX
            with anyio.CancelScope(shield=True, deadline=deadline_s) as storing:
                await consumer.store(chunk.partition, chunk.offsets[-1])
            if storing.cancelled_caught:
                note(f"offset {chunk.offsets[-1]} of partition {chunk.partition} is not stored yet")

    def _is_complete(self, consumer: Consumer) -> bool:
        return self._options.end is not None and self._reached >= set(consumer.starts())

    def _tell_start(self, consumer: Consumer) -> None:
        options = self._options
        if options.first != Offset.end():
            return
        if options.disable_continuous and options.consumer is None:
            note("nothing to read behind the end; -B reads from the beginning")
        elif options.disable_continuous:
            return
        elif options.consumer is not None:
            note(f"waiting for records behind what {options.consumer!r} has read")
        else:
            note("waiting for new records; -B reads from the beginning")

    def _on_retry(self, error: Exception, attempt: int) -> None:
        """Say that the broker is away. To wait for it suits those only who wait for records."""
        now_s = anyio.current_time()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
            note(f"trying again: {error}")
        if self._options.disable_continuous and now_s - self._failing_since_s > GIVE_UP_S:
            self._failure = error
            self._scope.cancel()

    async def _stop_when_nobody_reads(self) -> None:
        """End with the reader of the pipe, also while there is nothing to write into it."""
        fd = sys.stdout.fileno()
        if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(fd).st_mode):
            await anyio.wait_readable(fd)  # the end that is written to is so once the other is gone
            self._scope.cancel()
