"""A schema registry with real sockets, and faults on purpose.

It has the part of Confluent's HTTP API that clients of records use. A subject is compatible with a
new schema if every field that the new one adds to an Avro record has a default.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

# The response to the next request: a status, or one of the others.
Fault = int | Literal["hang", "drip", "close", "html", "garbage", "empty"]
Answer = tuple[int, Any]
USER: Final = "reader"
PASSWORD: Final = "correct horse"


@dataclass(slots=True)
class State:
    """What the registry stores. ``requests`` counts them by method and path."""

    schemas: list[dict[str, Any]] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    bodies: list[Any] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    needs_login: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Registry:
    """A running registry."""

    def __init__(self) -> None:
        self.state = State()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.state))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.state.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail_next(self, *faults: Fault) -> None:
        """Respond to the next requests with faults, one for each."""
        with self.state.lock:
            self.state.faults += faults

    def add(self, subject: str, schema: Any, **more: Any) -> int:
        """Store a schema, as another client would; return its id."""
        text = schema if "schemaType" in more else json.dumps(schema)
        status, answer = _register(self.state, subject, {"schema": text, **more})
        assert status == 200, answer
        return int(answer["id"])

    def requests(self, path: str = "") -> int:
        """Return how many requests have had a text in their method and path."""
        with self.state.lock:
            return sum(n for each, n in self.state.requests.items() if path in each)


@contextmanager
def running_registry() -> Iterator[Registry]:
    registry = Registry()
    registry.open()
    try:
        yield registry
    finally:
        registry.close()


@contextmanager
def closed_port() -> Iterator[str]:
    """Give the url of a port at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def _handler(state: State) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or "null")
            with state.lock:
                state.requests[f"{self.command} {unquote(self.path)}"] += 1
                state.bodies.append(body)
                fault = state.faults.pop(0) if state.faults else None
            if fault is not None:
                return self._fail(fault)
            if state.needs_login and not self._is_logged_in():
                return self._send(401, {"error_code": 401, "message": "Unauthorized"})
            with state.lock:
                status, answer = _result(state, self.command, self.path, body)
            self._send(status, answer)

        def _fail(self, fault: Fault) -> None:
            self.close_connection = True
            if fault == "hang":
                state.released.wait()
            elif fault == "drip":
                self._drip()
            elif fault == "html":
                self._write(404, b"<html>no such page</html>")
            elif fault == "garbage":
                self._write(200, b"\xff{")
            elif fault == "empty":
                self._write(200, b"{}")
            elif isinstance(fault, int):
                self._send(fault, {"error_code": fault * 100 + 1, "message": "a fault on purpose"})

        def _drip(self) -> None:
            """Send a response so slowly that no single packet is late."""
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not state.released.wait(0.05):
                try:
                    self.wfile.write(b"X-Slow: 1\r\n")
                except OSError:
                    return

        def _is_logged_in(self) -> bool:
            expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            return self.headers.get("Authorization") == f"Basic {expected}"

        def _send(self, status: int, answer: Any) -> None:
            self._write(status, json.dumps(answer).encode())

        def _write(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _result(state: State, method: str, path: str, body: Any) -> Answer:
    match method, [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]:
        case "GET", ["schemas", "ids", text]:
            number = int(text)
            if not 1 <= number <= len(state.schemas):
                return 404, {"error_code": 40403, "message": f"Schema {number} not found"}
            return 200, state.schemas[number - 1]
        case "POST", ["subjects", subject, "versions"]:
            return _register(state, subject, body)
        case "POST", ["subjects", subject]:
            return _found(state, subject, body)
        case "GET", ["subjects", subject, "versions", version]:
            return _version(state, subject, version)
    return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


def _register(state: State, subject: str, body: Any) -> Answer:
    if body.get("schemaType", "AVRO") == "AVRO":
        try:
            schema = json.loads(body["schema"])
        except ValueError:
            return 422, {"error_code": 42201, "message": "Invalid Avro schema"}
        for each in state.subjects.get(subject, ()):
            added = _fields(schema) - _fields(json.loads(state.schemas[each - 1]["schema"]))
            if any(has_no_default for _, has_no_default in added):
                return 409, {
                    "error_code": 409,
                    "message": f"Schema being registered is incompatible: {sorted(added)}",
                }
    number = _number(state, body)
    versions = state.subjects.setdefault(subject, [])
    if number not in versions:
        versions.append(number)
    return 200, {"id": number}


def _fields(schema: Any) -> set[tuple[str, bool]]:
    fields = schema.get("fields", ()) if isinstance(schema, dict) else ()
    return {(each["name"], "default" not in each) for each in fields}


def _number(state: State, body: Any) -> int:
    """Return the id of a schema, which is the same in every subject."""
    for number, each in enumerate(state.schemas, 1):
        if _objects(each) == _objects(body):
            return number
    state.schemas.append(body)
    return len(state.schemas)


def _objects(body: Any) -> Any:
    """Return a schema in a form that does not depend on white space."""
    is_avro = body.get("schemaType", "AVRO") == "AVRO"
    return body | {"schema": json.loads(body["schema"])} if is_avro else body


def _found(state: State, subject: str, body: Any) -> Answer:
    versions = state.subjects.get(subject)
    if versions is None:
        return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
    for version, number in enumerate(versions, 1):
        if _objects(state.schemas[number - 1]) == _objects(body):
            return 200, {"subject": subject, "id": number, "version": version, **body}
    return 404, {"error_code": 40403, "message": "Schema not found"}


def _version(state: State, subject: str, version: str) -> Answer:
    versions = state.subjects.get(subject)
    if versions is None:
        return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
    place = len(versions) if version == "latest" else int(version)
    if not 1 <= place <= len(versions):
        return 404, {"error_code": 40402, "message": f"Version {version} not found."}
    number = versions[place - 1]
    answer = {"subject": subject, "id": number, "version": place}
    return 200, answer | state.schemas[number - 1]
