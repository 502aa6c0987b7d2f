"""kill -9 of a job: every 200 of a webhook is in the output, and a sink gets every record."""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ports import HeldPort
from tests.stop.running import Job

pytestmark = [
    pytest.mark.kill,
    pytest.mark.skipif(sys.platform != "linux", reason="the port is reserved on Linux only"),
]
KILLS = 3
APP = """
import os
from streamkit import App
from streamkit.connectors.files import JsonLines
from streamkit.connectors.http import HttpSink, Webhook

app = App("killed")
posted = app.stream(Webhook("/in", port=int(os.environ["PORT"]), body="array"), int)
posted.to(JsonLines("out.jsonl"))
posted.to(HttpSink(os.environ["SINK"], idempotency="Idempotency-Key"), name="sink")
"""


class Client(threading.Thread):
    """Posts two new numbers at a time until it is stopped; keeps those with status 200."""

    def __init__(self, port: int, first: int, count: Callable[[], None]) -> None:
        super().__init__()
        self.stored: list[int] = []
        self.is_over = False
        self._port = port
        self._next = first
        self._count = count

    def run(self) -> None:
        while not self.is_over:
            pair = [self._next, self._next + 1]
            self._next += 2
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
                connection.request("POST", "/in", json.dumps(pair))
                if connection.getresponse().status == 200:
                    self.stored += pair
                    self._count()
            except (OSError, http.client.HTTPException):
                pass  # the job is not up: these numbers may be lost
            finally:
                connection.close()


class Service(ThreadingHTTPServer):
    """Gets the posts of the sink, and answers every fifth with 503."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.posts = 0
        super().__init__(("127.0.0.1", 0), _Post)


class _Post(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        service = self.server
        assert isinstance(service, Service)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        service.posts += 1
        status = 503 if service.posts % 5 == 0 else 200
        if status == 200:
            service.got.append(int(body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_every_stored_record_is_in_both_outputs_after_kill_9(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    numbers = random.Random(7)
    answered = threading.Semaphore(0)
    service = Service()
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    with HeldPort() as port:
        clients = [Client(port.number, at * 1_000_000, answered.release) for at in range(3)]
        options = ("--commit-interval", "50ms", "--embedded")
        urls = {"PORT": str(port.number), "SINK": f"http://127.0.0.1:{service.server_port}"}
        try:
            for each in clients:
                each.start()
            for _ in range(KILLS):
                with Job(tmp_path / "app.py", tmp_path, *options, **urls) as job:
                    for _ in range(numbers.randrange(5, 15)):
                        assert answered.acquire(timeout=60), job.errors
                    job.process.kill()
            with Job(tmp_path / "app.py", tmp_path, *options, **urls) as job:
                for _ in range(10):
                    assert answered.acquire(timeout=60), job.errors
                for each in clients:
                    each.is_over = True
                job.process.terminate()
                assert job.process.wait(60) == 0
        finally:
            for each in clients:
                each.is_over = True
                each.join()
            service.shutdown()
            service.server_close()
            thread.join()
    stored = {number for each in clients for number in each.stored}
    assert len(stored) >= 2 * KILLS
    assert stored <= {int(line) for line in (tmp_path / "out.jsonl").read_text().split()}
    assert stored <= set(service.got)
