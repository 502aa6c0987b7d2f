"""The only thread that writes to disk. It works in groups: write, sync, publish.

A sync starts as soon as there is something to sync; entries that arrive meanwhile join the next
group. There is no timer: an idle disk acknowledges immediately, a busy one in large groups.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from streamkit.broker.batch_validation import Entry
from streamkit.broker.catalog_journal import CatalogJournal
from streamkit.broker.files import OpenFiles
from streamkit.broker.journal import FULL_DISK
from streamkit.broker.partition_log import LogEnd, PartitionLog
from streamkit.env import Disk
from streamkit.limits import JOURNAL_SYNC_S_MAX, SYNC_GROUP_BYTES_MAX
from streamkit.protocol.error_codes import Code, ErrorCode, partition_full

logger = logging.getLogger("streamkit.broker")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of an append: the offset of the first record, or why it is not stored."""

    base_offset: int
    error: ErrorCode | None = None


@dataclass(slots=True)
class _Append:
    log: PartitionLog
    entry: Entry
    done: asyncio.Future[Appended]
    outcome: Appended = Appended(0)


@dataclass(slots=True)
class _DiskTask:
    """Other work that must run between groups, such as creating the files of a topic."""

    run: Callable[[], Any]
    done: asyncio.Future[Any]
    result: Any = None
    failure: BaseException | None = None


@dataclass(slots=True)
class _Group:
    appends: list[_Append] = field(default_factory=list)
    tasks: list[_DiskTask] = field(default_factory=list)
    size_bytes: int = 0


_STOP = object()


class LogWriter:
    """Accepts appends and catalog changes on the event loop and acknowledges them there.

    Calls ``on_end`` on the loop for each log with a new durable end.
    """

    def __init__(
        self,
        disk: Disk,
        journal: CatalogJournal,
        *,
        is_durable: bool,
        on_end: Callable[[PartitionLog], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.disk = disk
        self.files = OpenFiles(disk, is_writer=True)
        self._journal = journal
        self._is_durable = is_durable
        self._on_end = on_end
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="streamkit-log-writer", daemon=True)
        self._ended = asyncio.Event()
        self._journal_syncs = ThreadPoolExecutor(1, "streamkit-journal-sync")
        self._journal_sync: Future[None] | None = None

    def start(self) -> None:
        self._thread.start()

    def append(self, log: PartitionLog, entry: Entry) -> asyncio.Future[Appended]:
        """Store an entry; the future is done when the entry is on disk, or is known not to be."""
        done: asyncio.Future[Appended] = self._loop.create_future()
        self._queue.put(_Append(log, entry, done))
        return done

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function on the writer's thread, after all earlier appends and functions."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_DiskTask(function, done))
        return done

    async def close(self) -> None:
        """Write and sync everything submitted so far, then end the thread."""
        self._queue.put(_STOP)
        await self._ended.wait()
        self._thread.join()
        self._journal_syncs.shutdown()
        self.files.close()

    # --- on the thread ---------------------------------------------------------

    def _run(self) -> None:
        stopping = False
        try:
            while not stopping:
                group, stopping = self._next_group()
                if group is not None:
                    self._store(group)
            self._sync_journal_now()
        except BaseException as failure:
            # The journal is no longer reliable: from now on nothing is acknowledged.
            self._loop.call_soon_threadsafe(self._on_failure, failure)
        finally:
            self._loop.call_soon_threadsafe(self._ended.set)

    def _next_group(self) -> tuple[_Group | None, bool]:
        """Wait for work, then collect all available work, up to the size of a group."""
        try:
            item = self._queue.get(timeout=JOURNAL_SYNC_S_MAX if self._journal.is_dirty else None)
        except queue.Empty:
            self._sync_journal_now()
            return None, False
        group = _Group()
        while item is not _STOP:
            if isinstance(item, _Append):
                group.appends.append(item)
                group.size_bytes += item.entry.size_bytes
            else:
                group.tasks.append(item)
            if group.tasks or group.size_bytes >= SYNC_GROUP_BYTES_MAX:
                return group, False  # a task runs after all earlier work, never with later work
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _store(self, group: _Group) -> None:
        self._begin_journal_sync()
        ends = self._write_and_sync(group) if self._reserve_journal_space(group) else {}
        self._finish_journal_sync()
        if ends:
            self._journal.store_ends(ends)
        for task in group.tasks:
            try:
                task.result = task.run()
            except Exception as failure:
                if self._journal.failure is not None:
                    raise
                task.failure = failure
        self._loop.call_soon_threadsafe(self._publish, group, ends)

    def _reserve_journal_space(self, group: _Group) -> bool:
        """Reserve journal space for the group before any of it is written."""
        logs = {append.log for append in group.appends}
        if not logs:
            return True
        try:
            self._journal.reserve_space(len(logs))
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            for append in group.appends:
                full = partition_full(append.log.topic, append.log.partition)
                append.outcome = Appended(0, append.log.refusal or full)
            return False
        return True

    def _write_and_sync(self, group: _Group) -> dict[PartitionLog, LogEnd]:
        dirty: dict[PartitionLog, None] = {}
        for append in group.appends:
            append.outcome = self._append_one(append)
            if append.outcome.error is None:
                dirty[append.log] = None
        ends: dict[PartitionLog, LogEnd] = {}
        for log in dirty:
            try:
                if log.has_failed_sync:
                    raise OSError("an earlier sync of this group failed")
                ends[log] = log.sync(self.files) if self._is_durable else log.written_end()
            except OSError:
                for append in group.appends:
                    if append.log is log:
                        append.outcome = Appended(0, ErrorCode(Code.STORAGE_ERROR))
        return ends

    def _append_one(self, append: _Append) -> Appended:
        log = append.log
        if log.refusal is not None:
            return Appended(0, log.refusal)
        try:
            return Appended(log.append(append.entry, self.files))
        except OSError as error:
            if error.errno in FULL_DISK and log.refusal is None:
                return Appended(0, partition_full(log.topic, log.partition))
            return Appended(0, ErrorCode(Code.STORAGE_ERROR))

    def _begin_journal_sync(self) -> None:
        if self._journal.is_dirty and self._is_durable:
            self._journal_sync = self._journal_syncs.submit(self._journal.sync)

    def _finish_journal_sync(self) -> None:
        if self._journal_sync is not None:
            self._journal_sync.result()
            self._journal_sync = None

    def _sync_journal_now(self) -> None:
        if self._journal.is_dirty:
            self._journal.sync()

    # --- back on the loop --------------------------------------------------------

    def _publish(self, group: _Group, ends: dict[PartitionLog, LogEnd]) -> None:
        for log, end in ends.items():
            log.synced(end)
        for append in group.appends:
            if not append.done.cancelled():
                append.done.set_result(append.outcome)
        for task in group.tasks:
            if task.done.cancelled():
                continue
            if task.failure is not None:
                task.done.set_exception(task.failure)
            else:
                task.done.set_result(task.result)
        for log in ends:
            try:
                self._on_end(log)
            except Exception:  # an error of one log must not affect the readers of the others
                logger.exception("%s-%d: notifying its readers failed", log.topic, log.partition)
