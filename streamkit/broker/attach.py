"""Attach to the broker of a data folder, starting it if it does not run.

Each command tries to connect. If no broker responds, the command that gets the lock starts one
and passes it the locked descriptor. So a folder never has two brokers, and no broker runs
without an attached command.
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

# The broker must import this same streamkit, so its parent folder is added to the end of the path.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from streamkit.broker.process import main; main()"
)
_RETRY_S = 0.01
_GREETING_BYTES_MAX = 4_096


class Attachment:
    """A connection that keeps the broker of a data folder running, until it or the process ends."""

    def __init__(
        self,
        link: socket.socket,
        greeting: dict[str, object],
        *,
        started: bool,
        made_folder: bool,
    ) -> None:
        link.setblocking(False)  # from now on it is only used to check whether the broker runs
        self._link = link
        # A child that outlives the job would keep the broker running forever.
        self._unregister = in_children(link.close)
        self.sc_address = str(greeting["sc"])
        self.pid = int(str(greeting["pid"]))
        self.has_started_broker = started
        self.has_created_folder = made_folder

    def is_lost(self) -> bool:
        """Return whether the broker ended unexpectedly."""
        try:
            return self._link.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Detach. The broker shuts down cleanly after the last attachment is closed."""
        self._unregister()
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
    """Attach to the broker of a data folder, starting it if it does not run.

    Blocks for up to ATTACH_S_MAX seconds; do not call it on the event loop.

    Raises:
        ConfigError: The folder cannot be created, or it is locked but no broker responds.
        StateError: The broker did not start; the message shows the reason.
    """
    if sys.platform == "win32":
        raise ConfigError(
            "the embedded broker does not run on Windows",
            hint="use a cluster with --cluster HOST:PORT",
        )
    folder = DataFolder(data_dir)
    is_new = folder.make()
    deadline_s = time.monotonic() + ATTACH_S_MAX
    started: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline_s:
        connection = _connect(folder)
        if connection is not None:
            if started is not None:
                _reap_when_it_ends(started)
            return Attachment(*connection, started=started is not None, made_folder=is_new)
        if started is None or started.poll() is not None:
            if started is not None and started.returncode not in (0, None):
                raise StateError(f"the embedded broker did not start: {_last_message(folder)}")
            lock_fd = folder.try_lock()
            if lock_fd is not None:
                started = _start(folder, lock_fd)
        time.sleep(_RETRY_S)
    raise ConfigError(
        f"the data folder {data_dir} is locked, but its broker does not respond",
        hint=f"see {folder.messages}, or use another folder with --data-dir",
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
            if not data:  # the broker is closing: wait for its end, then start a new one
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
                "-P",  # a file in the current folder must not replace a module of Python
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
            # The broker gets its own session, so that Ctrl-C does not stop it before the sinks
            # are flushed.
            start_new_session=True,
        )
    os.close(lock_fd)
    return process


def _reap_when_it_ends(broker: subprocess.Popen[bytes]) -> None:
    """Read the exit status of the broker when it ends, so that it does not become a zombie.

    The broker may outlive this command, so the thread is not joined.
    """
    threading.Thread(target=broker.wait, name="streamkit-broker-end", daemon=True).start()


def _last_message(folder: DataFolder) -> str:
    try:
        lines = folder.messages.read_text().strip().splitlines()
    except OSError:
        return "it wrote no message"
    return lines[-1].removeprefix("error: ") if lines else "it wrote no message"
