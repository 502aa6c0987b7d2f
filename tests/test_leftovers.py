"""A test that leaves something open fails itself, and not the test that runs next."""

from __future__ import annotations

import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.inner_pytest import run_tests
from tests.proxy import Proxy

SHORT_PATIENCE = """
from tests import leftovers
leftovers.PATIENCE_S = 0.1
"""
# The objects are in a reference cycle, so that only the garbage collector closes them.
GUILTY = """
import asyncio
import socket
import subprocess
import threading

import pytest

class Ring:
    def __init__(self, held):
        self.ring, self.held = self, held

def test_innocent_before():
    pass

def test_guilty():
    {leave}

def test_innocent_after():
    pass
"""
UNCLOSED_STREAM = """
    loop = asyncio.new_event_loop()
    async def connect():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        Ring(await asyncio.open_connection(*server.sockets[0].getsockname()))
        server.close()
    loop.run_until_complete(connect())
    loop.close()
"""
UNCLOSED_SOCKET = 'Ring(socket.create_server(("127.0.0.1", 0)))'
HELD_SOCKET = 'pytest.held = socket.create_server(("127.0.0.1", 0))'
ENDLESS_THREAD = (
    "threading.Thread(target=threading.Event().wait, name='endless', daemon=True).start()"
)
ORPHAN = 'subprocess.run(["sh", "-c", "exec sleep 60 > /dev/null 2>&1 &"])'

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def run(folder: Path, leave: str) -> str:
    """Run three tests, the second of which leaves something open; return the report."""
    source = GUILTY.format(leave=leave.strip())
    return run_tests(folder, source, more_conftest=SHORT_PATIENCE)


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (UNCLOSED_STREAM, "unclosed transport"),
        (UNCLOSED_SOCKET, "unclosed <socket.socket"),
        (HELD_SOCKET, "sockets left open: AF_INET ('127.0.0.1', "),
        (ENDLESS_THREAD, "threads left open: <Thread(endless"),
    ],
)
def test_a_test_that_leaves_a_socket_or_thread_open_fails(
    tmp_path: Path, leave: str, words: str
) -> None:
    report = run(tmp_path, leave)
    assert words in report
    assert "ERROR test_it.py::test_guilty" in report
    assert "3 passed, 1 error" in report


def test_a_process_left_running_is_reported_with_its_test(tmp_path: Path) -> None:
    report = run(tmp_path, ORPHAN)
    assert "3 passed, 1 error" in report
    assert "sleep 60 (test_it.py::test_guilty (call))" in report


def test_a_proxy_that_closes_while_clients_connect_leaves_nothing_open() -> None:
    """The fixture `nothing_is_left_open` would fail this test."""
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as broker, ThreadPoolExecutor(1) as clients:
            port = broker.getsockname()[1]
            is_over = threading.Event()
            with Proxy(port, port) as proxy:
                clients.submit(keep_connecting, proxy.address, is_over)
                broker.accept()[0].close()
            is_over.set()


def keep_connecting(address: str, is_over: threading.Event) -> None:
    host, _, port = address.rpartition(":")
    while not is_over.wait(0.001):
        with suppress(OSError):
            socket.create_connection((host, int(port))).close()
