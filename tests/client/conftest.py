"""One broker in a process of its own for all tests, a client and a fresh topic for each."""

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
    """The broker that tests share; nobody may kill it."""
    with BrokerProcess(tmp_path_factory.mktemp("cluster") / "data") as process:
        yield process


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of the test's own, to be killed and started again."""
    with BrokerProcess(tmp_path / "data") as process:
        yield process


@pytest.fixture
async def client(cluster: BrokerProcess) -> AsyncIterator[Client]:
    async with Client.connect(cluster.address) as client:
        yield client


@pytest.fixture
async def new_topic(client: Client) -> NewTopic:
    """Make a topic that no other test knows; options as for `create_topic`."""

    async def make(partitions: int = 1, **options: Any) -> str:
        name = f"topic-{next(_numbers)}"
        await client.admin.create_topic(name, partitions, **options)
        return name

    return make
