"""A real PostgreSQL server on a free port of loopback, which a test may stop, kill and restart."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.guarded_server import GuardedServer
from tests.ports import HeldPort
from tests.server_guard import as_user

USER: Final = "streamkit"
PASSWORD: Final = "wide-open-4711"
_HOST: Final = "127.0.0.1"
_READY_MARK: Final = "database system is ready to accept connections"
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


class PostgresServer(GuardedServer):
    """A cluster in a temporary folder. It runs while the ``with`` block runs, unless it is stopped.

    Args:
        settings: Settings of the server that differ from those of the tests.
    """

    def __init__(self, **settings: str) -> None:
        bin_folder = programs()
        assert bin_folder is not None, "PostgreSQL is not installed"
        super().__init__("PostgreSQL", _READY_MARK, user_for_servers())
        self._bin = bin_folder
        self._settings = {**_SETTINGS, **settings}
        self._port = HeldPort()
        self._ports.append(self._port)

    @property
    def port(self) -> int:
        """The port, the same after every start."""
        return self._port.number

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return the URL of a database, optionally through a proxy on another port."""
        return f"postgresql://{USER}:{PASSWORD}@{_HOST}:{port or self.port}/{database}"

    def _command(self) -> list[str]:
        settings = {**self._settings, "port": str(self.port)}.items()
        command = [str(self._bin / "postgres"), "-D", str(self._data)]
        return command + [f"--{name}={value}" for name, value in settings]

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _create(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        self._give(self._folder, password)
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


def user_for_servers() -> str:
    """Return the user for the server as ``uid:gid``; empty for the user of the tests."""
    if os.geteuid() != 0:
        return ""
    known = {each.pw_name: each for each in pwd.getpwall()}
    found = next(known[name] for name in _OTHER_USERS if name in known)
    return f"{found.pw_uid}:{found.pw_gid}"
