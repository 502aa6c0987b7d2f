"""A broker in its own process, which can be killed and restarted on the same ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.ports import HeldPort
from tests.stop.running import PATIENCE_S, PROJECT

_READY = re.compile(r"ready sc=(\S+) spu=\S+:(\d+)")


class BrokerProcess:
    """`streamkit broker start` on a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._ports = HeldPort(), HeldPort()
        self.sc_port, self.spu_port = (port.number for port in self._ports)
        self.address = self._ports[0].address
        self._process: subprocess.Popen[str] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it runs"
        return self._process.pid

    def start(self) -> None:
        """Start the broker, on the same ports every time; return when both listen."""
        command = [sys.executable, "-m", "streamkit", "broker", "start"]
        command += ["--data-dir", str(self.data_dir)]
        command += ["--sc-port", str(self.sc_port), "--spu-port", str(self.spu_port)]
        log = (self.data_dir.parent / "broker.log").open("a")
        with log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | {"PYTHONPATH": str(PROJECT)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C on the test's terminal must reach only the test.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = _READY.match(line)
        assert found, f"no broker: {line!r} {(self.data_dir.parent / 'broker.log').read_text()}"
        assert (found[1], int(found[2])) == (self.address, self.spu_port)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the broker, as in a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop the broker; return its exit code."""
        return self._end(signal.SIGTERM)

    def __enter__(self) -> BrokerProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)
                self.kill()
        finally:
            for port in self._ports:
                port.close()

    def _end(self, number: int) -> int:
        assert self._process is not None, "it runs"
        self._process.send_signal(number)
        code = self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code
