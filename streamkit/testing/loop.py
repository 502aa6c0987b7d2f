"""Runs coroutines for code that is not async."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


class Loop:
    """Runs coroutines in this thread, or in another one if this thread runs an event loop."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._thread: ThreadPoolExecutor | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._thread = ThreadPoolExecutor(1) if _is_loop_running() else None
        if self._thread is None:
            return self._runner.run(work)
        return self._thread.submit(self._runner.run, work).result()

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._thread is None:
            runner.close()
        else:
            self._thread.submit(runner.close).result()
            self._thread.shutdown()


def _is_loop_running() -> bool:
    try:
        anyio.get_current_task()
    except RuntimeError:  # raised outside of asyncio and trio
        return False
    return True
