"""Flipped bits and repeated bytes, anywhere in what is written and read.

TCP's own checksum misses some damage. The checksum of a batch finds damage in what it covers.
Most of the other damage breaks a rule between messages: a response is for what was requested,
batches are consecutive, a log starts before it ends. Then the client retries, or raises an error.
Three kinds of damage cannot be found: another offset in a Produce response; another start of the
log that is inside the log; and other offsets of a single batch, if reading starts inside it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, Literal

import anyio
import pytest

from streamkit import Client
from streamkit.client.produce.handles import RecordHandle
from streamkit.errors import StreamKitError
from tests.broker_process import BrokerProcess
from tests.client.test_cuts import Bench, bench, retrying_client
from tests.proxy import Fault, FlipAt, Flow, Repeat

# After a damaged length the other side waits for bytes that are never sent.
PATIENCE_S: Final = 0.2
SOON_S: Final = 60.0
SAMPLES: Final = 40
DEEP_SAMPLES: Final = 800
# Damage that cannot be found: another start inside the log, and another offset in a Produce
# response.
BEGINS_LATER: Final = "read from a later start"
MISPLACED: Final = "stored, but another offset was reported"
Session = Callable[[], Awaitable[str]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def dedicated_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("bits") / "data") as process:
        yield process


async def outcome(held: Bench, session: Session) -> str:
    """Run a session; if it waits forever, close its connections, and it must then finish."""
    found: list[str] = []
    done = anyio.Event()

    async def run() -> None:
        found.append(await session())
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        with anyio.move_on_after(PATIENCE_S):
            await done.wait()
        if found:
            return found[0]
        held.proxy.cut_all()
        with anyio.move_on_after(SOON_S):
            await done.wait()
        tasks.cancel_scope.cancel()
    return f"{found[0]}, once cut" if found else "waits for good"


# --- Reading ---------------------------------------------------------------------------------


async def read(client: Client) -> tuple[dict[int, list[tuple[int, bytes]]], int]:
    found: dict[int, list[tuple[int, bytes]]] = {0: [], 1: []}
    consumer = client.consumer(
        "t", until_end=True, max_bytes=250, on_retry=lambda error, attempt: None
    )
    async for chunk in consumer.chunks():
        found[chunk.partition] += zip(chunk.offsets, chunk.values, strict=True)
    return found, consumer.metrics.retries + consumer.metrics.refetched


async def harm_reading(
    broker: BrokerProcess,
    flow: Flow,
    codec: Literal["none", "zstd"],
    faults: Callable[[int], list[Fault]],
) -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    silent: list[str] = []
    async with bench(broker) as held, retrying_client(held.proxy.address) as proxied:
        async with held.direct.producer("t", batch_size=150, compression=codec) as producer:
            for number in range(20):
                await producer.send(b"value %d" % number, partition=number % 2)
        truth = {n: [(i, b"value %d" % (i * 2 + n)) for i in range(10)] for n in range(2)}
        await held.begin(proxied=proxied)
        assert (await read(proxied))[0] == truth

        async def session() -> str:
            try:
                found, again = await read(proxied)
            except StreamKitError as error:
                return f"reported: {type(error).__name__}"
            if found == truth:
                return "read again" if again else "no matter"
            if all(rows and truth[p][-len(rows) :] == rows for p, rows in found.items()):
                return BEGINS_LATER
            return "SILENT " + str(
                {p: (found[p][:2], len(found[p])) for p in found if found[p] != truth[p]}
            )

        for fault in faults(held.proxy.carried[flow]):
            await held.begin(fault, proxied=proxied)
            what = await outcome(held, session)
            if "SILENT" in what or "good" in what:
                silent.append(f"{vars(fault)}: {what}")
                what = what[:6]
            counts[what] += 1
            assert fault.fired == 1, f"{vars(fault)} never happened"
    return counts, silent


def flips(flow: Flow, is_deep: bool) -> Callable[[int], list[Fault]]:
    def make(total: int) -> list[Fault]:
        chosen = random.Random(f"{flow} 1")
        count = min(total * 8, DEEP_SAMPLES if is_deep else SAMPLES)
        spots = sorted(chosen.sample(range(total * 8), count))
        return [FlipAt(flow, spot // 8, spot % 8) for spot in spots]

    return make


def repeats(flow: Flow, is_deep: bool) -> Callable[[int], list[Fault]]:
    def make(total: int) -> list[Fault]:
        chosen = random.Random(f"{flow} 2")
        count = min(total, DEEP_SAMPLES if is_deep else SAMPLES)
        starts = sorted(chosen.sample(range(total), count))
        return [Repeat(flow, start, chosen.choice([1, 4, 57, 120])) for start in starts]

    return make


KINDS: Final = {"flips": flips, "repeats": repeats}


def tell(what: str, counts: Counter[str], silent: list[str], capsys: Any) -> None:
    with capsys.disabled():
        print(f"\n{what}: {dict(counts)}")  # noqa: T201
        for each in silent:
            print(each)  # noqa: T201


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("flow", ["spu up", "spu down"])
async def test_damaged_bytes_are_never_read_as_other_records(
    dedicated_broker: BrokerProcess, flow: Flow, codec: Any, kind: str, is_deep: bool, capsys: Any
) -> None:
    counts, silent = await harm_reading(dedicated_broker, flow, codec, KINDS[kind](flow, is_deep))
    tell(f"reading {codec}, {kind} {flow}", counts, silent, capsys)
    assert not silent
    assert len(counts) > 1
    # Damaged start offsets that stay within ten records: a few of about ten thousand.
    assert counts[BEGINS_LATER] <= (8 if (kind, flow) == ("flips", "spu down") else 0)


# --- Writing ---------------------------------------------------------------------------------


async def written(held: Bench, proxied: Client) -> str:
    """Write a batch to each partition; return whether the reported outcome is true."""
    sent: list[tuple[int, bytes, RecordHandle]] = []
    retried = False

    def note(error: Exception, attempt: int) -> None:
        nonlocal retried
        retried = True

    producer = proxied.producer("t", linger=3_600, delivery_timeout=None, on_retry=note)
    await producer.open()
    for _ in range(4):
        partition, value = held.sequence % 2, b"payload %010d" % held.sequence
        held.sequence += 1
        handle = await producer.send(value, partition=partition, timestamp_ms=1_000)
        sent.append((partition, value, handle))
    error_name = ""
    try:
        await producer.close()
    except StreamKitError as error:
        error_name = type(error).__name__
    logs: dict[int, list[bytes]] = {}
    starts = dict(held.ends)
    for partition, start in starts.items():
        chunk = (await held.direct.fetch("t", partition, start)).chunk
        logs[partition] = list(chunk.values)
        held.ends[partition] += len(chunk)
    if not {value for log in logs.values() for value in log} <= {value for _, value, _ in sent}:
        return "SILENT: records that were never sent"
    for partition, value, handle in sent:
        try:
            offset = handle.result().offset - starts[partition]
        except StreamKitError:
            continue
        if value not in logs[partition]:
            return f"SILENT: {value!r} is lost"
        if logs[partition][max(0, offset) : offset + 1] != [value]:
            return MISPLACED
    is_twice = any(len(log) > 2 for log in logs.values())
    if error_name:
        is_there = any(logs.values())
        return f"reported: {error_name}, " + (
            "and some of it is stored" if is_there else "nothing is stored"
        )
    return "sent again" if retried or is_twice else "no matter"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flow", ["spu up", "spu down"])
async def test_damaged_bytes_are_never_stored_as_other_records(
    dedicated_broker: BrokerProcess, flow: Flow, kind: str, is_deep: bool, capsys: Any
) -> None:
    counts: Counter[str] = Counter()
    silent: list[str] = []
    async with bench(dedicated_broker) as held, retrying_client(held.proxy.address) as proxied:
        await held.begin(proxied=proxied)
        assert await written(held, proxied) == "no matter"
        for fault in KINDS[kind](flow, is_deep)(held.proxy.carried[flow]):
            await held.begin(fault, proxied=proxied)
            what = await outcome(held, partial(written, held, proxied))
            if "SILENT" in what or "good" in what:
                silent.append(f"{vars(fault)}: {what}")
                what = what[:6]
            counts[what] += 1
            assert fault.fired == 1, f"{vars(fault)} never happened"
    tell(f"writing, {kind} {flow}", counts, silent, capsys)
    assert not silent
    assert flow == "spu down" or not counts[MISPLACED]
