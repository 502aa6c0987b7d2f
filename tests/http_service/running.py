"""Runs the HTTP service while a ``with`` block runs: in a thread, or in a process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from tests.http_service.faults import Fault
from tests.http_service.service import Down, Service
from tests.http_service.tally import Tally

_STOP_S_MAX: Final = 60.0


class HttpService:
    """The service in a thread of its own. Its methods may be called from any other thread."""

    def __init__(self, *faults: Fault, seed: int = 0) -> None:
        self.url = ""
        self.control_url = ""
        self._service = Service(faults, seed=seed)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._is_up = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="http-service", daemon=True)

    def __enter__(self) -> HttpService:
        self._thread.start()
        self._is_up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def tally(self) -> Tally:
        """A copy of what the service has counted until now."""
        return self._service.tally.copy()

    def wait_for(self, condition: Callable[[Tally], bool]) -> None:
        """Wait until a condition of the tally holds. Blocks; fails after a minute."""
        self._service.tally.wait_for(condition)

    def use(self, *faults: Fault, seed: int | None = None) -> None:
        """Use other faults from the next request on; the counts continue."""

        async def use() -> None:
            self._service.use(faults, seed=seed)

        self._do(use())

    def go_down(self, how: Down = "refuse") -> None:
        """Be down until ``recover`` is called; see ``Service.be_down``."""
        self._do(self._service.be_down(how))

    def recover(self) -> None:
        """Be up again, on the same port and with the same faults."""
        self._do(self._service.be_down(None))

    def release(self) -> None:
        """Respond to the requests that hang now."""
        self._do(self._service.control({"release": True}))

    def reset(self) -> None:
        """Count from 0 again."""
        self._do(self._service.control({"reset": True}))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self._error = error  # raised in the thread of the test
        finally:
            self._is_up.set()

    async def _main(self) -> None:
        self._service.open()
        self.url, self.control_url = self._service.url, self._service.control_url
        self._is_up.set()
        await self._stop.wait()
        await self._service.close()


class HttpServiceProcess:
    """The service in a process of its own, so that it does not share a core with the test."""

    def __init__(self, **control: Any) -> None:
        """Args: ``control`` is applied first; see ``Service.control``."""
        self.url = ""
        self.control_url = ""
        self._first = json.dumps(control)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> HttpServiceProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.http_service", self._first],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready "), f"the service ended with {self._process.wait()}"
        _, self.url, self.control_url = line.split()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "it does not run"
        self._process.terminate()
        code = self._process.wait(_STOP_S_MAX)
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert code == 0, f"the service ended with {code}"

    def control(self, **changes: Any) -> dict[str, Any]:
        """Change the service, and return its tally; see ``Service.control``."""
        # Without the proxies of the environment: the service is on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.control_url, json.dumps(changes).encode()) as answer:
            tally: dict[str, Any] = json.loads(answer.read())
        return tally
