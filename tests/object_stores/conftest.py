"""Stores of objects on this machine: moto as S3 and Google, Azurite as Azure, HTTP servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import NO_AZURITE
from tests.object_stores.buckets import Bucket, azure_container, google_bucket, s3_bucket
from tests.object_stores.http_files import HttpFiles

AZURITE = Path("node_modules/azurite/dist/src/blob/main.js")
_numbers = count(1)


@contextmanager
def server(command: list[str], ready: str, **variables: str) -> Iterator[str]:
    """Run a server; yield the address that it writes after ``ready``."""
    environment = {**os.environ, **variables}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        rest = threading.Thread(target=process.stdout.read)  # it would wait for a full pipe
        try:
            for line in process.stdout:
                if found := re.search(rf"{ready} (http://127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail(f"{command[0]} did not start")
            rest.start()
            yield found[1]
        finally:
            process.kill()
            if rest.ident is not None:
                rest.join()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with server(command, "Running on", PYTHONWARNINGS="ignore") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azure_endpoint() -> Iterator[str]:
    folder = os.environ["STREAMKIT_TEST_AZURITE"]
    command = ["node", str(Path(folder, AZURITE)), "--blobHost", "127.0.0.1", "--blobPort", "0"]
    command += ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    with server(command, "successfully listens on") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def endpoints(s3_endpoint: str, request: pytest.FixtureRequest) -> dict[str, str | None]:
    """The endpoint of each kind of store; None if its server is not installed."""
    has_azurite = bool(os.environ.get("STREAMKIT_TEST_AZURITE"))
    azure = request.getfixturevalue("azure_endpoint") if has_azurite else None
    return {"s3": s3_endpoint, "gs": s3_endpoint, "az": azure}


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    return s3_bucket(s3_endpoint, f"bucket{next(_numbers)}")


@pytest.fixture(params=["s3", "gs", "az"])
def any_bucket(request: pytest.FixtureRequest, endpoints: dict[str, str | None]) -> Bucket:
    """A bucket of each kind of store."""
    endpoint = endpoints[request.param]
    if endpoint is None:
        pytest.skip(NO_AZURITE)
    create = {"s3": s3_bucket, "gs": google_bucket, "az": azure_container}[request.param]
    return create(endpoint, f"bucket{next(_numbers)}")


@pytest.fixture
def http_files() -> Iterator[HttpFiles]:
    with HttpFiles() as server:
        yield server
