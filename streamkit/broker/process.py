"""The broker as a process: serve until signalled, or until the last attached command ends.

| state | event | next |
|---|---|---|
| waiting for the first attachment | one comes | serving |
| | none within ATTACH_S_MAX | closing |
| serving | the last attachment ends | closing |
| any | SIGTERM, SIGINT, journal failure | closing: attachments are refused |

A broker of `broker start` counts itself as an attachment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from streamkit.broker.broker import Broker, BrokerOptions
from streamkit.env import keep_freed_memory, raise_open_files_limit
from streamkit.errors import StreamKitError

ATTACH_S_MAX = 10.0


class Attachments:
    """The commands that hold the broker up. Each is a connection that the kernel closes."""

    def __init__(
        self, greeting: dict[str, object], *, stays: bool, on_none: Callable[[], None]
    ) -> None:
        self._greeting = json.dumps(greeting).encode() + b"\n"
        self._stays = stays
        self._on_none = on_none
        self._count = 0
        self._is_closing = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._path: Path | None = None

    def end_if_none(self) -> None:
        """End the broker unless somebody holds it; from here on nobody may any more."""
        if not self._count and not self._stays:
            self._is_closing = True
            self._on_none()

    async def listen(self, socket_path: Path | None, port_file: Path) -> None:
        """Open the Unix socket, or a loopback port where its path would be too long."""
        if socket_path is not None:
            self._path = socket_path
            self._remove_path()
            self._server = await asyncio.start_unix_server(self._serve, socket_path)
            return
        self._path = port_file
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        aside = port_file.with_suffix(".new")
        aside.write_text(str(self._server.sockets[0].getsockname()[1]))
        aside.replace(port_file)

    async def close(self) -> None:
        self._is_closing = True
        if self._server is not None:
            self._server.close()
        self._remove_path()
        for writer in self._writers:
            writer.close()

    def _remove_path(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closing:
            writer.close()
            return
        self._count += 1
        self._writers.add(writer)
        writer.write(self._greeting)
        try:
            while await reader.read(1024):
                pass  # an attached command has nothing to say; its end is what counts
        except OSError:
            pass  # it ended without a farewell, which is an end all the same
        finally:
            self._count -= 1
            self._writers.discard(writer)
            writer.close()
            self.end_if_none()


async def serve(
    options: BrokerOptions,
    *,
    lock_fd: int | None = None,
    stays: bool,
    on_ready: Callable[[Broker], None],
) -> int:
    """Run a broker until it has to end; return the exit code.

    Args:
        options: Where it listens and keeps its data.
        lock_fd: The locked descriptor, if whoever started it has taken the folder already.
        stays: Whether it stays until it is signalled; else it ends with the last attachment.
        on_ready: Called once both ports listen.

    Raises:
        StreamKitError: It could not start.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        if number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
            continue  # whoever started it in the background does not want Ctrl-C to end it
        loop.add_signal_handler(number, stop.set)
    raise_open_files_limit()
    keep_freed_memory()
    broker = Broker(options, lock_fd=lock_fd)
    await broker.open()
    greeting: dict[str, object] = {
        "sc": broker.sc_address,
        "spu": broker.spu_address,
        "pid": os.getpid(),
    }

    attachments = Attachments(greeting, stays=stays, on_none=stop.set)
    try:
        await attachments.listen(broker.folder.attach_socket, broker.folder.attach_port)
        loop.call_later(ATTACH_S_MAX, attachments.end_if_none)
        on_ready(broker)
        failed = loop.create_task(broker.failed.wait())
        stopped = loop.create_task(stop.wait())
        await asyncio.wait((failed, stopped), return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        stopped.cancel()
    finally:
        await attachments.close()
        await broker.close()
    return 1 if broker.failure is not None else 0


def main() -> None:
    """Run the broker of a data folder for the commands that attach to it."""
    data_dir, lock_fd = Path(sys.argv[1]), int(sys.argv[2])
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    options = BrokerOptions(data_dir)
    try:
        code = asyncio.run(serve(options, lock_fd=lock_fd, stays=False, on_ready=lambda _: None))
    except StreamKitError as error:
        sys.stderr.write(f"error: {error}\n")
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
