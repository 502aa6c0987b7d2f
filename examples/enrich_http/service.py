"""A service that looks up customers over HTTP, and is unreliable on purpose.

    python service.py [PORT]

It listens on port 8400, or on PORT, and responds to:

* ``GET /customers/C042``: the customer, or an error. The table in ``README.md`` and the function
  ``answer`` show which request fails.
* ``POST /heal``: from now on no request fails.
* ``GET /counts``: how many requests there were, and how many of them failed in which way.
"""

import csv
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CUSTOMERS = Path(__file__).with_name("customers.csv")


@dataclass(frozen=True)
class Answer:
    """What the service does with a request: wait, then respond with a status."""

    kind: str
    status: int = 200
    wait_s: float = 0.0


def answer(customer: int, request: int) -> Answer:
    """Return the answer to a request, until the service is healed.

    Args:
        customer: The number of the customer: 42 for C042.
        request: How many requests there were for this customer, including this one.
    """
    if 100 <= customer < 110:
        return Answer("failed", status=500)  # the data of these customers is damaged
    if customer % 10 == 3 and request == 1:
        return Answer("unavailable", status=503)
    if customer % 100 == 7 and request == 1:
        return Answer("late", wait_s=5.0)  # the job waits only 2 seconds
    if customer % 10 == 5:
        return Answer("slow", wait_s=0.3)
    return Answer("ok")


class Service(ThreadingHTTPServer):
    request_queue_size = 128  # the job opens 64 connections at once
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        with CUSTOMERS.open(encoding="utf-8", newline="") as rows:
            self.customers = {row["id"]: row for row in csv.DictReader(rows)}
        self.is_healed = False
        self.requests: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()  # each connection has a thread

    def next_answer(self, customer: str) -> Answer:
        """Count a request, and return its answer."""
        with self.lock:
            self.requests[customer] += 1
            found = answer(int(customer[1:]), self.requests[customer])
            if self.is_healed:
                found = Answer("ok")
            self.counts.update(("requests", found.kind))
        return found


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"  # connections are used again
    wbufsize = -1  # a response is sent at once, not line by line

    def do_GET(self) -> None:
        customer = self.path.removeprefix("/customers/")
        if self.path == "/counts":
            with self.server.lock:
                counts = dict(self.server.counts)
            self.respond(200, counts)
        elif customer in self.server.customers:
            self.look_up(customer)
        else:
            self.respond(404, {"error": f"not found: {self.path}"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/heal":
            self.respond(404, {"error": f"not found: {self.path}"})
            return
        self.server.is_healed = True
        self.respond(200, {"healed": True})

    def look_up(self, customer: str) -> None:
        found = self.server.next_answer(customer)
        time.sleep(found.wait_s)
        if found.status == 200:
            self.respond(200, self.server.customers[customer])
        else:
            self.respond(found.status, {"error": f"{customer}: {found.kind}"})

    def respond(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            pass  # the client did not wait for the response

    def finish(self) -> None:
        try:
            super().finish()
        except ConnectionError:
            pass  # the same, with what was not sent yet

    def log_message(self, format: str, *args: object) -> None:
        """Do not print a line for each request."""


def main(port: int) -> None:
    with Service(port) as service:
        print(f"customers at http://127.0.0.1:{service.server_port}", flush=True)
        try:
            service.serve_forever()
        except KeyboardInterrupt:
            pass  # Ctrl-C ends it


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8400)
