"""Run the HTTP service in a process, until SIGTERM or Ctrl-C.

``python -m tests.http_service [CONTROL]`` prints ``ready URL CONTROL-URL``. CONTROL is an object in
JSON that is applied first, as if it was sent to the control URL.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from tests.http_service.service import Service


async def main(control: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = Service()
    service.open()
    await service.control(json.loads(control))
    print("ready", service.url, service.control_url, flush=True)  # noqa: T201
    await stop.wait()
    await service.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "{}"))
