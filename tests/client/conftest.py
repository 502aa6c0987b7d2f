"""One broker process for all tests, and a client and a new topic for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streamkit import Client
from tests.broker_process import BrokerProcess

NewTopic = Callable[..., Awaitable[str]]
_numbers = count()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """The broker that tests share; a test must not kill it."""
    with BrokerProcess(tmp_path_factory.mktemp("cluster") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def dedicated_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker with only the topics of the running test, so the bytes are the same each time."""
    with BrokerProcess(tmp_path_factory.mktemp("dedicated") / "data") as process:
        yield process


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker for one test, which may be killed and restarted."""
    with BrokerProcess(tmp_path / "data") as process:
        yield process


@pytest.fixture
async def client(cluster: BrokerProcess) -> AsyncIterator[Client]:
    async with Client.connect(cluster.address) as client:
        yield client


@pytest.fixture
async def new_topic(client: Client) -> NewTopic:
    """Create a topic that no other test uses; for the options see `create_topic`."""

    async def make(partitions: int = 1, **options: Any) -> str:
        name = f"topic-{next(_numbers)}"
        await client.admin.create_topic(name, partitions, **options)
        return name

    return make
