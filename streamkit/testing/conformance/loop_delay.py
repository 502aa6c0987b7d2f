"""Measures for how long something blocks the event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.lowlevel

from streamkit.testing.conformance.rules import Rule

BLOCKED_MS_MAX: Final = 250
_BEAT_S: Final = 0.001
_ATTEMPTS: Final = 5


@dataclass(slots=True)
class Delay:
    """The longest time in seconds in which no other task could run."""

    longest_s: float = 0.0


@asynccontextmanager
async def measured() -> AsyncIterator[Delay]:
    """Measure the longest delay of the event loop while the block runs."""
    delay = Delay()

    async def beat() -> None:
        while True:
            before_s = time.monotonic()
            await anyio.sleep(_BEAT_S)
            delay.longest_s = max(delay.longest_s, time.monotonic() - before_s - _BEAT_S)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await anyio.lowlevel.checkpoint()  # the first beat begins before the block
        yield delay
        await anyio.lowlevel.checkpoint()  # the last beat ends after it
        tasks.cancel_scope.cancel()


async def require_free_loop(
    rule: Rule, prepare: Callable[[], Callable[[], Awaitable[object]]], blocked_ms_max: int
) -> None:
    """Use a connector; it breaks the rule if it blocks the loop in each of several attempts.

    A busy machine delays the loop, too, but not in each attempt.

    Args:
        rule: The rule to check.
        prepare: Returns a function that uses the connector. Only that function is measured.
        blocked_ms_max: For how long the loop may be blocked, in milliseconds.
    """
    shortest_s = float("inf")
    for _ in range(_ATTEMPTS):
        use = prepare()
        async with measured() as delay:
            await use()
        shortest_s = min(shortest_s, delay.longest_s)
        if shortest_s * 1_000 <= blocked_ms_max:
            return
    rule.require(False, f"the event loop was blocked for {shortest_s * 1_000:.0f} ms")
