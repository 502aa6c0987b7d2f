"""What the HTTP service has counted, for the thread of the test."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, Final

_WAIT_S: Final = 60.0


@dataclass(slots=True)
class Tally:
    """Counts since the start, or since they were reset.

    ``arrivals_s`` has the times of the requests with a key, on a clock that never goes back.
    ``rows`` counts, by their field ``id``, the rows that the service has accepted.
    """

    arrivals_s: dict[str, list[float]] = field(default_factory=dict)
    fired: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    in_flight_max: int = 0
    connections: int = 0
    connections_max: int = 0
    connections_accepted: int = 0

    @property
    def requests(self) -> Counter[str]:
        """The number of requests by key."""
        return Counter({key: len(times) for key, times in self.arrivals_s.items()})

    def as_json(self) -> dict[str, Any]:
        counts = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"requests": self.requests, **counts}


class SharedTally:
    """A tally that the service changes, and that other threads read or wait for."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._changed = threading.Condition()

    @contextmanager
    def change(self) -> Iterator[Tally]:
        """Give the tally to change it."""
        with self._changed:
            yield self._tally
            self._changed.notify_all()

    def copy(self) -> Tally:
        with self._changed:
            return deepcopy(self._tally)

    def wait_for(self, condition: Callable[[Tally], bool]) -> None:
        """Wait until a condition holds, which is checked after each change."""
        with self._changed:
            is_so = self._changed.wait_for(lambda: condition(self._tally), _WAIT_S)
        assert is_so, f"not so after {_WAIT_S} s: {self.copy()}"

    def reset(self) -> None:
        """Count from 0 again, except what is open now."""
        with self.change() as old:
            self._tally = Tally(
                in_flight=old.in_flight,
                in_flight_max=old.in_flight,
                connections=old.connections,
                connections_max=old.connections,
            )
