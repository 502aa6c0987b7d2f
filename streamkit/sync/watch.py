"""A watch without an event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, TypeVar

from streamkit.client.watching import Watch as AsyncWatch
from streamkit.client.watching import WatchEvent
from streamkit.sync.connection import Connection
from streamkit.sync.pull import Pull

T = TypeVar("T")


class Watch(Generic[T]):
    """Iterate it, as `streamkit.client.Watch`. A loop that is left may be gone on with."""

    def __init__(self, connection: Connection, watch: AsyncWatch[T]) -> None:
        self._connection = connection
        self._watch = watch
        self._pull = Pull(connection.loop, self._bring)
        self._is_closed = False

    def __iter__(self) -> Watch[T]:
        return self

    def __next__(self) -> WatchEvent[T]:
        self._connection.open()
        if self._is_closed:
            raise StopIteration
        event = self._pull.next()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """End it. A loop over it ends as well."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.loop.call(self._watch.close())

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
