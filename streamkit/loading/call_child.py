"""The program of a process that carries out calls of a user's function.

It imports the user's modules without running their job, and then answers one call at a time.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from types import FrameType, ModuleType
from typing import Any, Final, cast

from streamkit.errors import NotPicklable, StreamKitError
from streamkit.forks import SameProcess, close_in_children, in_children
from streamkit.loading.imports import as_config_errors, execute, find_module, loading
from streamkit.loading.names import add_loaded_folders
from streamkit.runtime.call_messages import (
    Kind,
    Messages,
    Parts,
    Unreadable,
    failure_of,
    pickled,
)
from streamkit.runtime.child_imports import (
    MAIN_IN_CHILD,
    ChildImports,
    MainFile,
    this_process,
)
from streamkit.runtime.failures import error_text
from streamkit.runtime.function_references import FunctionReference

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def main(link_fd: int, lifeline_fd: int) -> None:
    """Answer calls until the job closes the socket.

    Args:
        link_fd: The socket to the job.
        lifeline_fd: A pipe that closes when the job's process ends, in whatever way.
    """
    this_process.is_child = True
    _end_with_the_job(lifeline_fd)
    link = socket.socket(fileno=link_fd)
    _handle_signals(link)
    close_in_children(link_fd)
    close_in_children(lifeline_fd)
    messages = Messages(link)
    try:
        with loading():  # so that `App.run` never runs a job here
            function = _prepared(messages)
            _handle_signals(link)  # the user's modules may have replaced the handlers
            if function is not None:
                _answer_calls(messages, function)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the job needs no more calls
    with suppress(OSError):
        messages.close()


def _end_with_the_job(lifeline: int) -> None:
    """Let the system kill this process when the job has ended, even if Python code cannot run.

    The signal is sent when the other end of the pipe closes. A parent-death signal of Linux would
    also be sent when the thread ends that has started this process.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO,))
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(0)  # it had ended before


def _handle_signals(link: socket.socket) -> None:
    """Ignore Ctrl-C of a terminal, and SIGTERM unless the job closes.

    Both may be sent to a group of processes. The job then decides how long its calls may run. A
    forked child ends at SIGTERM, as the workers of a `multiprocessing.Pool` do at its end: a
    handler in Python would not run while they wait for a lock.
    """

    def on_terminate(number: int, frame: FrameType | None) -> None:
        try:
            is_closing = not link.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            is_closing = False
        except OSError:
            is_closing = True
        if is_closing:
            sys.exit(128 + number)

    def in_child() -> None:
        if signal.getsignal(signal.SIGTERM) is on_terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    in_children(in_child)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _prepared(messages: Messages) -> Callable[..., object] | None:
    """Import the user's modules and find the function; None if that failed."""
    _, reference = messages.receive()
    assert isinstance(reference, FunctionReference), "the first message of a job"
    try:
        with _output_to_errors():
            _import(reference.imports)
            function = cast("Callable[..., object]", pickle.loads(reference.pickled))
    except BaseException as error:
        hint = error.hint if isinstance(error, StreamKitError) else ""
        messages.send(Kind.NOT_STARTED, pickled((error_text(error), hint)))
        return None
    messages.send(Kind.READY, pickled(None))
    return function


@contextmanager
def _output_to_errors() -> Iterator[None]:
    """Send standard output to standard error: the job has printed the same at its import."""
    _flush()
    try:
        kept = os.dup(1)
    except OSError:  # standard output is closed
        yield
        return
    try:
        with suppress(OSError):  # standard error is closed
            os.dup2(2, 1)
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _import(imports: ChildImports) -> None:
    sys.argv[:] = imports.argv
    sys.path[:] = imports.path
    add_loaded_folders(imports.folders)
    sys.modules["__main__"] = _LazyMain(imports.main)
    for name, file in imports.modules:
        _import_file(name, file)


def _import_file(name: str, file: str) -> None:
    """Import a module as the job did: by its name if that finds the file, else from the file."""
    if name in sys.modules:
        return
    with as_config_errors(name):
        spec = find_module(name)
    if name in sys.modules:  # its package imports it
        return
    if spec is None or spec.origin is None or os.path.abspath(spec.origin) != file:
        spec = spec_from_file_location(name, file) or spec_from_file_location(
            name, file, loader=SourceFileLoader(name, file)
        )
    assert spec is not None, "a loader is given"
    execute(spec, file)


class _LazyMain(ModuleType):
    """``__main__``, whose file is imported when something in it is needed.

    Many programs, such as those that install a command, need nothing of it.
    """

    def __init__(self, main: MainFile | None) -> None:
        super().__init__("__main__")
        self._main = main

    def __getattr__(self, name: str) -> Any:
        if self._main is None or name.startswith("__"):
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        return getattr(_imported_main(self._main), name)


def _imported_main(main: MainFile) -> ModuleType:
    module = ModuleType(MAIN_IN_CHILD)
    module.__file__ = main.file
    module.__package__ = main.package
    placeholder = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules[MAIN_IN_CHILD] = module
    try:
        with as_config_errors(main.file, main.file):
            SourceFileLoader(MAIN_IN_CHILD, main.file).exec_module(module)
    except BaseException:
        sys.modules["__main__"] = placeholder
        del sys.modules[MAIN_IN_CHILD]
        raise
    return module


def _answer_calls(messages: Messages, function: Callable[..., object]) -> None:
    same_process = SameProcess()
    while True:
        kind, parts = _answer(messages, function)
        same_process.check()
        _flush()
        messages.send(kind, parts)


def _answer(messages: Messages, function: Callable[..., object]) -> tuple[Kind, Parts]:
    try:
        _, arguments = messages.receive()
    except Unreadable as error:
        return _failed(NotPicklable("an argument", str(error)), error.__cause__)
    try:
        result = function(*cast("tuple[object, ...]", arguments))
    except BaseException as error:
        return _failed(error, None)
    try:
        return Kind.RESULT, pickled(result)
    except BaseException as error:
        return _failed(NotPicklable("the result", error_text(error)), error)


def _failed(error: BaseException, cause: BaseException | None) -> tuple[Kind, Parts]:
    if cause is not None:
        error.__cause__ = cause
    return Kind.FAILURE, pickled(failure_of(error))


def _flush() -> None:
    """Write what the function has printed: a process that is killed later would lose it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the stream is closed, or an object of the user
            continue
