"""A server of tests in a temporary folder, which a test may stop, kill and restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Self

from tests.ports import HeldPort
from tests.server_guard import LOG_NAME, READY, STOP

ROOT: Final = Path(__file__).parents[1]
_END_S_MAX: Final = 60.0


class GuardedServer(ABC):
    """A server that runs while the ``with`` block runs, and never longer than the tests.

    Args:
        name: The name of the program.
        ready_mark: A part of the line that it logs when it accepts connections.
        user: Whom it runs as, ``uid:gid``; the own user if it is empty.
    """

    def __init__(self, name: str, ready_mark: str, user: str = "") -> None:
        self._name = name
        self._ready_mark = ready_mark
        self._user = user
        # Not below pytest's folder, which only its owner may enter.
        self._folder = Path(tempfile.mkdtemp(prefix=f"streamkit-{name.lower()}-"))
        self._ports: list[HeldPort] = []
        self._guard: subprocess.Popen[str] | None = None
        self._pid = 0

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self._folder / LOG_NAME).read_text(errors="replace")

    def start(self) -> None:
        """Start the server; return when it accepts connections. Blocks."""
        assert self._guard is None, "it runs already"
        self._guard = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.server_guard"),
                *(str(self._folder), self._user, self._ready_mark, *self._command()),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must not reach it
        )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        word = self._guard.stdout.readline().strip()
        assert word == READY, f"{self._name} did not start: {self.log[-2000:]}"

    def stop(self) -> None:
        """End the server as an operator does: it closes all connections. Blocks."""
        guard, self._guard = self._guard, None
        assert guard is not None, "it does not run"
        guard.communicate(STOP, _END_S_MAX)

    def kill(self) -> None:
        """End the server with SIGKILL, and wait until all its processes have ended. Blocks."""
        assert self._guard is not None, "it does not run"
        os.kill(self._pid, signal.SIGKILL)
        self.stop()

    def restart(self) -> None:
        """Stop the server, then start it again. Blocks."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            self._create()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._guard is not None:
            self.kill()  # nothing of it is needed any more
        for port in self._ports:
            port.close()
        shutil.rmtree(self._folder)

    def _give(self, *paths: Path) -> None:
        """Make the user of the server the owner of some paths."""
        if self._user:
            uid, gid = map(int, self._user.split(":"))
            for path in paths:
                os.chown(path, uid, gid)

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command that runs the server."""

    @abstractmethod
    def _create(self) -> None:
        """Create what the server needs before its first start."""
