"""One process that carries out calls of a user's function, as the job sees it."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from streamkit.errors import NotPicklable, ProcessDied, ProcessNotStarted
from streamkit.forks import close_in_children
from streamkit.runtime.call_messages import (
    Failure,
    Kind,
    Messages,
    Parts,
    Unreadable,
    pickled,
    pickled_arguments,
)
from streamkit.runtime.child_imports import first_search_path
from streamkit.runtime.function_references import FunctionReference

# The first argument is the search path, because streamkit and what it imports are found there.
_PROGRAM: Final = """\
import sys
sys.path[:] = sys.argv[1].split("\\n")
from streamkit.loading.call_child import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""
_ROOT: Final = os.fspath(Path(__file__).parents[2])
# How long a process may take to end after it has closed its socket.
_END_S: Final = 2.0
_LOWEST_FD: Final = 3


class CallProcess:
    """A spawned process; the methods that wait are for the thread that uses it.

    Args:
        name: The name of the stage, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        here, there = socket.socketpair()
        # The child has the other end of this pipe, and ends when this one closes. Each child has
        # its own pipe, because only one process can get the signal of a pipe.
        lifeline, self._held_end = os.pipe()
        try:
            self._process = _spawned(there, lifeline)
        except BaseException:
            here.close()
            os.close(self._held_end)
            raise
        finally:
            there.close()
            os.close(lifeline)
        self._link = here
        self._messages = Messages(here)
        self._keep_in_children = [close_in_children(each) for each in self._ends()]
        self._is_usable = True

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it can carry out another call; false if it was killed while it was idle."""
        return self._is_usable and not self.has_ended

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def prepare(self, reference: FunctionReference) -> None:
        """Let the process import the user's modules, and wait until it is ready.

        Raises:
            ProcessNotStarted: The import failed; the text has the reason.
            ProcessDied: The process ended.
        """
        kind, answer = self._asked(Kind.SETUP, pickled(reference))
        if kind is not Kind.READY:
            self._is_usable = False
            assert isinstance(answer, tuple), "a text and a hint"
            raise ProcessNotStarted(answer[0], hint=answer[1])

    def call(self, arguments: tuple[object, ...]) -> object:
        """Carry out a call in the process, and wait for its result.

        Raises:
            NotPicklable: An argument or the result cannot be sent.
            ProcessDied: The process ended.
            BaseException: The function raised it.
        """
        try:
            kind, answer = self._asked(Kind.CALL, pickled_arguments(arguments))
        except Unreadable as error:
            raise NotPicklable("the result", str(error)) from error.__cause__
        if kind is Kind.RESULT:
            return answer
        assert isinstance(answer, Failure), "the only other answer to a call"
        raise answer.error()

    def end_input(self) -> None:
        """Tell the process that there are no more calls: one that is idle ends."""
        with suppress(OSError):  # it has ended already
            self._link.shutdown(socket.SHUT_WR)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """Kill the process; a thread that waits for its answer stops waiting."""
        self._process.kill()
        with suppress(OSError):  # it has ended already
            self._link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Wait until the process has ended, and release what belongs to it."""
        self._is_usable = False
        self._exit_code()
        for keep in self._keep_in_children:
            keep()
        self._messages.close()
        os.close(self._held_end)

    def _ends(self) -> tuple[int, int]:
        return self._link.fileno(), self._held_end

    def _asked(self, kind: Kind, parts: Parts) -> tuple[Kind, object]:
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # reading reports it below
                self._messages.send(kind, parts)
            return self._messages.receive()
        except EOFError:
            self._is_usable = False
            raise self._died() from None

    def _died(self) -> ProcessDied:
        code = self._exit_code()
        what = f"exited with code {code}"
        hint = "the function must not end its process"
        if code < 0:
            what = f"was killed by {_signal_name(-code)}"
            hint = ""
        if code == -signal.SIGKILL:
            hint = "the system kills a process when it runs out of memory"
        return ProcessDied(
            f"the process of {self._name!r} {what} during the call", code=code, hint=hint
        )

    def _exit_code(self) -> int:
        """Return the exit code of a process that is ending; kill it if it does not end."""
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # it has closed its socket, so it is of no more use
            return self._process.wait()


def _spawned(there: socket.socket, lifeline: int) -> subprocess.Popen[bytes]:
    """Start the child. Signals to its group wait until it has the handlers for them."""
    # The numbers below this one belong to the standard streams, even if those are closed.
    files = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD) for each in (there, lifeline)]
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return subprocess.Popen(
            [
                sys.executable,
                *_interpreter_flags(),
                "-P",  # a file in the current folder must not replace a module of Python
                "-c",
                _PROGRAM,
                "\n".join([*first_search_path(), _ROOT]),
                *map(str, files),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=files,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        for each in files:
            os.close(each)


def _interpreter_flags() -> list[str]:
    """Return the options of this interpreter, such as ``-W error`` and ``-O``."""
    found: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return found


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
