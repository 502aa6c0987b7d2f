"""What a generator of the user's has yielded and nobody has taken yet.

A plain generator runs in a thread of its own, since it may wait as long as it likes for its next
value; an async one runs as a task. Either fills a buffer that is bounded by records and by bytes.
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
# One value in so many is looked at inside, the others count as the last one did.
_WEIGHED_EVERY: Final = 16
_PARTS_WEIGHED_MAX: Final = 64
# How long a stop waits for a plain generator to notice it; one that waits for its next value
# longer is left behind.
_END_S: Final = 1.0

Accept = Callable[[Any], Any]


class Feed(Protocol):
    """A running generator."""

    async def take(self, most: int) -> list[Any]:
        """Wait for a value, then take up to ``most``; none at the end.

        Raises:
            BaseException: What the generator raised, after everything it yielded before.
        """

    def stop(self) -> None:
        """Ask the generator for nothing more; what it has yielded can still be taken."""

    async def close(self) -> bool:
        """End the generator, its ``finally`` included; tell whether it has ended."""


class _Held:
    """The values, with what they weigh together."""

    def __init__(self) -> None:
        self._values: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._last_bytes = 0
        self._until_weighed = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def is_full(self) -> bool:
        return self._bytes >= FEED_BYTES_MAX or len(self._values) >= _RECORDS_MAX

    def put(self, value: Any) -> None:
        weight = self._weigh(value)
        self._bytes += weight
        self._values.append((value, weight))

    def take(self, most: int) -> list[Any]:
        taken = [self._values.popleft() for _ in range(min(most, len(self._values)))]
        self._bytes -= sum(weight for _, weight in taken)
        return [value for value, _ in taken]

    def _weigh(self, value: Any) -> int:
        if type(value) in (bytes, str):
            return len(value)
        if self._until_weighed == 0:
            self._until_weighed = _WEIGHED_EVERY
            self._last_bytes = weight_of(value)
        self._until_weighed -= 1
        return self._last_bytes


def weight_of(value: Any) -> int:
    """Estimate the bytes of a value and what it holds, looking at a bounded number of parts."""
    total = 0
    parts = deque([value])
    for _ in range(_PARTS_WEIGHED_MAX):
        if not parts:
            return total
        part = parts.popleft()
        try:
            total += sys.getsizeof(part)
            parts.extend(_parts_of(part))
        except Exception:  # of a class of the user's that hides its parts: it counts as small
            continue
    return total


def _parts_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*list(value)[:_PARTS_WEIGHED_MAX], *list(value.values())[:_PARTS_WEIGHED_MAX]]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)[:_PARTS_WEIGHED_MAX]
    if isinstance(value, str | bytes | int | float | None):
        return []
    names: tuple[str, ...] = getattr(value, "__struct_fields__", ()) or getattr(
        value, "__slots__", ()
    )
    inside = [getattr(value, name, None) for name in names]
    return inside + list(getattr(value, "__dict__", {}).values())


class ThreadFeed:
    """Runs a plain generator in a daemon thread: one that never yields again holds up nobody.

    Args:
        values: The generator.
        name: Of the source.
        accept: What to make of a value before the generator can change it; it may raise.
    """

    def __init__(self, values: Iterator[Any], name: str, accept: Accept) -> None:
        self._values = values
        self._accept = accept
        self._held = _Held()
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
                taken = self._held.take(most)
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
            # A generator runs its `finally` here, in its own thread; another iterator has none.
            close = getattr(self._values, "close", None)
            if self._is_stopped and close is not None:
                close()
        except BaseException as error:
            self._failure = error
        finally:
            with self._lock:
                self._is_over = True
            self._tell(self._set_ended)

    def _put(self, value: Any) -> bool:
        """Hold a value; return whether the next one is wanted."""
        with self._lock:
            # One that comes after the stop is still held: no source would give it again.
            self._held.put(value)
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            self._tell(self._set_arrived)
        with self._lock:
            while self._held.is_full and not self._is_stopped:
                self._has_room.wait()
            return not self._is_stopped

    def _set_arrived(self) -> None:
        self._arrived.set()

    def _set_ended(self) -> None:
        self._arrived.set()
        self._ended.set()

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            pass  # the loop is closed: the job has ended, and nobody waits any more


class TaskFeed:
    """Runs an async generator as a task; see `ThreadFeed`."""

    def __init__(self, values: AsyncIterator[Any], accept: Accept) -> None:
        self._values = values
        self._accept = accept
        self._held = _Held()
        self._arrived = anyio.Event()
        self._room = anyio.Event()
        self._is_over = False
        self._is_stopped = False
        self._failure: BaseException | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def take(self, most: int) -> list[Any]:
        while not len(self._held) and not self._is_over:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        taken = self._held.take(most)
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
                self._held.put(self._accept(value))
                self._arrived.set()
                while self._held.is_full:
                    self._room = anyio.Event()
                    await self._room.wait()
        except BaseException as error:
            # `CancelledError` may also be the generator's: of a task that it cancelled and awaits.
            if not (self._is_stopped and isinstance(error, asyncio.CancelledError)):
                self._failure = error
        finally:
            self._is_over = True
            self._arrived.set()
