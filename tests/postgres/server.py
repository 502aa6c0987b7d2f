"""A real PostgreSQL server on a free port of loopback, which a test may stop, kill and restart."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.ports import HeldPort
from tests.server_guard import LOG_NAME, READY, STOP, as_user

USER: Final = "streamkit"
PASSWORD: Final = "wide-open-4711"
_HOST: Final = "127.0.0.1"
_READY_MARK: Final = "database system is ready to accept connections"
_END_S_MAX: Final = 60.0
# PostgreSQL refuses to run as root.
_OTHER_USERS: Final = ("postgres", "nobody")
_SETTINGS: Final = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "fsync": "off",  # a kill never loses the page cache
    "shared_buffers": "32MB",
    "max_connections": "60",
    "lc_messages": "C",
    # Times must not depend on the zone of the server, so it has an unusual one.
    "timezone": "Asia/Kathmandu",
}


def programs() -> Path | None:
    """Return the folder with PostgreSQL's programs, of the newest version; None without one."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))],
    )
    on_path = shutil.which("initdb")
    if not found and on_path:
        found = [Path(on_path)]
    return found[-1].parent if found else None


class PostgresServer:
    """A cluster in a temporary folder. It runs while the ``with`` block runs, unless it is stopped.

    Args:
        settings: Settings of the server that differ from those of the tests.
    """

    def __init__(self, **settings: str) -> None:
        bin_folder = programs()
        assert bin_folder is not None, "PostgreSQL is not installed"
        self._bin = bin_folder
        self._settings = {**_SETTINGS, **settings}
        self._port = HeldPort()
        self._user = user_for_servers()
        # Not below pytest's folder, which only its owner may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="streamkit-postgres-"))
        self._guard: subprocess.Popen[str] | None = None
        self._pid = 0

    @property
    def port(self) -> int:
        """The port, the same after every start."""
        return self._port.number

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self._folder / LOG_NAME).read_text(errors="replace")

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return the URL of a database, optionally through a proxy on another port."""
        return f"postgresql://{USER}:{PASSWORD}@{_HOST}:{port or self.port}/{database}"

    def start(self) -> None:
        """Start the server; return when it accepts connections. Blocks."""
        assert self._guard is None, "it runs already"
        settings = {**self._settings, "port": str(self.port)}.items()
        command = [str(self._bin / "postgres"), "-D", str(self._data)]
        command += [f"--{name}={value}" for name, value in settings]
        self._guard = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.server_guard"),
                *(str(self._folder), self._user, _READY_MARK, *command),
            ],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must not reach it
        )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        word = self._guard.stdout.readline().strip()
        assert word == READY, f"PostgreSQL did not start: {self.log[-2000:]}"

    def stop(self) -> None:
        """End the server as an operator does: it closes all connections. Blocks."""
        self._end()

    def kill(self) -> None:
        """End the server with SIGKILL, and wait until all its processes have ended. Blocks."""
        assert self._guard is not None, "it does not run"
        os.kill(self._pid, signal.SIGKILL)
        self._end()

    def restart(self) -> None:
        """Stop the server, then start it again. Blocks."""
        self.stop()
        self.start()

    def __enter__(self) -> PostgresServer:
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
        self._port.close()
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _create(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user:
            uid, gid = map(int, self._user.split(":"))
            os.chown(self._folder, uid, gid)
            os.chown(password, uid, gid)
        done = subprocess.run(
            [
                *(self._bin / "initdb", "-D", self._data, "-U", USER, f"--pwfile={password}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **as_user(self._user),
        )
        assert done.returncode == 0, f"initdb failed: {done.stdout}{done.stderr}"

    def _end(self) -> None:
        guard, self._guard = self._guard, None
        assert guard is not None, "it does not run"
        guard.communicate(STOP, _END_S_MAX)


def user_for_servers() -> str:
    """Return the user for the server as ``uid:gid``; empty for the user of the tests."""
    if os.geteuid() != 0:
        return ""
    known = {each.pw_name: each for each in pwd.getpwall()}
    found = next(known[name] for name in _OTHER_USERS if name in known)
    return f"{found.pw_uid}:{found.pw_gid}"
