"""A real MariaDB server on a free port of loopback, which a test may kill and restart."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.guarded_server import GuardedServer
from tests.ports import HeldPort
from tests.postgres.server import user_for_servers
from tests.server_guard import as_user

USER: Final = "streamkit"
PASSWORD: Final = "wide-open-4712"
_HOST: Final = "127.0.0.1"
_SETTINGS: Final = {
    "bind-address": _HOST,
    "innodb-flush-log-at-trx-commit": "2",  # a kill never loses the page cache
    "innodb-flush-method": "nosync",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "key-buffer-size": "1M",
    "performance-schema": "OFF",
    # Times must not depend on the zone of the server, so it has an unusual one.
    "default-time-zone": "+05:45",
}


def programs() -> tuple[Path, Path] | None:
    """Return the server, and the program that creates its tables; None without them."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = [shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db")]
    return None if None in found else (Path(str(found[0])), Path(str(found[1])))


class MariaDbServer(GuardedServer):
    """A server in a temporary folder. It runs while the ``with`` block runs."""

    def __init__(self) -> None:
        found = programs()
        assert found is not None, "MariaDB is not installed"
        super().__init__("MariaDB", "mariadbd: ready for connections", user_for_servers())
        self._server, self._installer = found
        self._port = HeldPort()
        self._ports.append(self._port)

    @property
    def port(self) -> int:
        """The port, the same after every start."""
        return self._port.number

    def url(self, database: str = "") -> str:
        """Return the URL of a database."""
        # For TLS, each connection would read all certificates of the system.
        options = "ssl_disabled=true"
        return f"mysql+pymysql://{USER}:{PASSWORD}@{_HOST}:{self.port}/{database}?{options}"

    def _command(self) -> list[str]:
        settings = {
            **_SETTINGS,
            "port": str(self.port),
            "datadir": str(self._data),
            "socket": str(self._folder / "socket"),
            "init-file": str(self._users),
            "pid-file": str(self._folder / "pid"),
            "tmpdir": str(self._temporary),
        }
        command = [str(self._server), "--no-defaults"]
        command += [f"--{name}={value}" for name, value in settings.items()]
        return command + (["--user=root"] if os.geteuid() == 0 and not self._user else [])

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _temporary(self) -> Path:
        """Temporary tables have names that two servers may both use."""
        return self._folder / "temporary"

    @property
    def _users(self) -> Path:
        return self._folder / "users.sql"

    def _create(self) -> None:
        name = f"'{USER}'@'%'"
        self._users.write_text(
            f"CREATE USER IF NOT EXISTS {name} IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {name};\n"
        )
        self._temporary.mkdir()
        self._give(self._folder, self._users, self._temporary)
        done = subprocess.run(
            [
                *(self._installer, "--no-defaults", f"--datadir={self._data}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
                *("--innodb-log-file-size=16M", "--skip-name-resolve"),
                f"--tmpdir={self._temporary}",
            ],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **as_user(self._user),
        )
        assert done.returncode == 0, f"mariadb-install-db failed: {done.stdout}{done.stderr}"
