"""The work of `streamkit consume`: prints whole chunks of a topic to standard output."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio

from streamkit.cli.formats import (
    before,
    format_of,
    select_until,
    suppress_unknown,
    template,
    truncated,
)
from streamkit.cli.output import check_output
from streamkit.cli.session import OPEN_TIMEOUT_S, Session, note, run_with_client
from streamkit.cli.signals import cancelled_by_signals
from streamkit.client import Consumer, SmartModule
from streamkit.record import Chunk, Offset

_COMMIT_S_MAX = 5.0
# How long to wait after `--until` for records that were produced just before it.
_LATE_RECORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class ConsumeOptions:
    """The options of the command."""

    topic: str
    beginning: bool
    head: int | None
    tail: int | None
    start: int | None
    since: datetime | None
    end: int | None
    until: datetime | None
    disable_continuous: bool
    count: int | None
    partitions: tuple[int, ...]
    consumer: str | None
    key_value: bool
    template: str | None
    output: str | None
    suppress_unknown: bool
    truncate: bool
    maxbytes: int
    isolation: Any
    smartmodules: tuple[SmartModule, ...]

    @property
    def first(self) -> Offset:
        """The offset to start at."""
        if self.beginning:
            return Offset.beginning()
        if self.head is not None:
            return Offset.beginning(self.head)
        if self.tail is not None:
            return Offset.end(self.tail)
        if self.since is not None:
            return Offset.at_time(self.since)
        return Offset.end() if self.start is None else Offset.absolute(self.start)

    @property
    def stops_at_the_end(self) -> bool:
        """Whether to stop at the current end instead of waiting for new records."""
        is_past = self.until is not None and self.until <= datetime.now(UTC)
        return self.disable_continuous or is_past


def run(options: ConsumeOptions) -> None:
    """Print records until the end, the count, Ctrl-C or a closed pipe."""
    check_output()
    write = (
        format_of(options.output or "dynamic", with_keys=options.key_value)
        if options.template is None
        else template(options.template)
    )
    if options.truncate:
        write = truncated(write, shutil.get_terminal_size().columns)
    run_with_client(lambda session: _Command(session, options, write).run())


class _Command:
    """One running `consume`."""

    def __init__(self, session: Session, options: ConsumeOptions, write: Any) -> None:
        self._session = session
        self._options = options
        self._write = write
        self._stops_at_the_end = options.stops_at_the_end
        self._select_valid: Callable[[Chunk], Chunk] | None = None
        if options.suppress_unknown:
            self._select_valid = suppress_unknown(options.output or "dynamic")
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
            until_end=self._stops_at_the_end,
            isolation=options.isolation,
            max_bytes=options.maxbytes,
            smartmodules=options.smartmodules,
            consumer_id=options.consumer,
            offset_strategy="none" if options.consumer is None else "manual",
            open_timeout=OPEN_TIMEOUT_S,
            on_retry=self._on_retry,
        )
        with cancelled_by_signals(lambda number: self._scope.cancel()), self._scope:
            await consumer.open()
            self._note_start(consumer)
            await self._print_all(consumer)
        if self._failure is not None:
            raise self._failure

    async def _print_all(self, consumer: Consumer) -> None:
        self._session.client.cluster.start(self._stop_when_the_pipe_closes)
        if self._options.until is not None and not self._stops_at_the_end:
            self._session.client.cluster.start(self._stop_after_until)
        async with aclosing(consumer.chunks()) as chunks:
            async for chunk in chunks:
                self._failing_since_s = None
                try:
                    await self._print(consumer, chunk)
                except BrokenPipeError:
                    return  # the reader of our output needs no more
                if self._left == 0 or self._is_complete(consumer):
                    return

    async def _print(self, consumer: Consumer, chunk: Chunk) -> None:
        whole = chunk
        chunk = self._within_bounds(chunk)
        shown = chunk if self._select_valid is None else self._select_valid(chunk)
        if self._left is not None and len(shown) >= self._left:
            last = shown.offsets[self._left - 1]
            # A SmartModule may have turned the last record into several rows.
            is_complete = self._left == len(shown) or shown.offsets[self._left] != last
            shown = shown.slice(0, self._left)
            end = bisect_right(chunk.offsets, last)
            chunk = chunk.slice(0, end if is_complete else bisect_left(chunk.offsets, last) + 1)
        if self._left is not None:
            self._left -= len(shown)
        if len(shown):
            sys.stdout.buffer.write(self._write(shown))
            sys.stdout.buffer.flush()
        if self._options.consumer is not None and len(chunk):
            await self._store(consumer, chunk.partition, _processed(whole, len(chunk)))

    def _within_bounds(self, chunk: Chunk) -> Chunk:
        """Cut a chunk at ``--end`` and ``--until``, and remember if its partition reached one."""
        if chunk.partition in self._reached:
            return chunk.slice(0, 0)
        is_reached = False
        if self._options.until is not None:
            chunk, is_reached = before(chunk, round(self._options.until.timestamp() * 1_000))
        if self._options.end is not None and len(chunk):
            is_reached = is_reached or chunk.offsets[-1] >= self._options.end
            chunk = select_until(chunk, self._options.end)
        if is_reached:
            self._reached.add(chunk.partition)
        return chunk

    async def _store(self, consumer: Consumer, partition: int, offset: int) -> None:
        # Shielded, so that Ctrl-C cannot separate printing a record from storing its offset.
        if offset < 0:
            return
        deadline_s = anyio.current_time() + _COMMIT_S_MAX
        with anyio.CancelScope(shield=True, deadline=deadline_s) as scope:
            await consumer.store(partition, offset)
        if scope.cancelled_caught:
            note(
                f"offset {offset} of partition {partition} was not stored"
                f" within {_COMMIT_S_MAX:g} s"
            )

    def _is_complete(self, consumer: Consumer) -> bool:
        is_bounded = self._options.end is not None or self._options.until is not None
        return is_bounded and self._reached >= set(consumer.start_offsets())

    def _note_start(self, consumer: Consumer) -> None:
        options = self._options
        if options.first != Offset.end():
            return
        if options.disable_continuous and options.consumer is None:
            note("nothing to read after the end; -B reads from the beginning")
        elif options.disable_continuous:
            return
        elif options.consumer is not None:
            note(f"waiting for records after the stored offset of {options.consumer!r}")
        else:
            note("waiting for new records; -B reads from the beginning")

    def _on_retry(self, error: Exception, attempt: int) -> None:
        """Report the first of several failures. With a fixed end, give up after OPEN_TIMEOUT_S."""
        now_s = anyio.current_time()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
            note(f"retrying: {error}")
        if self._stops_at_the_end and now_s - self._failing_since_s > OPEN_TIMEOUT_S:
            self._failure = error
            self._scope.cancel()

    async def _stop_after_until(self) -> None:
        """Stop when the time ``--until`` has passed, so that no new record can match it."""
        assert self._options.until is not None, "started without --until"
        left_s = (self._options.until - datetime.now(UTC)).total_seconds()
        await anyio.sleep(max(0.0, left_s) + _LATE_RECORDS_S)
        self._scope.cancel()

    async def _stop_when_the_pipe_closes(self) -> None:
        """Stop when the reader of our output closes the pipe, even if there is nothing to write."""
        fd = sys.stdout.fileno()
        if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(fd).st_mode):
            # Linux reports the writing end of a pipe as readable once the reading end is closed.
            await anyio.wait_readable(fd)
            self._scope.cancel()


def _processed(chunk: Chunk, rows: int) -> int:
    """Return the last offset that is completely processed after the first rows of a chunk.

    A SmartModule may turn one record into several with the same offset. That offset is processed
    when the last of them is printed.
    """
    offset: int = chunk.offsets[rows - 1]
    is_split = rows < len(chunk) and chunk.offsets[rows] == offset
    return offset - 1 if is_split else offset
