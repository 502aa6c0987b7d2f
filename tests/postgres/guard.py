"""Runs a server until standard input closes, so that it never outlives the tests.

``python guard.py FOLDER USER COMMAND...``, where USER is ``uid:gid`` or empty for the own user. It
prints the pid of the server, then ``ready`` when it accepts connections. The word ``stop`` on
standard input keeps the folder; if the input closes without it, the tests have crashed, and the
folder is removed.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

STOP = "stop"
READY = "ready"
LOG_NAME = "server.log"
_READY_MARKS = (b"system is ready to accept connections", b"mariadbd: ready for connections")
_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # each is stricter than the one before
_SIGNAL_S = 15.0


def as_user(user: str) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs a program as this user."""
    if not user:
        return {}
    uid, gid = map(int, user.split(":"))
    return {"user": uid, "group": gid, "extra_groups": ()}


def main() -> None:
    folder, user, *command = sys.argv[1:]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **as_user(user)
    )
    _say(str(process.pid))
    crashed = threading.Event()
    threading.Thread(target=_end_with_input, args=(process, crashed), daemon=True).start()
    assert process.stderr is not None
    # The processes of the server share this pipe, so it ends when all of them have ended.
    with (Path(folder) / LOG_NAME).open("ab", buffering=0) as log:
        for line in process.stderr:
            log.write(line)
            if any(mark in line for mark in _READY_MARKS):
                _say(READY)
    process.wait()
    if crashed.is_set():
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_input(process: subprocess.Popen[bytes], crashed: threading.Event) -> None:
    if sys.stdin.read().strip() != STOP:
        crashed.set()
    for number in _SIGNALS:
        process.send_signal(number)
        try:
            process.wait(_SIGNAL_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _say(text: str) -> None:
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        pass  # the tests have crashed; standard input ends too


if __name__ == "__main__":
    main()
