"""An HTTP proxy for a store of objects, which injects the faults that a test chooses."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal

# A status; or the connection ends before the store gets the request, or after it has acted.
Fault = int | Literal["lost request", "lost answer", "cut answer"]

_OWN_HEADERS: Final = ("connection", "transfer-encoding", "content-length", "host")


class FaultProxy:
    """Passes requests on to a store.

    ``faults`` are used up, in order, by requests of their method; those for lists of objects are
    ``LIST``. ``requests`` are all of them so far.

    Args:
        endpoint: The URL of the store.
    """

    def __init__(self, endpoint: str) -> None:
        self.store = endpoint.removeprefix("http://")
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[str] = []
        self.lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *given: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *given: Any) -> None:
        pass  # tests show nothing

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with self.owner.lock:
            kind = "LIST" if "list-type=" in self.path else self.command
            self.owner.requests.append(kind)
            faults = self.owner.faults.get(kind)
            fault = faults.pop(0) if faults else None
        if isinstance(fault, int):
            self._answer(fault, [("Retry-After", "0")], b"")
            return
        if fault == "lost request":
            self._end()
            return
        status, headers, data = self._asked(body)
        if fault == "lost answer":
            self._end()
            return
        self._answer(status, headers, data, half=fault == "cut answer")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        store = http.client.HTTPConnection(self.owner.store, timeout=60)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in _OWN_HEADERS}
        try:
            store.request(self.command, self.path, body, headers)
            response = store.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            store.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, *, half: bool = False
    ) -> None:
        size = len(data)
        self.send_response(status)
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                size = int(value)
            if name.lower() not in (*_OWN_HEADERS, "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if half:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._end()
        else:
            self.wfile.write(data)

    def _end(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)
