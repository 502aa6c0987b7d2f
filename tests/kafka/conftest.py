"""Fixtures of the tests of Kafka."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from streamkit.connectors import Chunk, ConnectorEnv
from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.connectors.kafka.writer import KafkaWriter
from streamkit.env import SystemClock

pytest.importorskip("confluent_kafka", reason="needs an optional package: confluent-kafka")

from tests.kafka.cluster import Cluster
from tests.kafka.server import KafkaServer, jars

NO_KAFKA: Final = "needs Apache Kafka: scripts/test fetches it with Java 17 and Maven"


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


PATIENCE_S: Final = 60.0
# The client waits for a broker that is away; it looks again after at most 10 s.
QUICK: Final = {"reconnect.backoff.max.ms": 200}


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
        with anyio.move_on_after(PATIENCE_S):
            while not any(words in each for each in self):
                self._has_more = anyio.Event()
                await self._has_more.wait()
        assert any(words in each for each in self), f"{words!r} is in none of {list(self)}"


def env_of(folder: Path, notes: list[str], *, until_end: bool = True) -> ConnectorEnv:
    return ConnectorEnv("kafka", "test", folder, SystemClock(), until_end, notes.append)


class ShiftedClock(SystemClock):
    """The clock of the machine, moved forward."""

    shift_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.shift_s


async def during(
    call: Callable[[], Awaitable[object]], event: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Make something happen while a call waits, and wait for the end of the call."""
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(event)
            await call()


async def read_rows(
    source: KafkaSource,
    folder: Path,
    committed: dict[str, str],
    *,
    env: ConnectorEnv | None = None,
) -> list[tuple[Chunk, int]]:
    """Read to the end and return every row with its chunk."""
    reader = source.reader(env or env_of(folder, []))
    rows: list[tuple[Chunk, int]] = []
    try:
        with anyio.fail_after(60):
            await reader.open(committed)
            while (chunk := await reader.next()) is not None:
                rows += [(chunk, row) for row in range(len(chunk))]
    finally:
        await reader.close()
    return rows


def rows(values: list[Any]) -> Chunk:
    count = len(values)
    return Chunk(values, [None] * count, [-1] * count, range(count))


async def write(writer: KafkaWriter, values: list[Any], slice_size: int = 100) -> None:
    """Write values and commit them."""
    with anyio.fail_after(PATIENCE_S):
        for start in range(0, len(values), slice_size):
            await writer.write(rows(values[start : start + slice_size]))
        await writer.prepare_commit(is_last=True).wait()


async def opened_writer(folder: Path, servers: str, topic: str, **config: Any) -> KafkaWriter:
    writer = KafkaSink(servers, topic, config={**QUICK, **config}).writer(env_of(folder, []))
    await writer.open({})
    return writer
