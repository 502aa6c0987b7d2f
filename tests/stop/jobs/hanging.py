"""Hangs in the call that ``HANG`` names, after it reached the row ``HANG_AT``."""

import asyncio
import os
import signal
import sys
import time

import msgspec

from streamkit import App, Topic
from streamkit.connectors.files import JsonLines

app = App("hanging")
_HANG = os.environ.get("HANG", "")
_HANG_AT = int(os.environ.get("HANG_AT", "1000"))


class Numbered(msgspec.Struct):
    lane: int
    number: int


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


numbers = app.stream("numbers", Numbered)


@app.stage(numbers)
def passed(row: Numbered) -> Numbered:
    if row.number == _HANG_AT:
        if _HANG == "compute":
            say("it hangs")
            while True:  # computing
                pass
        if _HANG == "sleep":
            say("it hangs")
            time.sleep(3_600)  # sleeping
        if _HANG == "freeze the broker":
            os.kill(int(os.environ["BROKER_PID"]), signal.SIGSTOP)
            say("it hangs")
        if _HANG == "two signals":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(5_000_000))  # both signals arrive before the event loop runs again
    return row


class Slow:
    """A sink that may wait forever without blocking the event loop."""

    def __init__(self) -> None:
        self.has_hung_row = False

    def open(self) -> None:
        pass

    async def write(self, rows: list[Numbered]) -> None:
        self.has_hung_row = self.has_hung_row or any(row.number >= _HANG_AT for row in rows)
        await self.hang_in("write")

    async def flush(self) -> None:
        await self.hang_in("flush")

    async def close(self) -> None:
        await self.hang_in("close")

    async def hang_in(self, place: str) -> None:
        if place == _HANG and (self.has_hung_row or place == "close"):
            say("it hangs")
            await asyncio.Event().wait()


passed.to(Slow(), name="slow")
passed.to(Topic("copies", Numbered), name="copies")
passed.to(JsonLines("copies.jsonl"), name="file")
