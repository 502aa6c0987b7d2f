"""Fixtures of the tests of Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest

from streamkit.connectors import ConnectorEnv
from streamkit.env import SystemClock

pytest.importorskip("confluent_kafka", reason="needs an optional package: confluent-kafka")

from tests.kafka.cluster import Cluster
from tests.kafka.server import KafkaServer, jars

NO_KAFKA: Final = "needs Apache Kafka: scripts/test fetches it where java and mvn are installed"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """A real broker that all tests share; a test that stops it must start it again."""
    if jars() is None:
        pytest.skip(NO_KAFKA)
    with KafkaServer() as server:
        yield server


class Notes(list[str]):
    """The messages to the user."""

    def __init__(self) -> None:
        super().__init__()
        self._has_more = anyio.Event()

    def append(self, text: str, /) -> None:
        super().append(text)
        self._has_more.set()

    async def wait_for(self, words: str) -> None:
        """Wait for a message with some words."""
        with anyio.fail_after(60):
            while not any(words in each for each in self):
                self._has_more = anyio.Event()
                await self._has_more.wait()


def env_of(folder: Path, notes: list[str], *, until_end: bool = True) -> ConnectorEnv:
    return ConnectorEnv("kafka", "test", folder, SystemClock(), until_end, notes.append)
