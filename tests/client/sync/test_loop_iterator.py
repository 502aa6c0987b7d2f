"""Items that a thread takes from the event loop, where Ctrl-C comes between any two lines."""

from __future__ import annotations

import asyncio

import pytest

from streamkit.sync.loop_iterator import LoopIterator
from streamkit.sync.loop_thread import shared_loop
from tests.client.sync.interrupting import interrupted_at


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_an_item_that_is_asked_for_twice_is_the_same_item() -> None:
    """Both calls are interrupted before they wait, while the item is on its way."""
    loop, is_ready = shared_loop(), asyncio.Event()
    items = iter("abc")

    async def bring() -> str:
        await is_ready.wait()
        return next(items)

    def let_the_loop_work() -> None:
        for _ in range(10):
            loop.ask(lambda: None)

    iterator = LoopIterator(loop, bring)
    for step in (6, 5):  # after the request was posted; the first call also starts a task
        with interrupted_at(step, "loop_iterator.py") as is_whole:
            iterator.after(0)
        assert not is_whole
        let_the_loop_work()
    loop.ask(is_ready.set)
    let_the_loop_work()  # in which it would bring another item
    assert (iterator.after(0).number, iterator.after(1).number) == (1, 2)
    iterator.close()
