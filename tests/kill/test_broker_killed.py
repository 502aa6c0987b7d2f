"""kill -9 of the broker while many records are in flight: nothing acknowledged is lost."""

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

# One topic per codec; the last one gives up at once, so that outcomes stay unknown.
CODECS: Final = get_args(Compression)
IMPATIENT: Final = "impatient"
PATIENCE_S: Final = 0.2
PARTITIONS: Final = 2
IN_FLIGHT_MAX: Final = 400
PAYLOAD_BYTES_MAX: Final = 300
SEED: Final = 20_260_727


@dataclass(slots=True)
class Load:
    """Producers that write as fast as they are acknowledged, and what they were told."""

    numbers: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    acknowledged: int = 0
    in_flight: int = 0
    retries: int = 0
    is_over: bool = False
    moved: anyio.Event = field(default_factory=anyio.Event)

    async def until_acknowledged(self, more: int) -> None:
        """Wait for so many acknowledgements more."""
        wanted = self.acknowledged + more
        while self.acknowledged < wanted:
            self.moved = anyio.Event()
            await self.moved.wait()

    def note_retry(self, error: Exception, attempt: int) -> None:
        self.retries += 1

    async def write(self, producer: Producer, partition: int) -> None:
        """Send on one partition until it is over; note every outcome in order."""
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
            assert lane[0] == IMPATIENT, "the others never give up"
            if not error.sent:
                self.ledger.failed(lane, sequence)
        self.in_flight -= 1
        self.moved.set()


@dataclass(slots=True)
class Reading:
    """Consumers that read along: what was served once must never change."""

    rows: list[Row] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    moved: anyio.Event = field(default_factory=anyio.Event)

    async def read(self, consumer: Consumer) -> None:
        while (chunk := await consumer.next_chunk()) is not None:
            lane = (consumer.topic, chunk.partition)
            assert chunk.offsets[0] == self.ends.get(lane, 0), "a reader lost or repeated records"
            self.ends[lane] = chunk.offsets[-1] + 1
            self.rows += [
                (*lane, offset, value)
                for offset, value in zip(chunk.offsets, chunk.values, strict=True)
            ]
            self.moved.set()

    async def until(self, ends: dict[tuple[str, int], int]) -> None:
        """Wait until everything below these offsets was read."""
        while any(self.ends.get(lane, 0) < end for lane, end in ends.items()):
            self.moved = anyio.Event()
            await self.moved.wait()


def test_a_killed_broker_has_every_acknowledged_record(
    broker: BrokerProcess, tmp_path: Path, is_deep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    cycles = 100 if is_deep else 10
    seed = random.SystemRandom().getrandbits(32) if is_deep else SEED
    load, reading = anyio.run(play, broker, cycles, seed)
    reader, rows = read_back(broker, [*CODECS, IMPATIENT], tmp_path)
    verdict = check(load.ledger, [*rows, *reading.rows], may_repeat=True)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{cycles} kills, seed {seed}, {load.retries} retries, "
            f"{len(reading.rows)} rows read along, the rest by {reader}: {verdict}"
        )
    assert not verdict.problems, verdict
    assert load.retries >= cycles, "some kills met nobody at work"
    assert verdict.counts["acknowledged"] > cycles * 1_000
    assert verdict.counts["unknown"], "no outcome was ever unknown"


async def play(broker: BrokerProcess, cycles: int, seed: int) -> tuple[Load, Reading]:
    """Write and read through so many kills; the client is not told of any."""
    numbers = random.Random(seed)
    load, reading = Load(numbers), Reading()
    async with Client.connect(broker.address) as client:
        consumers = []
        for topic in (*CODECS, IMPATIENT):
            await client.admin.create_topic(topic, PARTITIONS)
            consumers.append(client.consumer(topic))
            await consumers[-1].open()
        async with anyio.create_task_group() as tasks:
            for consumer in consumers:
                tasks.start_soon(reading.read, consumer)
            patient = list(producers(client, load.note_retry))
            impatient = patient.pop()
            async with anyio.create_task_group() as writers:
                for producer in (*patient, impatient):
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
            with contextlib.suppress(TransportError):  # which its handles have told one by one
                await impatient.flush()
            await reading.until(ends_of(load.ledger))
            tasks.cancel_scope.cancel()
    return load, reading


async def leave_requests_unanswered(broker: BrokerProcess) -> None:
    """Let requests become older than who is impatient waits, so that a kill leaves them unknown."""
    broker.pause()
    await anyio.sleep(2 * PATIENCE_S)


def ends_of(ledger: Ledger) -> dict[tuple[str, int], int]:
    """Return the offset behind the last one acknowledged on each lane."""
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
    yield client.producer(IMPATIENT, batch_size=1_024, linger=0, delivery_timeout=PATIENCE_S)


def read_back(broker: BrokerProcess, topics: list[str], folder: Path) -> tuple[str, Iterator[Row]]:
    """Kill and start it once more, then read every partition from its beginning."""
    broker.restart()
    partitions = [(topic, number) for topic in topics for number in range(PARTITIONS)]
    if python := official_python():
        rows = read_by_official_client(python, broker.address, partitions, folder)
        return "the official client", rows
    return "our client", read_by_our_client(broker.address, topics)
