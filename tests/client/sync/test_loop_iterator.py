"""Items that a thread gets from the event loop, with Ctrl-C between any two lines."""

from __future__ import annotations

import asyncio

import pytest

from streamkit.sync.loop_iterator import LoopIterator
from streamkit.sync.loop_thread import shared_loop
from tests.client.sync.interrupting import interrupted_at


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_an_item_requested_twice_is_fetched_once() -> None:
    """Both calls are interrupted before they wait, and before the item arrives."""
    loop, is_ready = shared_loop(), asyncio.Event()
    items = iter("abc")

    async def fetch() -> str:
        await is_ready.wait()
        return next(items)

    def run_the_loop() -> None:
        for _ in range(10):
            loop.ask(lambda: None)

    iterator = LoopIterator(loop, fetch)
    for step in (6, 5):  # after the request is posted; the first call also starts a task
        with interrupted_at(step, "loop_iterator.py") as is_whole:
            iterator.after(0)
        assert not is_whole
        run_the_loop()
    loop.ask(is_ready.set)
    run_the_loop()  # a second request would fetch another item here
    assert (iterator.after(0).number, iterator.after(1).number) == (1, 2)
    iterator.close()
