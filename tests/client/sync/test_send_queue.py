"""The queue between threads that send and the event loop: closing and reopening it."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from streamkit import Client, sync
from streamkit.sync.loop_thread import shared_loop
from streamkit.sync.send_queue import SendQueue
from tests.broker_process import BrokerProcess
from tests.proxy import Proxy, Stall

SOON_S: Final = 60.0


def test_a_queue_that_is_reopened_while_it_flushes_stays_open(
    cluster: BrokerProcess, client: sync.Client, topic: str
) -> None:
    """Ctrl-C may end a close when its flush has just ended and cannot be cancelled any more."""
    loop, stall = shared_loop(), Stall("spu up")
    with Proxy(cluster.sc_port, cluster.spu_port, stall) as proxy:
        far, is_open, is_over = Client(proxy.address), threading.Event(), asyncio.Event()

        async def hold_open() -> None:
            async with far:
                is_open.set()
                await is_over.wait()

        holding = loop.start(hold_open())
        assert is_open.wait(SOON_S)
        producer = far.producer(topic)
        loop.call(producer.open())
        queue = SendQueue(loop, producer)
        queue.add(b"first", None, 0, None, 10)
        queue.shut()
        closing = loop.start(queue.close())
        assert stall.has_fired.wait(SOON_S)
        queue.reopen()
        stall.release()
        closing.result(SOON_S)
        queue.add(b"second", None, 0, None, 10)
        queue.shut()
        loop.call(queue.close())
        loop.ask(is_over.set)
        holding.result(SOON_S)
    found = [record.value for record in client.consumer(topic, until_end=True)]
    assert found == [b"first", b"second"]
