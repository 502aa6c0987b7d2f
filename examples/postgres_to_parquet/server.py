"""A PostgreSQL server for the time of a ``with`` block, on a free port of 127.0.0.1."""

import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INSTALLED = Path("/usr/lib/postgresql")  # Debian keeps the programs away from PATH
MISSING = """\
PostgreSQL is missing: its program initdb is neither in /usr/lib/postgresql nor on PATH.
hint: install it, on Debian and Ubuntu with: apt-get install postgresql
      or use a server that runs already: python run.py --url postgresql://user:password@host/name"""


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run the server of a folder, and create it first if it is new; yield its URL.

    The server also stops when this process is killed. Its data stays for the next run.
    """
    programs, user = folder_of_programs(), user_of_server()
    data = folder / "postgres"
    if not data.is_symlink():
        create(data, programs, user)
    place = data.resolve()
    if not place.is_dir():
        raise SystemExit(f"the data of the server, {place}, was removed: use another folder")
    pg_ctl: list[str | Path] = [programs / "pg_ctl", "--pgdata", place]
    # The server of a run that was killed may still be stopping.
    subprocess.run([*pg_ctl, "stop"], capture_output=True, cwd=place, check=False, **user)
    with socket.socket() as held:  # bound but not listening: nobody else gets the port meanwhile
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        run([*pg_ctl, "start", "--log", place / "log", "--options", options], place, user)
    pid = (place / "postmaster.pid").read_text().split()[0]
    # Standard input of this shell ends with this process, also after SIGKILL.
    stopping = subprocess.Popen(
        ["sh", "-c", 'cat; kill -INT "$0"', pid],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C must not reach it
    )
    try:
        yield f"postgresql://postgres:{(place / 'password').read_text()}@127.0.0.1:{port}/postgres"
    finally:
        stopping.communicate()
        subprocess.run([*pg_ctl, "stop"], capture_output=True, cwd=place, check=False, **user)


def create(data: Path, programs: Path, user: dict[str, Any]) -> None:
    """Create the data of a server, and a link to it.

    It is a temporary folder, because another user may not be allowed to enter the other one.
    """
    place = Path(tempfile.mkdtemp(prefix="streamkit-postgres-"))
    password = place / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex())
    made = place / "data"
    if user:
        shutil.chown(place, user["user"], user["group"])
        shutil.chown(password, user["user"], user["group"])
    options = [f"--pwfile={password}", "--username=postgres", "--auth=scram-sha-256"]
    options += ["--encoding=UTF8", "--locale=C"]
    run([programs / "initdb", "--pgdata", made, *options], place, user)
    password.rename(made / "password")
    data.symlink_to(made)


def run(command: list[str | Path], folder: Path, user: dict[str, Any]) -> None:
    # Not a pipe: the server would keep it open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(command, cwd=folder, stdout=output, stderr=output, **user)
        output.seek(0)
        if done.returncode:
            raise SystemExit(f"{command[0]} failed: {output.read()}")


def folder_of_programs() -> Path:
    """Return the folder with the programs of the newest version."""
    found = sorted(
        INSTALLED.glob("*/bin/initdb"),
        key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))],
    )
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise SystemExit(MISSING)
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


def user_of_server() -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs the server: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    known = {each.pw_name: each for each in pwd.getpwall()}
    other = known.get("postgres") or known["nobody"]
    return {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": ()}
