"""Commands that share the broker of a folder: it stops after the last of them has ended."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from streamkit.broker.attach import attach
from streamkit.broker.data_folder import DataFolder
from streamkit.broker.process import ATTACH_S_MAX
from streamkit.errors import StateError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Linux")

COMMAND: Final = """
import json, sys
from pathlib import Path
from streamkit.broker.attach import attach
with attach(Path(sys.argv[1])) as held:
    print(json.dumps([held.pid, held.sc_address, held.has_started_broker]), flush=True)
    sys.stdin.read()
"""


class Command:
    """A process that stays attached until `end` or `kill`."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, data_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def greeting(self) -> tuple[int, str, bool]:
        """Wait until it is attached.

        Returns the pid and address of the broker, and whether this command started it.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        pid, address, has_started = json.loads(line)
        return pid, address, has_started

    def end(self) -> str:
        """End it and return its error output."""
        return self.process.communicate()[1].decode()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def is_served(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return False
    return True


def wait_for_broker_end(data_dir: Path) -> None:
    """Wait until no broker uses the folder.

    This must take less time than the timeout of a broker to which no command attaches.
    """
    begin_s = time.monotonic()
    with (data_dir / "broker" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert time.monotonic() - begin_s < ATTACH_S_MAX / 2


@pytest.fixture(params=["short", "long"])
def data_dir(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder whose path is short enough for a Unix socket, and one whose path is too long."""
    path = tmp_path / ("d" if request.param == "short" else "d" * 120)
    is_short = len(os.fsencode(path / "broker" / "attach.sock")) <= 100
    assert (DataFolder(path).attach_socket is not None) == is_short
    return path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_first_command_starts_the_broker_and_the_last_one_ends_it(data_dir: Path) -> None:
    with Command(data_dir) as first:
        pid, address, has_started = first.greeting()
        assert has_started
        with Command(data_dir) as second:
            assert second.greeting() == (pid, address, False)
            assert first.end() == ""
            assert is_served(address)
        assert second.end() == ""
    wait_for_broker_end(data_dir)
    assert not is_served(address)
    assert not list((data_dir / "broker").glob("attach.*"))


def test_a_killed_command_is_also_detached(data_dir: Path) -> None:
    with Command(data_dir) as command:
        _, address, _ = command.greeting()
        command.kill()
    wait_for_broker_end(data_dir)
    assert not is_served(address)


def test_many_simultaneous_commands_start_only_one_broker(data_dir: Path, stack: ExitStack) -> None:
    commands = [stack.enter_context(Command(data_dir)) for _ in range(5)]
    greetings = [command.greeting() for command in commands]
    assert len({pid for pid, _, _ in greetings}) == 1
    assert sorted(has_started for _, _, has_started in greetings) == [False] * 4 + [True]


def test_the_files_of_a_killed_broker_do_not_prevent_a_new_one(data_dir: Path) -> None:
    with Command(data_dir) as first:
        pid, _, _ = first.greeting()
        os.kill(pid, signal.SIGKILL)
        wait_for_broker_end(data_dir)
        assert list((data_dir / "broker").glob("attach.*"))
        with Command(data_dir) as second:
            new_pid, address, has_started = second.greeting()
            assert (new_pid != pid, has_started, is_served(address)) == (True, True, True)


def test_consecutive_commands_always_get_a_broker(data_dir: Path) -> None:
    """The second command often connects while the broker of the first is closing."""
    for _ in range(4):
        with Command(data_dir) as command:
            assert is_served(command.greeting()[1])
    wait_for_broker_end(data_dir)


def test_ctrl_c_at_the_terminal_does_not_reach_the_broker(data_dir: Path) -> None:
    with Command(data_dir) as command:
        pid, address, _ = command.greeting()
        assert os.getsid(pid) == pid != os.getsid(command.process.pid)
        os.kill(pid, signal.SIGTERM)  # a signal to the broker itself ends it cleanly
        wait_for_broker_end(data_dir)
        assert not is_served(address)


def test_the_error_for_a_broker_that_cannot_start_has_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "format").write_bytes(b"streamkit broker 9\n")
    with pytest.raises(StateError, match=r"did not start: .*streamkit broker 9"):
        attach(tmp_path)


def test_attaching_in_a_program_leaves_nothing_open(tmp_path: Path) -> None:
    """Warnings are errors here: an open socket or process would fail the test."""
    with attach(tmp_path) as first, attach(tmp_path) as second:
        attachment: list[Any] = [first.pid, second.pid, second.has_started_broker]
        assert attachment == [first.pid, first.pid, False]
    wait_for_broker_end(tmp_path)
