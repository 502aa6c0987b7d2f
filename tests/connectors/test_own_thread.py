"""The thread in which a connector makes its blocking calls."""

from __future__ import annotations

import threading

import anyio
import pytest

from streamkit.connectors.own_thread import OwnThread

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_nothing_runs_after_the_last_call() -> None:
    thread = OwnThread("test")
    ran: list[str] = []
    goes_on, is_running = threading.Event(), threading.Event()

    def first() -> None:
        is_running.set()
        goes_on.wait()
        ran.append("first")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(thread.call, first)
        await anyio.to_thread.run_sync(is_running.wait)
        tasks.start_soon(thread.close, lambda: ran.append("close"))
        await anyio.lowlevel.checkpoint()  # the close waits for the first call
        with pytest.raises(anyio.ClosedResourceError):
            await thread.call(lambda: ran.append("late"))
        goes_on.set()
    assert ran == ["first", "close"]


async def test_a_thread_that_was_never_used_makes_the_last_call() -> None:
    thread = OwnThread("test")
    ran: list[str] = []
    for _ in range(2):
        await thread.close(lambda: ran.append("close"))
    assert ran == ["close"]
