"""Fixtures of the tests of Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit.connectors import ConnectorEnv
from streamkit.env import SystemClock

pytest.importorskip("confluent_kafka", reason="needs an optional package: confluent-kafka")

from tests.kafka.cluster import Cluster


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


def env_of(folder: Path, notes: list[str], *, until_end: bool = True) -> ConnectorEnv:
    return ConnectorEnv("kafka", "test", folder, SystemClock(), until_end, notes.append)
