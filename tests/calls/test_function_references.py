"""Functions that processes cannot find are refused before anything starts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from streamkit import App
from streamkit.errors import TopologyError
from streamkit.runtime.call_processes import CallProcesses
from tests.calls import called


def local_function() -> Callable[..., object]:
    def local(value: int) -> int:
        return value

    return local


def local_method() -> Callable[..., object]:
    class Local:
        def method(self, value: int) -> int:
            return value

    return Local().method


def local_stage() -> Callable[..., object]:
    app = App("local")

    @app.stage(app.stream("values", int))
    def stage(value: int) -> int:
        return value

    return stage.function


class WithLock:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def method(self, value: int) -> int:
        return value


def replaced(value: int) -> int:
    return value


original, replaced = replaced, called.decorated.function


@pytest.mark.parametrize(
    ("function", "reason", "hint"),
    [
        (lambda value: value, "a lambda has no name", "at the top level of a module"),
        (local_function(), "'local' is defined inside the function 'local_function'", "top level"),
        (partial(local_function(), 1), "'local' is defined inside", "top level"),
        (partial(lambda value: value), "a lambda has no name", "top level"),
        (local_method(), "local object", "top level"),
        (local_stage(), "'stage' is defined inside the function 'local_stage'", "top level"),
        (WithLock().method, "cannot pickle '_thread.lock' object", "make its object picklable"),
        (original, "replaced is not the function", "do not replace or delete the name"),
    ],
)
def test_a_function_that_processes_cannot_find_is_refused(
    function: Callable[..., object], reason: str, hint: str
) -> None:
    async def main() -> None:
        with pytest.raises(TopologyError) as raised:
            CallProcesses(function, "score", 2, lambda *_: None)
        assert "'score' cannot run in other processes: " in str(raised.value)
        assert reason in str(raised.value)
        assert hint in raised.value.hint
        assert ".py:" in raised.value.at

    asyncio.run(main())
