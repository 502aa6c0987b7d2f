"""Connections that are cut at any byte, while a session writes or reads.

The deep test run cuts at every byte of every flow, the quick run at some of them. To keep this
fast, broker, proxy and client stay open between cuts, and only the connections of the flow are
new; a session is one request per partition, or one read; and there are no pauses before retries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio
import anyio.to_thread
import pytest

from streamkit import Client
from streamkit.client import BatchReport
from streamkit.env import SystemClock
from streamkit.errors import TransportError
from tests.broker_process import BrokerProcess
from tests.checker import Ledger, Row, check
from tests.proxy import Cut, Fault, Flow, Proxy

PARTITIONS: Final = 2
BATCHES: Final = 2
BATCH_BYTES: Final = 110
FOREVER_S: Final = 3_600
SOON_S: Final = 60.0
# The distance of cuts in the quick run; prime, so that cuts fall in different fields each time.
STRIDE: Final = 31
Delivery = Literal["at-least-once", "at-most-once"]


class NoPauses(SystemClock):
    """The system clock, but without pauses before retries."""

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def anyio_backend() -> str:
    """The bytes are the same on both event loops, so one of them is enough."""
    return "asyncio"


@pytest.fixture(scope="module")
def dedicated_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker with only the topics of the running test, so the bytes are the same each time."""
    with BrokerProcess(tmp_path_factory.mktemp("cuts") / "data") as process:
        yield process


@asynccontextmanager
async def retrying_client(address: str) -> AsyncIterator[Client]:
    """Open a client, with retries until it succeeds."""
    async with AsyncExitStack() as stack:
        while True:
            try:
                client = await stack.enter_async_context(Client(address, clock=NoPauses()))
                break
            except TransportError:
                pass
        yield client


@dataclass
class Bench:
    """Everything that stays open between cuts, and the counters."""

    proxy: Proxy
    direct: Client
    ends: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    sequence: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, cut: Cut) -> None:
        """Check that a cut happened.

        A session may send fewer bytes than the measured one, because timing decides which records
        share a request. Then a cut near its end comes too late.
        """
        carried_bytes = self.proxy.carried[cut.flow]
        assert cut.fired == 1 or carried_bytes <= cut.at, f"{cut.at} of {cut.flow} was not cut"
        self.counts["too late"] += not cut.fired

    async def begin(self, *faults: Fault, proxied: Client | None = None) -> None:
        """Count bytes from 0, with a client whose connection to the SC stays open."""
        if proxied is not None:
            for partition in range(PARTITIONS):
                channel = await proxied.cluster.spu(await proxied.cluster.leader("t", partition))
                await channel.close()

        def begin_again() -> None:
            self.proxy.restart(*faults, keeps_sc=proxied is not None)

        await anyio.to_thread.run_sync(begin_again)


@asynccontextmanager
async def bench(broker: BrokerProcess) -> AsyncIterator[Bench]:
    async with Client.connect(broker.address) as direct:
        await direct.admin.create_topic("t", PARTITIONS)
        try:
            with Proxy(broker.sc_port, broker.spu_port) as proxy:
                yield Bench(proxy, direct)
        finally:
            await direct.admin.delete_topic("t")


# --- Writing ---------------------------------------------------------------------------------


async def write(bench: Bench, proxied: Client, delivery: Delivery, rounds: int = 1) -> None:
    """Write a few batches to each partition and check their outcomes."""
    ledger = Ledger()
    first = bench.sequence
    options: dict[str, Any] = {"linger": FOREVER_S, "batch_size": BATCH_BYTES}
    reports: list[BatchReport] = []
    async with proxied.producer(
        "t", delivery=delivery, delivery_timeout=None, on_batch=reports.append, **options
    ) as producer:
        for _ in range(rounds):
            handles = []
            for _ in range(PARTITIONS * BATCHES):
                lane, number = ("t", bench.sequence % PARTITIONS), bench.sequence
                value = ledger.send(lane, number, b"payload %010d" % number)
                handle = await producer.send(value, partition=lane[1], timestamp_ms=1_000)
                handles.append((lane, number, handle))
                bench.sequence += 1
            try:
                await producer.flush()
            except TransportError:
                assert delivery == "at-most-once", "at-least-once delivery must not give up"
            for lane, number, handle in handles:
                try:
                    ledger.ok(lane, number, (await handle).offset - bench.ends[lane[1]])
                except TransportError as error:
                    if not error.sent:
                        ledger.failed(lane, number)
        total = bench.sequence - first
        assert producer.metrics.records + producer.metrics.failed_records == total
        assert sum(report.record_count for report in reports) == total
    await judge(bench, ledger, delivery)


async def judge(bench: Bench, ledger: Ledger, delivery: Delivery) -> None:
    """Compare the outcomes that the session got with the log."""
    rows: list[Row] = []
    for partition, start in bench.ends.items():
        chunk = (await bench.direct.fetch("t", partition, start)).chunk
        rows += [
            ("t", partition, offset - start, value)
            for offset, value in zip(chunk.offsets, chunk.values, strict=True)
        ]
        bench.ends[partition] = start + len(chunk)
    verdict = check(ledger, rows, may_repeat=delivery == "at-least-once")
    assert not verdict.problems, verdict
    last = {(row[1], row[3]): row[2] for row in sorted(rows, key=lambda row: row[2])}
    for (_, partition), lane in ledger.lanes.items():
        values = {row[2]: row[3] for row in rows if row[1] == partition}
        for offset in lane.ok.values():
            where = last[partition, values[offset]]
            assert where == offset, "a record was stored again after it was acknowledged"
    if delivery == "at-least-once":
        assert verdict.counts["unknown"] == verdict.counts["refused"] == 0
    bench.counts += verdict.counts


async def cut_writing(broker: BrokerProcess, flow: Flow, delivery: Delivery, stride: int) -> str:
    rounds = 1 if delivery == "at-least-once" else 2
    async with bench(broker) as held, retrying_client(held.proxy.address) as proxied:
        await held.begin(proxied=proxied)
        await write(held, proxied, delivery)
        total = held.proxy.carried[flow]
        held.counts.clear()
        points = range(0, total, stride)
        for at in points:
            cut = Cut(flow, at)
            await held.begin(cut, proxied=proxied)
            with anyio.fail_after(SOON_S):
                await write(held, proxied, delivery, rounds)
            held.note(cut)
    return summary(f"{delivery}, {flow}", len(points), total, held.counts)


def summary(what: str, cuts: int, total: int, counts: Counter[str]) -> str:
    assert counts["too late"] * 10 <= cuts, counts
    found = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count)
    return f"{what}: {cuts} cuts of {total} bytes, {found}, 0 lost"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201

    return say


@pytest.fixture
def stride(is_deep: bool) -> int:
    return 1 if is_deep else STRIDE


@pytest.mark.timeout(900)
@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
@pytest.mark.parametrize("flow", ["spu up", "spu down"])
async def test_writing_survives_a_cut_at_any_byte(
    dedicated_broker: BrokerProcess,
    flow: Flow,
    delivery: Delivery,
    stride: int,
    say: Callable[[str], None],
) -> None:
    say(await cut_writing(dedicated_broker, flow, delivery, stride))


# --- Reading ---------------------------------------------------------------------------------


async def read(client: Client, **options: Any) -> tuple[dict[int, list[tuple[int, bytes]]], int]:
    """Read to the end, in order and once, and commit; return the offsets and the retries."""
    found: dict[int, list[tuple[int, bytes]]] = {n: [] for n in range(PARTITIONS)}
    consumer = client.consumer(
        "t",
        until_end=True,
        max_bytes=250,
        consumer_id="me",
        offset_strategy="auto",
        resume=False,
        on_retry=lambda error, attempt: None,
        **options,
    )
    async for chunk in consumer.chunks():
        found[chunk.partition] += zip(chunk.offsets, chunk.values, strict=True)
    return found, consumer.metrics.retries


async def stored(client: Client) -> dict[int, int]:
    return {each.partition: each.offset for each in await client.admin.list_consumers()}


async def cut_reading(
    broker: BrokerProcess, flow: Flow, codec: Literal["none", "zstd"], stride: int
) -> str:
    async with bench(broker) as held, retrying_client(held.proxy.address) as proxied:
        async with held.direct.producer("t", batch_size=150, compression=codec) as producer:
            for number in range(20):
                await producer.send(b"value %d" % number, partition=number % PARTITIONS)
        truth = {n: [(i, b"value %d" % (i * PARTITIONS + n)) for i in range(10)] for n in range(2)}
        await held.begin(proxied=proxied)
        assert (await read(proxied))[0] == truth
        total = held.proxy.carried[flow]
        points = range(0, total, stride)
        for at in points:
            for each in await held.direct.admin.list_consumers():
                await held.direct.admin.delete_consumer(each.consumer_id)
            cut = Cut(flow, at)
            await held.begin(cut, proxied=proxied)
            with anyio.fail_after(SOON_S):
                found, retries = await read(proxied)
            assert found == truth, f"cut at {at} of {flow}"
            held.note(cut)
            assert await stored(held.direct) == {0: 9, 1: 9}, f"cut at {at} of {flow}"
            held.counts["retries"] += retries
            held.counts["read"] += sum(map(len, found.values()))
    return summary(f"reading {codec}, {flow}", len(points), total, held.counts)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("flow", ["spu up", "spu down"])
async def test_reading_survives_a_cut_at_any_byte(
    dedicated_broker: BrokerProcess,
    flow: Flow,
    codec: Literal["none", "zstd"],
    stride: int,
    say: Callable[[str], None],
) -> None:
    say(await cut_reading(dedicated_broker, flow, codec, stride))


# --- Connecting -------------------------------------------------------------------------------


async def cut_connecting(broker: BrokerProcess, flow: Flow, stride: int) -> str:
    """Cut the connection between a new client and the SC; each client writes and reads."""
    async with bench(broker) as held:
        await held.begin()
        async with retrying_client(held.proxy.address) as proxied:
            total = held.proxy.carried[flow]
            await write(held, proxied, "at-least-once")
        held.counts.clear()
        points = range(0, total, stride)
        for at in points:
            cut = Cut(flow, at)
            await held.begin(cut)
            with anyio.fail_after(SOON_S):
                async with retrying_client(held.proxy.address) as proxied:
                    await write(held, proxied, "at-least-once")
            held.note(cut)
    return summary(flow, len(points), total, held.counts)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flow", ["sc up", "sc down"])
async def test_connecting_survives_a_cut_at_any_byte(
    dedicated_broker: BrokerProcess, flow: Flow, stride: int, say: Callable[[str], None]
) -> None:
    say(await cut_connecting(dedicated_broker, flow, stride))
