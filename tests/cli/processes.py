"""Runs the command in real processes, in a separate folder, without the user's settings."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "streamkit")
WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit code and output of a process that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[bytes]:
        return self.out.splitlines()


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STREAMKIT_") and name != "NO_COLOR"
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


def run(
    folder: Path, *arguments: str, given: bytes = b"", variables: Mapping[str, str] | None = None
) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=WAIT_S,
        env=environment(**(variables or {})),
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command with pipes for its streams; it is killed at the end of the block."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def broker(folder: Path, *arguments: str) -> Iterator[str]:
    """Run `broker start` on free ports; yield the SC's address."""
    with started(
        folder, "broker", "start", "--sc-port", "0", "--spu-port", "0", *arguments
    ) as process:
        yield ready_line(process)[0]
        process.terminate()
        process.wait(WAIT_S)


def ready_line(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Read the addresses of the SC and the SPU from the line that a broker prints."""
    assert process.stdout is not None
    words = process.stdout.readline().decode().split()
    assert words[:1] == ["ready"], words
    sc, spu = (word.partition("=")[2] for word in words[1:])
    return sc, spu


def wait_for_end_of_broker(data_dir: Path) -> None:
    """Wait until no broker uses a data folder: its lock is free then."""
    with (data_dir / "broker" / "lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Read standard error up to a text."""
    assert process.stderr is not None
    read = b""
    while text not in read:
        byte = process.stderr.read(1)
        assert byte, f"ended without {text!r}: {read!r}"
        read += byte
    return read
