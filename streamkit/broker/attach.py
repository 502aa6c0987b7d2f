"""Use the broker of a data folder: attach to the one that runs, or start it.

Everybody who wants the broker tries to connect; where nobody answers, whoever gets the lock
starts it and hands it the locked descriptor. So there is never a second one, and none that
nobody uses.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from streamkit.broker.data_folder import DataFolder
from streamkit.broker.process import ATTACH_S_MAX
from streamkit.errors import ConfigError, StateError
from streamkit.forks import in_children

# streamkit is found wherever it was found here; the folder that holds it comes last.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from streamkit.broker.process import main; main()"
)
_RETRY_S = 0.01
_GREETING_BYTES_MAX = 4_096


class Attachment:
    """A hold on the broker of a data folder; it ends with the process at the latest."""

    def __init__(
        self,
        link: socket.socket,
        greeting: dict[str, object],
        *,
        started: bool,
        made_folder: bool,
    ) -> None:
        link.setblocking(False)  # it is only looked at from here on
        self._link = link
        # A child that outlives the job would hold the broker up for ever.
        self._share_again = in_children(link.close)
        self.sc_address = str(greeting["sc"])
        self.pid = int(str(greeting["pid"]))
        self.has_started_broker = started
        self.has_made_folder = made_folder

    def is_lost(self) -> bool:
        """Tell whether the broker has ended, which nobody who holds it has asked for."""
        try:
            return self._link.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Let go. If this was the last hold, the broker ends, cleanly."""
        self._share_again()
        self._link.close()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def attach(data_dir: Path) -> Attachment:
    """Attach to the broker of a data folder, starting it if there is none.

    Blocks for up to ATTACH_S_MAX seconds; call it off the event loop.

    Raises:
        ConfigError: The folder cannot be made, or nobody answers although it is locked.
        StateError: The broker was started and gave up; the text says why.
    """
    if sys.platform == "win32":
        raise ConfigError(
            "the embedded broker does not run on Windows",
            hint="name a cluster with --cluster HOST:PORT",
        )
    folder = DataFolder(data_dir)
    is_new = folder.make()
    deadline_s = time.monotonic() + ATTACH_S_MAX
    started: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline_s:
        greeted = _connect(folder)
        if greeted is not None:
            if started is not None:
                _reap_when_it_ends(started)
            return Attachment(*greeted, started=started is not None, made_folder=is_new)
        if started is None or started.poll() is not None:
            if started is not None and started.returncode not in (0, None):
                raise StateError(f"the embedded broker did not start: {_last_words(folder)}")
            lock_fd = folder.try_lock()
            if lock_fd is not None:
                started = _start(folder, lock_fd)
        time.sleep(_RETRY_S)
    raise ConfigError(
        f"the data folder {data_dir} is locked, but no broker answers there",
        hint=f"see {folder.messages}, or name another folder with --data-dir",
    )


def _connect(folder: DataFolder) -> tuple[socket.socket, dict[str, object]] | None:
    link: socket.socket | None = None
    try:
        path = folder.attach_socket
        if path is not None:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.settimeout(ATTACH_S_MAX)
            link.connect(os.fspath(path))
        else:
            port = int(folder.attach_port.read_text())
            link = socket.create_connection(("127.0.0.1", port), timeout=ATTACH_S_MAX)
        line = b""
        while not line.endswith(b"\n") and len(line) < _GREETING_BYTES_MAX:
            data = link.recv(_GREETING_BYTES_MAX)
            if not data:  # it is closing: wait until it has, then start a new one
                link.close()
                return None
            line += data
        return link, json.loads(line)
    except (OSError, ValueError):
        if link is not None:
            link.close()
        return None


def _start(folder: DataFolder, lock_fd: int) -> subprocess.Popen[bytes]:
    with folder.messages.open("ab") as messages:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",  # a file of the current folder must not stand for a module of Python's
                "-c",
                _PROGRAM,
                os.fspath(Path(__file__).parents[2]),
                os.fspath(folder.path),
                str(lock_fd),
            ],
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            pass_fds=(lock_fd,),
            # A session of its own: Ctrl-C must not reach it before the sinks are flushed.
            start_new_session=True,
        )
    os.close(lock_fd)
    return process


def _reap_when_it_ends(broker: subprocess.Popen[bytes]) -> None:
    """Take the exit status of the broker, whenever that is, so that no zombie is left.

    It may outlive this command, so nobody waits for the thread.
    """
    threading.Thread(target=broker.wait, name="streamkit-broker-end", daemon=True).start()


def _last_words(folder: DataFolder) -> str:
    try:
        lines = folder.messages.read_text().strip().splitlines()
    except OSError:
        return "it left no message"
    return lines[-1].removeprefix("error: ") if lines else "it left no message"
