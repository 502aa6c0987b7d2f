"""Collects what a pool of calls reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

Answer = tuple[object, BaseException | None]


class Pool(Protocol):
    def start(self, number: int, arguments: tuple[object, ...]) -> None: ...

    def abandon(self, number: int) -> None: ...

    async def close(self) -> None: ...


class Outcomes:
    """The results and errors of calls by number, in the order in which they arrived."""

    def __init__(self) -> None:
        self.by_number: dict[int, Answer] = {}
        self.order: list[int] = []
        self._changed = asyncio.Event()

    def on_done(self, number: int, result: object, error: BaseException | None) -> None:
        asyncio.get_running_loop()  # raises outside of the event loop
        assert number not in self.by_number, "a call was reported twice"
        self.by_number[number] = (result, error)
        self.order.append(number)
        self._changed.set()

    async def wait_for_count(self, count: int, timeout_s: float = 60.0) -> None:
        async with asyncio.timeout(timeout_s):
            while len(self.by_number) < count:
                self._changed.clear()
                await self._changed.wait()

    async def wait_for(self, number: int, timeout_s: float = 60.0) -> Answer:
        async with asyncio.timeout(timeout_s):
            while number not in self.by_number:
                self._changed.clear()
                await self._changed.wait()
        return self.by_number[number]


async def run_all(
    pool: Pool, outcomes: Outcomes, arguments: list[tuple[object, ...]], at_once: int
) -> list[Answer]:
    """Carry out calls with a bounded number in progress; return the answers in order."""
    for number, each in enumerate(arguments):
        await outcomes.wait_for_count(number - at_once + 1)
        pool.start(number, each)
    return [await outcomes.wait_for(number) for number in range(len(arguments))]


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for something that another thread or process does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  nothing in the event loop reports it
            await asyncio.sleep(0.01)
