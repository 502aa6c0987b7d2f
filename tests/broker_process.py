"""A broker in its own process, which a test may kill and restart on the same ports."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from streamkit.broker.broker import Broker, BrokerOptions
from streamkit.broker.process import serve
from tests.ports import HeldPort

READY = "ready"
_STOP_S_MAX = 60.0


class BrokerProcess:
    """Serves a data folder until it is killed or the test ends."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._ports = HeldPort(), HeldPort()
        self.sc_port, self.spu_port = (port.number for port in self._ports)
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """The address of the SC, the same after every start."""
        return f"127.0.0.1:{self.sc_port}"

    def start(self) -> None:
        """Start the broker; return when both ports listen. Blocks."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.broker_process",
                str(self.data_dir),
                str(self.sc_port),
                str(self.spu_port),
            ],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        word, *ports = self._process.stdout.readline().split() or ["nothing"]
        assert word == READY, f"the broker ended with {self._process.wait()}"
        assert tuple(map(int, ports)) == (self.sc_port, self.spu_port)

    def pause(self) -> None:
        """Stop the process with SIGSTOP: it does not respond to requests any more."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End the broker with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the broker with SIGTERM, as an operator does."""
        assert self._end(signal.SIGTERM) == 0, "the broker did not end cleanly"

    def restart(self) -> None:
        """Kill the broker, then start it with the same folder and ports. Blocks."""
        self.kill()
        self.start()

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
                self.kill()
        finally:
            for port in self._ports:
                port.close()

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None, "it does not run"
        process.send_signal(number)
        code = process.wait(_STOP_S_MAX)
        assert process.stdout is not None
        process.stdout.close()
        return code


def main() -> None:
    """Run a broker for ``DATA_DIR SC_PORT SPU_PORT``; print its ports."""
    data_dir, sc_port, spu_port = sys.argv[1:]

    def say_ready(broker: Broker) -> None:
        ports = (address.rpartition(":")[2] for address in (broker.sc_address, broker.spu_address))
        print(READY, *ports, flush=True)  # noqa: T201

    options = BrokerOptions(Path(data_dir), int(sc_port), int(spu_port))
    sys.exit(asyncio.run(serve(options, stays=True, on_ready=say_ready)))


if __name__ == "__main__":
    main()
