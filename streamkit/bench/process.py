"""Runs a function of a benchmark in another process, and reads what it returns.

`python -m streamkit.bench.process MODULE FUNCTION JSON` calls the function with the keyword
arguments of the JSON object, and prints the dict that it returns as the last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from streamkit.bench.result import WrongOutput

# What a function in another process returns; it must be possible to write it as JSON.
Answer = dict[str, Any]
_END_S_MAX: Final = 60.0


@dataclass(slots=True)
class OtherProcess:
    """A running function in another process."""

    name: str
    _popen: subprocess.Popen[str]
    _messages: Path

    def stop(self) -> None:
        """Send it a SIGTERM."""
        self._popen.terminate()

    def answer(self, wait_s: float = _END_S_MAX) -> Answer:
        """Wait for its end; return what the function returned.

        Raises:
            WrongOutput: It failed, or did not end in time.
        """
        try:
            output, _ = self._popen.communicate(timeout=wait_s)
        except subprocess.TimeoutExpired:
            raise WrongOutput(f"{self.name} did not end within {wait_s:.0f} s") from None
        if self._popen.returncode:
            raise WrongOutput(f"{self.name} failed: {self._messages.read_text()}")
        answer: Answer = json.loads(output.splitlines()[-1])
        return answer


@contextmanager
def in_process(
    function: Callable[..., Answer], folder: Path, **arguments: Any
) -> Iterator[OtherProcess]:
    """Run a function of a module in another process; kill it if it outlives the block."""
    name = function.__name__
    command = [sys.executable, "-m", __name__, function.__module__, name, json.dumps(arguments)]
    messages = folder / f"{name}.log"
    with (
        messages.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as popen,
    ):
        try:
            yield OtherProcess(name, popen, messages)
        finally:
            popen.kill()


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    # The size in `getrusage` may be that of the parent, which Linux keeps over a fork.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1_024
    raise WrongOutput("/proc/self/status has no peak of the resident size")


def main(module: str, function: str, arguments: str) -> None:
    answer = getattr(import_module(module), function)(**json.loads(arguments))
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
