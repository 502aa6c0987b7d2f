"""Apps with windows of readings, for tests that send records and compare results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from streamkit import App
from streamkit.aggregates import Aggregator
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.window_stream import WindowResults
from streamkit.windows import AnyWindow

SECOND_MS = 1_000


class Reading(msgspec.Struct, frozen=True):
    at: int
    value: float | None = None
    key: str = "a"


class Failure(Exception):
    pass


# The class of results.
Kind = Any
Readings = tuple[App, Stream[Reading], WindowResults[Any, Any, Reading]]


def value(reading: Reading) -> float | None:
    return reading.value


def listed(before: list[float], reading: Reading) -> list[float]:
    """Add a value in place, for a `Fold`."""
    if reading.value is not None:
        before.append(reading.value)
    return before


def readings(
    window: AnyWindow,
    result: Kind = None,
    *,
    key: Callable[[Reading], Any] = lambda reading: reading.key,
    late: float = 0,
    on_error: Any = "fail",
    **aggregates: Aggregator[Any],
) -> Readings:
    """Return an app, its source, and the results of its windows."""
    app = App("readings")
    source = app.stream("readings", Reading, event_time=lambda reading: reading.at)
    aggregate: Any = source.key_by(key).window(window, late=late).aggregate
    chosen = () if result is None else (result,)
    return app, source, aggregate(*chosen, on_error=on_error, **aggregates)


def drained(of: Readings, *sent: Reading, restarts: bool = False) -> list[Any]:
    """Return the results for readings, sent one by one."""
    app, source, results = of
    with app.test() as job:
        for each in sent:
            job.send(source, each)
            if restarts:
                job.restart()
        job.drain()
        return job.output(results)
