"""Stores of objects on this machine: moto as S3, and HTTP servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count

import obstore
import pytest
from obstore.store import S3Store

from streamkit import Secret
from tests.object_stores.http_files import HttpFiles

_numbers = count(1)


class Bucket:
    """A bucket of a server that speaks S3."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        self.store: dict[str, object] = {
            "endpoint": endpoint,
            "region": "us-east-1",
            "access_key_id": "tester",
            "secret_access_key": Secret("not-to-be-shown"),
        }
        config = {**self.store, "secret_access_key": "not-to-be-shown"}
        options = {"allow_http": True}
        self.objects = S3Store(name, config=config, client_options=options)  # type: ignore[arg-type]

    def url(self, path: str) -> str:
        return f"s3://{self.name}/{path}"

    def put(self, path: str, data: bytes) -> None:
        obstore.put(self.objects, path, data)

    def delete(self, path: str) -> None:
        obstore.delete(self.objects, path)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        rest = threading.Thread(target=process.stdout.read)  # it would wait for a full pipe
        try:
            for line in process.stdout:
                if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail("moto did not start")
            rest.start()
            yield found[1]
        finally:
            process.kill()
            if rest.ident is not None:
                rest.join()


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    import urllib.request

    name = f"bucket-{next(_numbers)}"
    request = urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=x/20240101/us-east-1/s3/")
    urllib.request.urlopen(request).close()
    return Bucket(s3_endpoint, name)


@pytest.fixture
def http_files() -> Iterator[HttpFiles]:
    with HttpFiles() as server:
        yield server
