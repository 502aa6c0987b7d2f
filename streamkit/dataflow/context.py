"""The context of a record: its topic, partition, offset, key and timestamp."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from streamkit.record import time_of

K_co = TypeVar("K_co", covariant=True)


class TimerSink(Protocol):
    """Where a context sets timers."""

    def set(self, at: datetime | int, name: str) -> None: ...

    def cancel(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Context(Generic[K_co]):
    """Where a record comes from. A stage gets it if its second parameter is annotated with it.

    ``timestamp_ms`` is in milliseconds since the epoch, UTC; -1 if the record has no timestamp.
    ``lifespan`` is what the function of ``@app.lifespan`` has yielded; None without one.
    """

    topic: str
    partition: int
    offset: int
    key: K_co
    timestamp_ms: int
    _timers: TimerSink | None = field(default=None, repr=False, compare=False)
    lifespan: Any = field(default=None, repr=False, compare=False)

    def timer(self, at: datetime | int, name: str = "timer") -> None:
        """Have the function of ``on_timer`` called for this key at an event time.

        Args:
            at: A datetime with a time zone, or ms since 1970. A time that the watermark has
                passed comes at once.
            name: A key has one timer of each name: this replaces an earlier one.

        Raises:
            RuntimeError: The stage has no function for timers.
        """
        self._sink().set(at, name)

    def cancel_timer(self, name: str = "timer") -> None:
        """Remove a timer of this key, if there is one of this name.

        Raises:
            RuntimeError: The stage has no function for timers.
        """
        self._sink().cancel(name)

    def _sink(self) -> TimerSink:
        if self._timers is None:
            raise RuntimeError(
                "only a stage with a state and a function for timers has timers: add one with "
                "@stage.on_timer"
            )
        return self._timers

    @property
    def timestamp(self) -> datetime | None:
        """The timestamp of the record in UTC; None if it has no timestamp.

        Raises:
            DataError: The time is after the year 9999, which a datetime cannot hold.
        """
        return time_of(self.timestamp_ms)
