"""Runs generator sources and buffers the values they yield.

A plain generator runs in its own thread, because it may block for any time; an async generator
runs as a task. Each fills a buffer that is limited in records and in bytes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, Protocol

import anyio

from streamkit.limits import CHUNK_RECORDS_MAX, FEED_BYTES_MAX

_RECORDS_MAX: Final = 2 * CHUNK_RECORDS_MAX
# Only one value in 16 is measured; the others are assumed to have the size of the last one.
_MEASURED_EVERY: Final = 16
_PARTS_MEASURED_MAX: Final = 64
# How long a stop waits for a plain generator to end. The thread of one that blocks longer is
# abandoned.
_END_S: Final = 1.0

Accept = Callable[[Any], Any]


class Feed(Protocol):
    """A running generator."""

    async def take(self, most: int) -> list[Any]:
        """Wait for a value, then return up to ``most`` values; an empty list at the end.

        Raises:
            BaseException: The generator raised it, after all values that were already taken.
        """

    def stop(self) -> None:
        """Stop the generator; values it has yielded can still be taken."""

    async def close(self) -> bool:
        """Close the generator, which runs its ``finally``; return whether it has ended."""


class _Buffer:
    """The buffered values and their estimated size."""

    def __init__(self) -> None:
        self._values: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._last_bytes = 0
        self._until_measured = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def is_full(self) -> bool:
        return self._bytes >= FEED_BYTES_MAX or len(self._values) >= _RECORDS_MAX

    def put(self, value: Any) -> None:
        size_bytes = self._size_bytes(value)
        self._bytes += size_bytes
        self._values.append((value, size_bytes))

    def take(self, most: int) -> list[Any]:
        taken = [self._values.popleft() for _ in range(min(most, len(self._values)))]
        self._bytes -= sum(size_bytes for _, size_bytes in taken)
        return [value for value, _ in taken]

    def _size_bytes(self, value: Any) -> int:
        if type(value) in (bytes, str):
            return len(value)
        if self._until_measured == 0:
            self._until_measured = _MEASURED_EVERY
            self._last_bytes = estimated_bytes(value)
        self._until_measured -= 1
        return self._last_bytes


def estimated_bytes(value: Any) -> int:
    """Estimate the bytes of a value and its parts, from a limited number of parts."""
    total = 0
    parts = deque([value])
    for _ in range(_PARTS_MEASURED_MAX):
        if not parts:
            return total
        part = parts.popleft()
        try:
            total += sys.getsizeof(part)
            parts.extend(_parts_of(part))
        except Exception:  # a user's class may hide its parts; then it is assumed to be small
            continue
    return total


def _parts_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*list(value)[:_PARTS_MEASURED_MAX], *list(value.values())[:_PARTS_MEASURED_MAX]]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)[:_PARTS_MEASURED_MAX]
    if isinstance(value, str | bytes | int | float | None):
        return []
    names: tuple[str, ...] = getattr(value, "__struct_fields__", ()) or getattr(
        value, "__slots__", ()
    )
    inside = [getattr(value, name, None) for name in names]
    return inside + list(getattr(value, "__dict__", {}).values())


class ThreadFeed:
    """Runs a plain generator in a daemon thread, so one that blocks forever cannot block the exit.

    Args:
        values: The generator.
        name: The name of the source.
        accept: Converts a value before the generator can change it; it may raise.
    """

    def __init__(self, values: Iterator[Any], name: str, accept: Accept) -> None:
        self._values = values
        self._accept = accept
        self._buffer = _Buffer()
        self._lock = threading.Lock()
        self._has_room = threading.Condition(self._lock)
        self._loop = asyncio.get_running_loop()
        self._arrived = anyio.Event()
        self._ended = anyio.Event()
        self._is_awaited = False
        self._is_over = False
        self._is_stopped = False
        self._failure: BaseException | None = None
        threading.Thread(target=self._run, name=f"streamkit-source-{name}", daemon=True).start()

    async def take(self, most: int) -> list[Any]:
        while True:
            with self._lock:
                taken = self._buffer.take(most)
                if taken:
                    self._has_room.notify()
                    return taken
                if self._is_over or self._is_stopped:
                    break
                self._arrived = anyio.Event()
                self._is_awaited = True
            await self._arrived.wait()
        if self._failure is not None:
            raise self._failure
        return []

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            self._has_room.notify()
        self._arrived.set()

    async def close(self) -> bool:
        self.stop()
        with anyio.move_on_after(_END_S):
            await self._ended.wait()
        return self._is_over

    def _run(self) -> None:
        try:
            for value in self._values:
                if not self._put(self._accept(value)):
                    break
            # A generator runs its `finally` here, in its own thread; other iterators have none.
            close = getattr(self._values, "close", None)
            if self._is_stopped and close is not None:
                close()
        except BaseException as error:
            self._failure = error
        finally:
            with self._lock:
                self._is_over = True
            self._call_in_loop(self._set_ended)

    def _put(self, value: Any) -> bool:
        """Buffer a value; return whether to read the next one."""
        with self._lock:
            # A value that arrives after the stop is kept: the generator cannot yield it again.
            self._buffer.put(value)
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            self._call_in_loop(self._set_arrived)
        with self._lock:
            while self._buffer.is_full and not self._is_stopped:
                self._has_room.wait()
            return not self._is_stopped

    def _set_arrived(self) -> None:
        self._arrived.set()

    def _set_ended(self) -> None:
        self._arrived.set()
        self._ended.set()

    def _call_in_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # the loop is closed, because the job has ended


class TaskFeed:
    """Runs an async generator as a task; see `ThreadFeed`."""

    def __init__(self, values: AsyncIterator[Any], accept: Accept) -> None:
        self._values = values
        self._accept = accept
        self._buffer = _Buffer()
        self._arrived = anyio.Event()
        self._room = anyio.Event()
        self._is_over = False
        self._is_stopped = False
        self._failure: BaseException | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def take(self, most: int) -> list[Any]:
        while not len(self._buffer) and not self._is_over:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        taken = self._buffer.take(most)
        if not taken and self._failure is not None:
            raise self._failure
        self._room.set()
        return taken

    def stop(self) -> None:
        self._is_stopped = True
        self._task.cancel()

    async def close(self) -> bool:
        self.stop()
        await asyncio.wait((self._task,))
        close = getattr(self._values, "aclose", None)
        if close is not None:
            await close()
        return True

    async def _run(self) -> None:
        try:
            async for value in self._values:
                self._buffer.put(self._accept(value))
                self._arrived.set()
                while self._buffer.is_full:
                    self._room = anyio.Event()
                    await self._room.wait()
        except BaseException as error:
            # The generator itself may raise `CancelledError`, from a task that it cancelled.
            if not (self._is_stopped and isinstance(error, asyncio.CancelledError)):
                self._failure = error
        finally:
            self._is_over = True
            self._arrived.set()
