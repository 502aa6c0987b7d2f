"""A broker shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.processes import Ended, broker, run

Run = Callable[..., Ended]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # commands run in processes, with their own event loop


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that the commands use as a cluster."""
    with broker(tmp_path_factory.mktemp("cluster")) as address:
        yield address


@pytest.fixture
def on_cluster(cluster: str, tmp_path: Path) -> Run:
    """Run a command with that broker as its cluster, in a separate folder."""

    def run_there(*arguments: str, given: bytes = b"") -> Ended:
        return run(tmp_path, "--cluster", cluster, *arguments, given=given)

    return run_there
