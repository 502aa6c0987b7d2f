"""kill -9 of the broker while many records are in flight loses no acknowledged record."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args

import anyio
import pytest

from streamkit import Client
from streamkit.client import Consumer, Producer, RecordHandle
from streamkit.errors import TransportError
from streamkit.record import Compression
from tests.broker_process import BrokerProcess
from tests.checker import Ledger, Row, check
from tests.read_raw import official_python, read_by_official_client, read_by_our_client

pytestmark = pytest.mark.kill

# One topic per codec, and one with a short delivery timeout, so that some results are unknown.
CODECS: Final = get_args(Compression)
SHORT_TIMEOUT: Final = "short-timeout"
TIMEOUT_S: Final = 0.2
PARTITIONS: Final = 2
IN_FLIGHT_MAX: Final = 400
PAYLOAD_BYTES_MAX: Final = 300
SEED: Final = 20_260_727


@dataclass(slots=True)
class Load:
    """Producers that write as fast as they get acknowledgements, and their results."""

    numbers: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    acknowledged: int = 0
    in_flight: int = 0
    retries: int = 0
    is_over: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def until_acknowledged(self, more: int) -> None:
        """Wait for this many more acknowledgements."""
        goal = self.acknowledged + more
        while self.acknowledged < goal:
            self.changed = anyio.Event()
            await self.changed.wait()

    def note_retry(self, error: Exception, attempt: int) -> None:
        self.retries += 1

    async def write(self, producer: Producer, partition: int) -> None:
        """Send to one partition until the test ends; record every result in order."""
        lane = (producer.topic, partition)
        out: deque[tuple[int, RecordHandle]] = deque()
        sequence = 0
        while out or not self.is_over:
            while len(out) < IN_FLIGHT_MAX and not self.is_over:
                payload = self.numbers.randbytes(self.numbers.randrange(PAYLOAD_BYTES_MAX))
                value = self.ledger.send(lane, sequence, payload)
                out.append((sequence, await producer.send(value, partition=partition)))
                sequence += 1
                self.in_flight += 1
            for _ in range(len(out) // 2 or len(out)):
                await self._settle(lane, *out.popleft())

    async def _settle(self, lane: tuple[str, int], sequence: int, handle: RecordHandle) -> None:
        try:
            self.ledger.ok(lane, sequence, (await handle).offset)
            self.acknowledged += 1
        except TransportError as error:
            assert lane[0] == SHORT_TIMEOUT, "the other producers have no timeout"
            if not error.sent:
                self.ledger.failed(lane, sequence)
        self.in_flight -= 1
        self.changed.set()


@dataclass(slots=True)
class Readers:
    """Consumers that read at the same time: a record that was read must never change."""

    rows: list[Row] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def read(self, consumer: Consumer) -> None:
        while (chunk := await consumer.next_chunk()) is not None:
            lane = (consumer.topic, chunk.partition)
            assert chunk.offsets[0] == self.ends.get(lane, 0), "a reader lost or repeated records"
            self.ends[lane] = chunk.offsets[-1] + 1
            self.rows += [
                (*lane, offset, value)
                for offset, value in zip(chunk.offsets, chunk.values, strict=True)
            ]
            self.changed.set()

    async def until(self, ends: dict[tuple[str, int], int]) -> None:
        """Wait until all records before these offsets are read."""
        while any(self.ends.get(lane, 0) < end for lane, end in ends.items()):
            self.changed = anyio.Event()
            await self.changed.wait()


def test_no_acknowledged_record_is_lost_when_the_broker_is_killed(
    broker: BrokerProcess, tmp_path: Path, is_deep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    cycles = 100 if is_deep else 10
    seed = random.SystemRandom().getrandbits(32) if is_deep else SEED
    load, readers = anyio.run(play, broker, cycles, seed)
    reader, rows = read_back(broker, [*CODECS, SHORT_TIMEOUT], tmp_path)
    verdict = check(load.ledger, [*rows, *readers.rows], may_repeat=True)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{cycles} kills, seed {seed}, {load.retries} retries, "
            f"{len(readers.rows)} rows read meanwhile, the rest by {reader}: {verdict}"
        )
    assert not verdict.problems, verdict
    assert load.retries >= cycles, "some kills interrupted no request"
    assert verdict.counts["acknowledged"] > cycles * 1_000
    assert verdict.counts["unknown"], "no result was unknown"


async def play(broker: BrokerProcess, cycles: int, seed: int) -> tuple[Load, Readers]:
    """Write and read while the broker is killed this many times, without notice to the client."""
    numbers = random.Random(seed)
    load, readers = Load(numbers), Readers()
    async with Client.connect(broker.address) as client:
        consumers = []
        for topic in (*CODECS, SHORT_TIMEOUT):
            await client.admin.create_topic(topic, PARTITIONS)
            consumers.append(client.consumer(topic))
            await consumers[-1].open()
        async with anyio.create_task_group() as tasks:
            for consumer in consumers:
                tasks.start_soon(readers.read, consumer)
            producers_without_timeout = list(producers(client, load.note_retry))
            with_timeout = producers_without_timeout.pop()
            async with anyio.create_task_group() as writers:
                for producer in (*producers_without_timeout, with_timeout):
                    for partition in range(PARTITIONS):
                        writers.start_soon(load.write, producer, partition)
                for cycle in range(cycles):
                    await load.until_acknowledged(numbers.randrange(1_000, 6_000))
                    assert load.in_flight, "nothing was in flight"
                    if not cycle:
                        await leave_requests_unanswered(broker)
                    await anyio.to_thread.run_sync(broker.restart)
                await load.until_acknowledged(1_000)
                load.is_over = True
            with contextlib.suppress(TransportError):  # its handles have reported it
                await with_timeout.flush()
            await readers.until(ends_of(load.ledger))
            tasks.cancel_scope.cancel()
    return load, readers


async def leave_requests_unanswered(broker: BrokerProcess) -> None:
    """Pause the broker beyond the delivery timeout, so that some results become unknown."""
    broker.pause()
    await anyio.sleep(2 * TIMEOUT_S)


def ends_of(ledger: Ledger) -> dict[tuple[str, int], int]:
    """Return the offset after the last acknowledged record of each lane."""
    return {lane: max(known.ok.values()) + 1 for lane, known in ledger.lanes.items()}


def producers(client: Client, on_retry: Callable[[Exception, int], None]) -> Iterator[Producer]:
    for codec in CODECS:
        yield client.producer(
            codec,
            compression=codec,
            batch_size=4_096,
            linger=0.002,
            delivery_timeout=None,
            on_retry=on_retry,
        )
    yield client.producer(SHORT_TIMEOUT, batch_size=1_024, linger=0, delivery_timeout=TIMEOUT_S)


def read_back(broker: BrokerProcess, topics: list[str], folder: Path) -> tuple[str, Iterator[Row]]:
    """Kill and restart the broker once more, then read every partition from the start."""
    broker.restart()
    partitions = [(topic, number) for topic in topics for number in range(PARTITIONS)]
    if python := official_python():
        rows = read_by_official_client(python, broker.address, partitions, folder)
        return "the official client", rows
    return "our client", read_by_our_client(broker.address, topics)
