"""The broker as a process: it serves until a signal, or until the last attached command ends.

| state | event | next state |
|---|---|---|
| waiting for the first attachment | a command attaches | serving |
| | no command attaches within ATTACH_S_MAX | closing |
| serving | the last attachment ends | closing |
| any | SIGTERM, SIGINT, journal failure | closing: attachments are refused |

A broker of `broker start` keeps running without attachments.
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
    """The attached commands, which keep the broker running. Each has one connection.

    The kernel closes the connection when the command ends, even if it is killed.
    """

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
        """Stop the broker if no command is attached; later commands are refused."""
        if not self._count and not self._stays:
            self._is_closing = True
            self._on_none()

    async def listen(self, socket_path: Path | None, port_file: Path) -> None:
        """Open the Unix socket, or a loopback port if its path would be too long."""
        if socket_path is not None:
            self._path = socket_path
            self._remove_path()
            self._server = await asyncio.start_unix_server(self._serve, socket_path)
            return
        self._path = port_file
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        temporary = port_file.with_suffix(".new")
        temporary.write_text(str(self._server.sockets[0].getsockname()[1]))
        temporary.replace(port_file)

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
                pass  # an attached command sends nothing; only its end matters
        except OSError:
            pass  # a reset connection also counts as an end
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
    """Run a broker until it ends; return the exit code.

    Args:
        options: The options of the broker.
        lock_fd: The locked descriptor, if the parent process has already locked the folder.
        stays: True to run until a signal; False to end with the last attachment.
        on_ready: Called when both ports listen.

    Raises:
        StreamKitError: The broker could not start.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        if number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
            continue  # the shell started the broker in the background: Ctrl-C must not end it
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
