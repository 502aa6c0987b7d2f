"""One embedded broker with a topic of numbers, for all jobs of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.embedding.running import Place
from tests.stop.broker import BrokerProcess


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("embedding")
    with BrokerProcess(folder / "data") as broker:
        yield Place(folder, broker.address)
