"""Finds sockets, threads and processes that a test leaves open, and names the test.

Otherwise the garbage collector closes a forgotten socket later, and the test that runs then fails.
Sockets and processes are found only on Linux, threads everywhere.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

# A thread or a broker that is just ending may need a moment.
PATIENCE_S = 20.0
_PAUSE_S: Final = 0.01
# An environment variable that all processes started by tests inherit.
_MARK: Final = "STARTED_BY_TESTS"
# pytest stores the name of the running test here, so each process has the name of its test.
_TEST: Final = b"PYTEST_CURRENT_TEST="
# These threads end when they are idle, or run as long as the process.
_LASTING_THREADS: Final = ("streamkit-sync", "AnyIO worker thread", "Trio thread")


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Fail a test that leaves a socket or a thread open.

    An autouse fixture is set up before the other fixtures of its scope and ends after them.
    Sockets and threads of fixtures with a wider scope are open before it starts.
    """
    sockets, threads = set(_sockets()), set(threading.enumerate())
    yield
    if _new_sockets(sockets):
        gc.collect()  # objects that were not closed warn now, and not during a later test
    _wait_until_none("sockets", lambda: _new_sockets(sockets))
    _wait_until_none("threads", lambda: _new_threads(threads))


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Fail at the end of all tests if a process that a test started is still running."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_MARK, mark)
        yield
    _wait_until_none("processes", lambda: _processes(f"{_MARK}={mark}".encode()))


def _wait_until_none(what: str, find: Callable[[], list[str]]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while found := find():
        if time.monotonic() > deadline_s:
            pytest.fail(f"{what} left open: {'; '.join(found)}", pytrace=False)
        time.sleep(_PAUSE_S)


def _new_threads(before: set[threading.Thread]) -> list[str]:
    return [
        str(each)
        for each in threading.enumerate()
        if each not in before and not each.name.startswith(_LASTING_THREADS)
    ]


def _new_sockets(before: set[str]) -> list[str]:
    found = (_described(fd) for name, fd in _sockets().items() if name not in before)
    return [each for each in found if each]


def _sockets() -> dict[str, int]:
    """Return the file descriptor of each socket, by the system's name of the socket."""
    found = {}
    folder = Path("/proc/self/fd")
    for fd in os.listdir(folder) if folder.exists() else ():
        try:
            name = os.readlink(folder / fd)
        except FileNotFoundError:
            continue  # the descriptor that listed the folder, or one closed in the meantime
        if name.startswith("socket:"):
            found[name] = int(fd)
    return found


def _described(fd: int) -> str:
    """Describe a socket; return "" for one without an address, as in event loops."""
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            own = copy.getsockname()
            return f"{copy.family.name} {own}" if own else ""
    except OSError:
        return ""  # closed in the meantime


def _processes(mark: bytes) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has ended, or belongs to another user
        if mark in variables:
            test = next((each for each in variables if each.startswith(_TEST)), b"")
            found.append(f"{folder.name} {command}({test.removeprefix(_TEST).decode()})")
    return found
