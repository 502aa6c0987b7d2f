"""Whole jobs with `HttpSink`: what `on_error` does with the records that a service refuses."""

from __future__ import annotations

import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.stop.running import Job, run_to_end

REFUSED = {3, 8}
ROWS = range(1, 11)
APP = """
import os
from streamkit import App
from streamkit.connectors.files import Files, JsonLines, Jsonl
from streamkit.connectors.http import HttpSink
from streamkit.policies import dead_letter, retry

app = App("sends")
rows = app.stream(Files("rows.jsonl", Jsonl(int)))
dead = dead_letter(JsonLines("dead.jsonl"))
policies = {
    "fail": "fail",
    "skip": "skip",
    "dead letter": dead,
    "retry, then dead letter": retry(3, delay=0.01).then(dead),
}
batch = int(os.environ["BATCH"]) or None
rows.to(HttpSink(os.environ["URL"], batch=batch), on_error=policies[os.environ["POLICY"]])
"""


class Service(ThreadingHTTPServer):
    """Refuses some numbers with 400, and has 503 for the first request with number 5.

    From the number ``locked_from`` on, it responds with 401.
    """

    locked_from = 1_000

    def __init__(self) -> None:
        self.got: list[int] = []
        self.asked: Counter[int] = Counter()
        super().__init__(("127.0.0.1", 0), _Post)


class _Post(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        service = self.server
        assert isinstance(service, Service)
        found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        rows = found if isinstance(found, list) else [found]
        service.asked.update(rows)
        status = 200
        if max(rows) >= service.locked_from:
            status = 401
        elif service.asked[5] == 1 and 5 in rows:
            status = 503
        elif REFUSED & set(rows):
            status = 400
        else:
            service.got += rows
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def service(tls: ssl.SSLContext | None = None) -> Iterator[Service]:
    server = Service()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(folder: Path, server: Service, policy: str, batch: int, scheme: str = "http") -> Job:
    (folder / "app.py").write_text(APP)
    (folder / "rows.jsonl").write_text("".join(f"{row}\n" for row in ROWS))
    url = f"{scheme}://127.0.0.1:{server.server_port}"
    variables = {"URL": url, "POLICY": policy, "BATCH": str(batch)}
    return run_to_end(folder / "app.py", folder, "--once", "--embedded", **variables)


def letters(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dead.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch", [0, 4])
@pytest.mark.parametrize("policy", ["skip", "dead letter", "retry, then dead letter"])
def test_only_refused_records_are_left_out(policy: str, batch: int, tmp_path: Path) -> None:
    with service() as server:
        job = run(tmp_path, server, policy, batch)
    assert job.process.returncode == 0, job.words
    assert sorted(server.got) == [row for row in ROWS if row not in REFUSED]
    assert server.asked[3] == (2 if batch else 1), "only a fault is retried"
    assert server.asked[5] >= 2
    if policy == "skip":
        assert job.ended["skipped"] == len(REFUSED), job.words
    else:
        assert len(letters(tmp_path)) == len(REFUSED)
        assert all("returned status 400" in json.dumps(each) for each in letters(tmp_path))


def test_a_refused_record_ends_the_job_and_the_next_run_starts_there(tmp_path: Path) -> None:
    with service() as server:
        job = run(tmp_path, server, "fail", 0)
        assert job.process.returncode == 1
        assert "returned status 400" in job.words
        assert server.got == [1, 2]
        again = run(tmp_path, server, "skip", 0)
    assert again.process.returncode == 0, again.words
    assert server.got == [row for row in ROWS if row not in REFUSED]


def test_no_record_is_skipped_because_a_login_is_refused(tmp_path: Path) -> None:
    with service() as server:
        server.locked_from = 7
        job = run(tmp_path, server, "skip", 0)
        assert job.process.returncode not in (0, None)
        assert "returned status 401" in job.words
        assert max(server.got) == 6
        server.locked_from = 1_000
        again = run(tmp_path, server, "skip", 0)
    assert again.process.returncode == 0, again.words
    assert sorted(set(server.got)) == [row for row in ROWS if row not in REFUSED]


def test_no_record_is_skipped_because_the_server_is_not_trusted(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with service(context) as server:
        job = run(tmp_path, server, "skip", 0, "https")
    assert job.process.returncode not in (0, None)
    assert "its certificate is not trusted" in job.words
    assert job.ended["skipped"] == 0
    assert server.got == []
