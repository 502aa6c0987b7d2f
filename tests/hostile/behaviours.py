"""The behaviours of hostile code: each is a call that a user function makes for one value."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SLOW_S = 0.02


class TextRaises(Exception):
    """An error whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class ReprRaises:
    """A value that cannot be encoded, and whose `repr` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Ambiguous:
    """A value whose `bool` raises."""

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")


def raising(error: Callable[[], BaseException]) -> Callable[[], Any]:
    def act() -> Any:
        raise error()

    return act


def coroutine() -> Any:
    async def later() -> int:
        return 1

    return later()


def generator() -> Iterator[int]:
    yield 1


def slow() -> None:
    time.sleep(SLOW_S)


def thread() -> None:
    started = threading.Thread(target=lambda: None)
    started.start()
    started.join()


def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def terminal_output() -> None:
    sys.stdout.write("\x1b[2J\x00\udcff".encode("utf-8", "surrogateescape").decode("latin-1"))


@dataclass(frozen=True)
class Behaviour:
    """One thing that user code may do.

    ``words`` is text of the reported error; None if the record is handled as usual. ``is_result``
    means that the user function returns the result of ``act``.
    """

    name: str
    act: Callable[[], Any]
    words: str | None
    is_result: bool = False


RAISES = [
    Behaviour("raises", raising(lambda: ValueError("bad row")), "ValueError: bad row"),
    Behaviour("raises-cancelled", raising(asyncio.CancelledError), "CancelledError"),
    Behaviour("raises-exit", raising(lambda: SystemExit(0)), "SystemExit"),
    Behaviour("raises-interrupt", raising(KeyboardInterrupt), "KeyboardInterrupt"),
    Behaviour("raises-generator-exit", raising(GeneratorExit), "GeneratorExit"),
    Behaviour("raises-stop-iteration", raising(StopIteration), "StopIteration"),
    Behaviour("raises-without-text", raising(TextRaises), "TextRaises: (its text cannot be shown"),
    Behaviour("raises-long", raising(lambda: ValueError("\x1b[31m" + "y" * 100_000)), "\\x1b[31m"),
    Behaviour(
        "raises-group", raising(lambda: ExceptionGroup("g", [ValueError()])), "ExceptionGroup"
    ),
    Behaviour("raises-memory", raising(MemoryError), "MemoryError"),
]
HARMLESS = [
    Behaviour("slow", slow, None),
    Behaviour("thread", thread, None),
    Behaviour("terminal-output", terminal_output, None),
]
RETURNS = [
    Behaviour("returns-coroutine", coroutine, "coroutine", is_result=True),
    Behaviour("returns-generator", generator, "generator", is_result=True),
    Behaviour("returns-without-repr", ReprRaises, "", is_result=True),
]
NO_TRUTH = Behaviour("returns-no-truth", Ambiguous, "neither true nor false", is_result=True)
CANCELS = Behaviour("cancels-its-task", cancel_own_task, "user code cancelled an internal task")
