"""One broker for all hostile jobs of a test worker: no job may affect it or another job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.running import Place
from tests.stop.broker import BrokerProcess


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hostile")
    with BrokerProcess(folder / "data") as broker:
        yield Place(folder, broker.address)
