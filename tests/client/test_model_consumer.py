"""The consumer against a server with random faults, compared with a simple model.

A plan has the steps of the application and a fault for each response. With any plan, between two
seeks every record arrives once and in order, and a commit stores the offsets that were processed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Client
from streamkit.client.consume.consumer import Consumer
from streamkit.protocol.compression import Codec
from streamkit.record import Chunk, Record
from tests.broker.running import batch_of
from tests.client.scripted import Read, Scripted
from tests.client.test_cuts import NoPauses

SOON_S: Final = 60.0
PARTITIONS: Final = 2
CODECS: Final = (Codec.NONE, Codec.GZIP, Codec.ZSTD)
Mode = Literal["chunks", "records"]

READS: st.SearchStrategy[Read] = st.one_of(
    st.just(Read()),
    st.builds(Read, st.just("cut"), st.integers(0, 2_000)),
    st.just(Read("lost")),
    st.just(Read("empty")),
    st.just(Read("twice")),
    st.builds(Read, st.just("flipped"), st.integers(0, 2_000)),
    st.builds(Read, st.just("refused"), code=st.sampled_from([6, 3_001])),
)
Step = tuple[str, int, int]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("pull"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("pull"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("append"), st.integers(0, 9), st.integers(1, 5)),
    st.tuples(st.just("seek"), st.integers(0, 9), st.integers(0, 99)),
    st.tuples(st.just("commit"), st.just(0), st.just(0)),
    st.tuples(st.just("retain"), st.integers(0, 9), st.integers(0, 99)),
    st.tuples(st.just("grow"), st.integers(1, 3), st.just(0)),
    st.tuples(st.just("lose the SC"), st.just(0), st.just(0)),
    st.tuples(st.just("lag"), st.just(0), st.just(0)),
    st.tuples(st.just("yield"), st.integers(1, 9), st.just(0)),
)


@dataclass
class Run:
    """One consumer, and a model that counts what it must do."""

    server: Scripted
    mode: Mode
    number: int = 0
    expected: dict[int, int] = field(default_factory=dict)
    in_hand: dict[int, int] = field(default_factory=dict)
    processed: dict[int, int] = field(default_factory=dict)
    starts: dict[int, set[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    async def play(self, steps: list[Step]) -> None:
        for partition in range(PARTITIONS):
            for count in (3, 1, 4):
                self._append(partition, count)
        async with (
            Client(self.server.address, clock=NoPauses()) as client,
            client.consumer(
                "t",
                max_bytes=300,
                prefetch_bytes=500,
                consumer_id="me",
                offset_strategy="manual",
                on_evicted="earliest",
                on_retry=lambda error, attempt: None,
            ) as consumer,
        ):
            pulled = consumer.chunks() if self.mode == "chunks" else aiter(consumer)
            with anyio.fail_after(SOON_S):
                for step in steps:
                    await self._step(consumer, pulled, step)
                while self._has_more():
                    await self._pull(pulled)
                await consumer.commit()
            self._check_commit()
            self._check_metrics(consumer)

    async def _step(self, consumer: Consumer, pulled: AsyncIterator[Any], step: Step) -> None:
        name, first, second = step
        partition = first % len(self.server.logs)
        log = self.server.logs[partition]
        match name:
            case "pull":
                for _ in range(first):
                    if self._has_more():
                        await self._pull(pulled)
            case "append":
                self._append(partition, second)
            case "seek" if partition < PARTITIONS:
                wanted = max(log.start, second % (log.end + 1))
                assert await consumer.seek(partition, wanted) == wanted
                self.expected[partition] = wanted
                self.in_hand.pop(partition, None)
                self.processed.pop(partition, None)
                self.counts["seeks"] += 1
            case "commit":
                await consumer.commit()
                self._check_commit()
            case "retain" if log.end > log.start:
                log.start = max(log.start, second % log.end)
                self.starts.setdefault(partition, set()).add(log.start)
            case "grow":
                for _ in range(first):
                    await self.server.grow()
                    self._append(len(self.server.logs) - 1, 2)
                self.counts["partitions"] += first
            case "lose the SC":
                await self.server.lose_the_sc()
                self.counts["SC connections"] += 1
            case "lag" if self.mode == "chunks" and not self.starts:
                lag = await consumer.lag()
                for number, behind in lag.items():
                    end = self.server.logs[number].end
                    assert behind == end - self.expected.get(number, 0)
            case "yield":
                for _ in range(first):
                    await anyio.lowlevel.checkpoint()

    def _append(self, partition: int, count: int) -> None:
        values = [b"value %06d" % (self.number + row) for row in range(count)]
        self.number += count
        codec = CODECS[self.number % len(CODECS)]
        self.server.append(partition, batch_of(*values, codec_used=codec))

    def _has_more(self) -> bool:
        return any(
            self.expected.get(number, 0) < log.end for number, log in enumerate(self.server.logs)
        )

    async def _pull(self, pulled: AsyncIterator[Any]) -> None:
        """Get the next record or chunk, and compare it with the expected one."""
        self.processed.update(self.in_hand)  # asking for more means that these are processed
        self.in_hand.clear()
        found: Chunk | Record[bytes] = await anext(pulled)
        if isinstance(found, Chunk):
            offsets, values = list(found.offsets), found.values
        else:
            offsets, values = [found.offset], [found.value]
        number = found.partition
        log, expected = self.server.logs[number], self.expected.get(number, 0)
        if offsets[0] != expected:
            assert offsets[0] > expected
            assert offsets[0] in self.starts.get(number, ()), "a record is missing"
            self.counts["evicted"] += 1
        assert offsets == list(range(offsets[0], offsets[-1] + 1))
        assert values == log.values[offsets[0] : offsets[-1] + 1]
        self.expected[number] = offsets[-1] + 1
        self.in_hand[number] = offsets[-1]
        self.counts["records"] += len(offsets)

    def _check_commit(self) -> None:
        for number, offset in self.processed.items():
            assert self.server.stored[number] == offset
        self.counts["commits"] += 1

    def _check_metrics(self, consumer: Consumer) -> None:
        got = consumer.metrics.records
        assert got == self.counts["records"] or (self.counts["seeks"] and got)


async def scenario(mode: Mode, steps: list[Step], reads: list[Read]) -> Counter[str]:
    server = Scripted(PARTITIONS)
    # A response damaged twice in a row, or repeated and then damaged, must be an error.
    flips = [row for row, read in enumerate(reads) if read.kind == "flipped"]
    for row, read in enumerate(reads):
        if row not in flips[1:] and not (flips and read.kind == "twice"):
            server.reads.append(read)
    async with server.running():
        run = Run(server, mode)
        await run.play(steps)
    return run.counts + Counter(server.fired)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["chunks", "records"])
def test_a_consumer_yields_every_record_once_with_any_server_fault(
    mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()

    @given(steps=st.lists(STEPS, max_size=20), reads=st.lists(READS, max_size=15))
    def play(steps: list[Step], reads: list[Read]) -> None:
        counts.update(anyio.run(scenario, mode, steps, reads))

    play()
    for what in ("whole", "cut", "lost", "empty", "twice", "flipped", "refused"):
        assert counts[what], f"{what} never happened"
    for what in ("seeks", "partitions", "SC connections", "evicted", "commits", "records"):
        assert counts[what], f"no {what}"
    with capsys.disabled():
        print(f"\n{mode}: {dict(counts)}")  # noqa: T201
