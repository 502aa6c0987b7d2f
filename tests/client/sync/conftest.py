"""The client without an event loop instead of the async one, and a topic for each test."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from streamkit import sync
from tests.broker_process import BrokerProcess


@pytest.fixture
def client(cluster: BrokerProcess) -> Iterator[sync.Client]:
    with sync.Client.connect(cluster.address) as client:
        yield client


@pytest.fixture
def topic(client: sync.Client, request: pytest.FixtureRequest) -> str:
    """A topic that no other test uses."""
    name = f"sync-{zlib.crc32(request.node.nodeid.encode()):08x}"
    client.admin.create_topic(name)
    return name
