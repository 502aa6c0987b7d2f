"""A watch without an event loop."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Generic, TypeVar

from streamkit.client.admin.watch_state import WatchEvent
from streamkit.client.admin.watching import Watch as AsyncWatch
from streamkit.errors import UsageError
from streamkit.sync.client_runner import ClientRunner
from streamkit.sync.loop_iterator import LoopIterator

T = TypeVar("T")


class Watch(Generic[T]):
    """An iterator of events, like `streamkit.client.Watch`. After a ``break``, iterating again
    resumes with the next event.
    """

    def __init__(self, runner: ClientRunner, watch: AsyncWatch[T]) -> None:
        self._runner = runner
        self._watch = watch
        self._iterator: LoopIterator[WatchEvent[T]] = runner.iterate(self._next_event)
        self._last_number = 0
        self._turn = threading.Lock()
        self._is_closed = False

    def __iter__(self) -> Watch[T]:
        return self

    def __next__(self) -> WatchEvent[T]:
        self._runner.open()
        if self._is_closed:
            raise StopIteration
        with self._turn:
            try:
                item = self._iterator.after(self._last_number)
            except UsageError:
                if self._is_closed or self._runner.is_closed:
                    raise StopIteration from None  # closed by another thread
                raise
            self._last_number = item.number
        if item.error is not None:
            raise item.error
        if item.value is None:
            self._is_closed = True
            self._iterator.close()
            raise StopIteration
        return item.value

    def close(self) -> None:
        """End the watch, and every loop over it."""
        if not self._is_closed:
            self._is_closed = True
            self._runner.loop.call(self._watch.close())
            self._iterator.close()

    def __enter__(self) -> Watch[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _next_event(self) -> WatchEvent[T] | None:
        return await anext(self._watch, None)
