"""A small file system, for tests that fill it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (4_096, 1):
            with pytest.raises(OSError, match="No space left"):
                write_forever(file, bytes(size))


def write_forever(file: FileIO, data: bytes) -> None:
    while file.write(data):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs root to mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
