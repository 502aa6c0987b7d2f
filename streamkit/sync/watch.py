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
    """Iterate it, as `streamkit.client.Watch`. A loop that is left may be gone on with."""

    def __init__(self, runner: ClientRunner, watch: AsyncWatch[T]) -> None:
        self._runner = runner
        self._watch = watch
        self._iterator: LoopIterator[WatchEvent[T]] = runner.iterate(self._bring)
        self._taken = 0
        self._in_turn = threading.Lock()
        self._is_closed = False

    def __iter__(self) -> Watch[T]:
        return self

    def __next__(self) -> WatchEvent[T]:
        self._runner.open()
        if self._is_closed:
            raise StopIteration
        with self._in_turn:
            try:
                brought = self._iterator.after(self._taken)
            except UsageError:
                if self._is_closed or self._runner.is_closed:
                    raise StopIteration from None  # by another thread meanwhile
                raise
            self._taken = brought.number
        if brought.error is not None:
            raise brought.error
        if brought.thing is None:
            self._is_closed = True
            self._iterator.close()
            raise StopIteration
        return brought.thing

    def close(self) -> None:
        """End it. A loop over it ends as well."""
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

    async def _bring(self) -> WatchEvent[T] | None:
        return await anext(self._watch, None)
