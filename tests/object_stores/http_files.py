"""An HTTP server with files, which supports parts of files and fails as a test says."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HttpFiles:
    """Serves files from memory on 127.0.0.1.

    ``faults`` are used up by GET requests in order: a status, or ``"cut"`` for an answer whose
    connection ends in the middle. ``requests`` are the methods and parts that were asked for, and
    ``headers`` all their headers. A path in ``signed`` has a query, which is valid only for GET.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.has_parts = True
        self.faults: list[int | str] = []
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.signed: dict[str, str] = {}
        files = self

        class Handler(_Handler):
            owner = files

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> HttpFiles:
        self._thread.start()
        return self

    def __exit__(self, *given: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path}"


class _Handler(BaseHTTPRequestHandler):
    owner: HttpFiles
    protocol_version = "HTTP/1.1"

    def log_message(self, *given: Any) -> None:
        pass  # tests show nothing

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        owner = self.owner
        wanted = self.headers.get("Range", "")
        owner.requests.append((self.command, wanted))
        owner.headers.append({name.lower(): value for name, value in self.headers.items()})
        fault = owner.faults.pop(0) if has_body and owner.faults else None
        path, _, query = self.path.lstrip("/").partition("?")
        data = owner.files.get(path)
        if owner.signed.get(path, query) != query or (query and not has_body):
            return self._head(403, 0)
        if isinstance(fault, int):
            return self._head(fault, 0)
        if data is None:
            return self._head(404, 0)
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if self.headers.get("If-Match", tag) != tag:
            return self._head(412, 0)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) if owner.has_parts else None
        status, headers = 200, {"ETag": tag, "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        if found and int(found[1]) >= len(data):
            return self._head(416, 0)
        if found:
            start, end = int(found[1]), min(int(found[2]), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            status, data = 206, data[start : end + 1]
        if owner.has_parts:
            headers["Accept-Ranges"] = "bytes"
        self._head(status, len(data), headers)
        if has_body and fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        elif has_body:
            try:
                self.wfile.write(data)
            except ConnectionError:
                pass  # the client did not want the whole file

    def _head(self, status: int, size: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.send_header("Connection", "close")
        self.end_headers()
