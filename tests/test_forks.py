"""Which descriptors a forked child closes, and which it leaves open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
FORKING = """
import os, sys
from streamkit.forks import close_in_children

fd = os.open(sys.argv[1], os.O_RDONLY)
unregister = close_in_children(fd)
{between}
child = os.fork()
if child == 0:
    try:
        os.fstat(fd)
    except OSError:
        os._exit(1)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
IS_OPEN, IS_CLOSED = 0, 1


def open_in_child(tmp_path: Path, between: str) -> int:
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    script = FORKING.format(between=between)
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "file")]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, cwd=tmp_path, env=environment).returncode


def test_a_forked_child_closes_a_registered_descriptor(tmp_path: Path) -> None:
    assert open_in_child(tmp_path, "") == IS_CLOSED


def test_a_descriptor_that_is_no_longer_registered_stays_open_in_a_child(tmp_path: Path) -> None:
    assert open_in_child(tmp_path, "unregister()") == IS_OPEN


def test_a_reused_descriptor_number_stays_open_in_a_child(tmp_path: Path) -> None:
    reused = "os.close(fd); again = os.open('other', os.O_RDONLY); assert again == fd"
    assert open_in_child(tmp_path, reused) == IS_OPEN
