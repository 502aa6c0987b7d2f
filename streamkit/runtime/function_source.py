"""Sources from generators of the user's.

A plain generator runs in a thread of its own, since it may wait as long as it likes for its
next value; an async one runs as a task. Either fills a bounded buffer, from which the engine
takes whatever is there, so that a slow source is not made slower by filling chunks.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol

import anyio

from streamkit.dataflow.endpoints import FunctionSource
from streamkit.env import Clock
from streamkit.errors import StageError
from streamkit.limits import CHUNK_RECORDS_MAX
from streamkit.record import Chunk
from streamkit.runtime.ports import Positions, SourceFacts

_KEY = "0"
_HELD_MAX = 2 * CHUNK_RECORDS_MAX


class FunctionReader:
    """Reads a generator or an async generator, a chunk at a time.

    A replayable one yields ``(position, value)``; the position of the last value of a chunk
    is what a commit keeps.
    """

    def __init__(self, name: str, source: FunctionSource, clock: Clock) -> None:
        self._name = name
        self._source = source
        self._clock = clock
        self._feed: Feed | None = None
        self._next_offset = 0
        self._positions: deque[tuple[int, Any]] = deque()

    async def open(self, committed: Positions) -> SourceFacts:
        function = self._source.function
        if self._source.is_replayable:
            saved = committed.get(_KEY, {})
            self._next_offset = saved.get("offset", 0)
            values = function(resume=saved.get("position"))
        else:
            values = function()
        is_async = isinstance(values, AsyncIterator)
        self._feed = _TaskFeed(values) if is_async else _ThreadFeed(values, self._name)
        note = "" if self._source.is_replayable else ", cannot be replayed after a crash"
        return SourceFacts(f"{self._source}{note}", is_replayable=self._source.is_replayable)

    async def next(self) -> Chunk | None:
        assert self._feed is not None, "open comes first"
        try:
            taken = await self._feed.take(CHUNK_RECORDS_MAX)
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        return self._as_chunk(taken) if taken else None

    def position_after(self, chunk: Chunk) -> tuple[str, Any]:
        last = chunk.offsets[-1]
        position = None
        while self._positions and self._positions[0][0] <= last:
            position = self._positions.popleft()[1]
        return _KEY, {"offset": last + 1, "position": position}

    async def committed(self, positions: Mapping[str, Any]) -> None:
        pass  # the store is the only one who keeps them

    def lag(self) -> int | None:
        return None

    def stop(self) -> bool:
        if self._source.is_replayable or self._feed is None:
            return False
        self._feed.stop()
        return True

    async def close(self) -> None:
        if self._feed is not None:
            await self._feed.close()

    def _as_chunk(self, taken: list[Any]) -> Chunk:
        first = self._next_offset
        self._next_offset += len(taken)
        if self._source.is_replayable:
            try:
                pairs = [(position, value) for position, value in taken]
            except (TypeError, ValueError) as error:
                raise self._failed(
                    TypeError("a source with `resume` yields (position, value)")
                ) from error
            self._positions.extend(
                (first + row, position) for row, (position, _) in enumerate(pairs)
            )
            taken = [value for _, value in pairs]
        now_ms = self._clock.wall_ms()
        offsets = range(first, first + len(taken))
        return Chunk(taken, [None] * len(taken), [now_ms] * len(taken), offsets, self._name, 0)

    def _failed(self, error: BaseException) -> StageError:
        return StageError(
            f"source {self._name!r} failed behind value {self._next_offset}: "
            f"{type(error).__name__}: {error}",
            stage=self._name,
            topic=self._name,
            partition=0,
            offset=self._next_offset,
        )


class Feed(Protocol):
    """What a generator has yielded and nobody has taken yet."""

    async def take(self, most: int) -> list[Any]:
        """Wait for a value, then take up to ``most``; none at the end.

        Raises:
            Exception: What the generator raised, behind everything it yielded before.
        """

    def stop(self) -> None:
        """Ask the generator for nothing more; what it has yielded can still be taken."""

    async def close(self) -> None: ...


class _ThreadFeed:
    """Runs a plain generator in a daemon thread: one that never yields again holds up nobody."""

    def __init__(self, values: Iterator[Any], name: str) -> None:
        self._values = values
        self._held: deque[Any] = deque()
        self._room = threading.Semaphore(_HELD_MAX)
        self._loop = asyncio.get_running_loop()
        self._arrived = anyio.Event()
        self._is_told = False
        self._is_over = False
        self._is_closed = False
        self._failure: Exception | SystemExit | None = None
        threading.Thread(target=self._run, name=f"streamkit-source-{name}", daemon=True).start()

    async def take(self, most: int) -> list[Any]:
        while True:
            self._is_told = False
            self._arrived = anyio.Event()
            if self._held or self._is_over or self._is_closed:
                break
            await self._arrived.wait()
        taken = [self._held.popleft() for _ in range(min(most, len(self._held)))]
        if not taken and self._failure is not None:
            raise self._failure
        if taken:
            self._room.release(len(taken))
        return taken

    def stop(self) -> None:
        self._is_closed = True
        self._room.release()
        self._arrived.set()

    async def close(self) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            for value in self._values:
                self._room.acquire()
                self._held.append(value)
                if self._is_closed:
                    return
                if not self._is_told:
                    self._tell()
        except (Exception, SystemExit) as error:
            self._failure = error
        finally:
            self._is_over = True
            self._tell()

    def _tell(self) -> None:
        self._is_told = True
        try:
            self._loop.call_soon_threadsafe(lambda: self._arrived.set())
        except RuntimeError:
            pass  # the loop is closed: the job has ended, and nobody waits any more


class _TaskFeed:
    """Runs an async generator as a task."""

    def __init__(self, values: AsyncIterator[Any]) -> None:
        self._values = values
        self._held: deque[Any] = deque()
        self._arrived = anyio.Event()
        self._room = anyio.Event()
        self._is_over = False
        self._failure: Exception | SystemExit | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def take(self, most: int) -> list[Any]:
        while not self._held and not self._is_over:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        taken = [self._held.popleft() for _ in range(min(most, len(self._held)))]
        if not taken and self._failure is not None:
            raise self._failure
        self._room.set()
        return taken

    def stop(self) -> None:
        self._task.cancel()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        close = getattr(self._values, "aclose", None)
        if close is not None:
            await close()

    async def _run(self) -> None:
        try:
            async for value in self._values:
                self._held.append(value)
                self._arrived.set()
                while len(self._held) >= _HELD_MAX:
                    self._room = anyio.Event()
                    await self._room.wait()
        except (Exception, SystemExit) as error:
            self._failure = error
        finally:
            self._is_over = True
            self._arrived.set()
