"""Functions that tests call in processes, which import this module."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamkit import App

app = App("called")


@app.source()
def values() -> Iterator[int]:
    yield 1


@app.stage(values)
def decorated(value: int) -> int:
    return value + 1


def wrapping(function: Callable[[int], int]) -> Callable[[int], int]:
    @functools.wraps(function)
    def wrapped(value: int) -> int:
        return function(value) * 10

    return wrapped


@app.stage(values)
@wrapping
def wrapped_inside(value: int) -> int:
    return value + 1


@wrapping
@app.stage(values)
def wrapped_outside(value: int) -> int:
    return value + 1


@dataclass
class Scorer:
    factor: int

    def score(self, value: int) -> int:
        return value * self.factor

    def __call__(self, value: int) -> int:
        return self.score(value)

    @staticmethod
    def halve(value: int) -> int:
        return value // 2


SCORER = Scorer(3)


def add(first: int, second: int) -> int:
    return first + second


def same(value: object) -> object:
    return value


def count_to(count: int) -> Iterator[int]:
    yield from range(count)


def pid(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def touch_and_sleep(path: str, seconds: float) -> int:
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return os.getpid()


def clean_up_when_stopped(path: str) -> None:
    Path(path).write_text("working")
    try:
        time.sleep(60)
    finally:
        Path(path).write_text("cleaned up")


def ignore_everything(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def hold_the_lock(path: str) -> None:
    """Run in C code that never lets other Python threads run."""
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)


class OwnBaseError(BaseException):
    pass


class TwoArgumentsError(Exception):
    """Can be pickled but not unpickled, because its constructor needs two arguments."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class LockError(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


class NotedError(Exception):
    """Keeps its own attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.attempts = 4


RAISED: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("bad"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration(5),
    "OwnBaseError": lambda: OwnBaseError("own"),
    "TwoArgumentsError": lambda: TwoArgumentsError(1, 2),
    "LockError": LockError,
    "NotedError": lambda: NotedError("noted"),
    "MemoryError": MemoryError,
    "local": lambda: type("LocalError", (Exception,), {})("of a local class"),
}


def fail(name: str) -> None:
    raise RAISED[name]()


def fail_from_cause() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def recurse(depth: int) -> int:
    return recurse(depth + 1)


def die(how: str) -> int:
    if how == "_exit":
        os._exit(7)
    if how == "abort":
        os.abort()
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


class CannotBeRead:
    """Can be pickled, but raises when it is unpickled."""

    def __init__(self, size: int = 0) -> None:
        self.data = b"x" * size

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return refuse, (self.data,)


def refuse(data: bytes) -> object:
    raise ValueError("refused to be unpickled")


class CannotBeSent:
    def __reduce__(self) -> str:
        raise SystemExit("refused to be pickled")


def result(kind: str) -> object:
    return {
        "lock": threading.Lock,
        "lambda": lambda: lambda: 1,
        "unreadable": CannotBeRead,
        "large and unreadable": lambda: [CannotBeRead(1 << 20), b"y" * (1 << 22)],
        "exits": CannotBeSent,
    }[kind]()


def make(size: int) -> bytes:
    return bytes(size)


def interrupt_group() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    return "still here"


def open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    found = []
    for each in folder.iterdir():
        try:
            found.append(os.readlink(each))
        except OSError:
            continue
    return found


def close_all_files() -> None:
    os.closerange(3, 1024)


def start_daemon() -> int:
    """Leave a process behind that lives longer than the one that carries out the call."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"])
    return process.pid


def fork_and_die() -> None:
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)
    os._exit(9)


def fork_and_return() -> int:
    child = os.fork()
    if child == 0:
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _square(value: int) -> int:
    return value * value


def sigterm_in_a_forked_child() -> str:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return repr(pool.apply(signal.getsignal, (signal.SIGTERM,)))


def use_multiprocessing() -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(_square, range(5))


def read_input() -> str:
    return sys.stdin.read()


def main_name() -> str:
    return sys.modules["__main__"].__name__


def start_thread_that_never_ends() -> None:
    threading.Thread(target=time.sleep, args=(60,)).start()


def connect() -> str:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"x")
        return there.recv(1).decode()
