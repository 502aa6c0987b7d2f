"""Consumers and producers with SmartModules, against a server that behaves like a stock one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Client, Record
from streamkit.client import SmartModule
from streamkit.client.consume.end_probe import END_PROBE_OFFSET
from streamkit.client.consume.partition_reader import OUTPUT_BYTES
from streamkit.errors import (
    OffsetOutOfRange,
    SmartModuleError,
    SmartModuleNotFound,
    UnsupportedServer,
)
from streamkit.protocol.apis import FETCH, PRODUCE, STREAM_FETCH, UPDATE_OFFSETS
from streamkit.protocol.batch import whole_batches
from streamkit.protocol.compression import Codec
from streamkit.protocol.connection import IncomingRequest
from streamkit.protocol.data_plane import (
    FetchablePartition,
    PartitionProduceResponse,
    ProduceResponse,
    StreamFetchResponse,
    TopicProduceResponse,
)
from streamkit.protocol.error_codes import (
    NO_ERROR,
    Code,
    ErrorCode,
    TextPayload,
    TransformErrorPayload,
)
from streamkit.protocol.schema import Reader
from tests.broker.running import batch_of
from tests.client.stock_cluster import TOPIC, Failed, StockSpu, only, stock_cluster
from tests.lanes import ANY_LOOP, examples
from tests.protocol.recorded import session

SOON_S: Final = 60.0
CONTAINS: Final = SmartModule("contains", kind="filter", params={"key": "a"})
# The log of the recorded session, before the filtered produce.
FRUIT: Final = (
    batch_of(b"apple", b"kiwi", b"banana")
    + batch_of(b"xyz", base_offset=3)
    + batch_of(b"grape", base_offset=4, codec_used=Codec.GZIP)
)


@pytest.fixture(params=ANY_LOOP)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    loop: str = request.param
    return loop


def has_a(value: bytes, key: bytes | None) -> list[tuple[bytes, bytes | None]]:
    return [(value, key)] if b"a" in value else []


async def read(
    spu: StockSpu, *, into: list[Record[bytes]] | None = None, **options: Any
) -> list[Record[bytes]]:
    """Read to the end, with a timeout in case it hangs."""
    options = {"until_end": True, "smartmodules": [CONTAINS], **options}
    found: list[Record[bytes]] = [] if into is None else into
    with anyio.fail_after(SOON_S):
        async with stock_cluster(spu) as address, Client.connect(address) as client:
            async for record in client.consumer(TOPIC, **options):
                found.append(record)
    return found


def rows(records: list[Record[bytes]]) -> list[tuple[int, bytes]]:
    return [(record.offset, record.value) for record in records]


# --- Recorded sessions ---------------------------------------------------------------------


def recorded_answer(n: int, version: int) -> FetchablePartition:
    line = next(line for line in session("raw-smartmodule-filter") if line.n == n)
    body: StreamFetchResponse = STREAM_FETCH.response.read(Reader(line.data, 8), version)
    return body.partition


def replaying(*partitions: FetchablePartition) -> Callable[[IncomingRequest], StreamFetchResponse]:
    """Answer each stream with one recorded response."""
    left = list(partitions)
    return lambda request: StreamFetchResponse(request.body.topic, 1, left.pop(0))


async def test_the_recorded_response_has_the_records_at_their_offsets() -> None:
    recorded = recorded_answer(4, 22)
    spu = StockSpu(FRUIT, version=22, answers={STREAM_FETCH.key: replaying(recorded)})
    found = await read(spu)
    assert rows(found) == [(0, b"apple"), (2, b"banana"), (4, b"grape")]
    assert [record.timestamp for record in found] == [None] * 3


async def test_the_model_answers_like_the_recorded_server() -> None:
    recorded = recorded_answer(4, 22)
    made, next_offset, error = StockSpu(FRUIT, has_a).transformed(0, 1_048_890)
    assert (made, next_offset, error) == (
        recorded.records,
        recorded.next_filter_offset,
        recorded.error,
    )


@pytest.mark.parametrize(
    ("n", "kind", "words"),
    [
        (14, SmartModuleNotFound, "t-0: SmartModule not found: missing"),
        (16, SmartModuleError, "t-0: SmartModule chain: Missing param key"),
    ],
)
async def test_recorded_error_responses_end_the_iteration(
    n: int, kind: type[SmartModuleError], words: str
) -> None:
    answers = {STREAM_FETCH.key: replaying(recorded_answer(n, 25))}
    spu = StockSpu(FRUIT, answers=answers)
    with pytest.raises(kind, match=words):
        await read(spu, until_end=False)
    assert len(spu.bodies(STREAM_FETCH.key)) == 1, "it must not retry forever"


# --- Reading to the end --------------------------------------------------------------------


async def test_filtered_records_are_read_to_the_end() -> None:
    found = await read(StockSpu(FRUIT, has_a))
    assert rows(found) == [(0, b"apple"), (2, b"banana"), (4, b"grape")]


async def test_a_read_ends_if_every_record_is_filtered_out() -> None:
    assert await read(StockSpu(FRUIT, only())) == []


async def test_a_read_ends_if_the_rest_is_filtered_out() -> None:
    log = FRUIT + b"".join(batch_of(b"lime", base_offset=5 + number) for number in range(50))
    small = batch_of(b"a" * 100) + batch_of(b"a" * 200, base_offset=1)
    assert rows(await read(StockSpu(log, only(b"apple")))) == [(0, b"apple")]
    assert len(await read(StockSpu(small, only(b"a" * 100)))) == 1


async def test_a_read_continues_while_a_slow_module_works() -> None:
    """Silence must not count as the end, because the server is still working."""
    working = anyio.Event()

    class Slow(StockSpu):
        async def _send(self, stream: Any, offset: int, send: Any) -> int | None:
            if offset == 0:
                await working.wait()
            return await super()._send(stream, offset, send)

    spu = Slow(FRUIT, has_a)
    update = UPDATE_OFFSETS.key

    async def release_after_the_probe() -> None:
        while not any(
            each.offset == END_PROBE_OFFSET for body in spu.bodies(update) for each in body.offsets
        ):
            await anyio.lowlevel.checkpoint()
        working.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(release_after_the_probe)
        found = await read(spu)
    assert rows(found) == [(0, b"apple"), (2, b"banana"), (4, b"grape")]


async def test_a_probe_that_overtakes_an_acknowledgement_loses_nothing() -> None:
    """The server uses the last of two, so the refusal may arrive before records."""

    class Late(StockSpu):
        async def until_acknowledged(self, stream: Any) -> None:
            is_first = len(self.bodies(STREAM_FETCH.key)) == 1
            while is_first and stream.latest != END_PROBE_OFFSET:
                await anyio.lowlevel.checkpoint()
            await super().until_acknowledged(stream)

    values = [bytes(1 << 20) for _ in range(40)]
    log = b"".join(batch_of(value, base_offset=at) for at, value in enumerate(values))
    spu = Late(log, lambda value, key: [(value, key)])
    assert [record.offset for record in await read(spu)] == list(range(40))
    assert len(spu.bodies(STREAM_FETCH.key)) > 1


async def test_an_empty_response_with_the_end_offset_ends_the_read() -> None:
    """A broker may report explicitly that nothing is left; then no probe is needed."""
    nothing = FetchablePartition(0, NO_ERROR, 5, 5)
    spu = StockSpu(FRUIT, answers={STREAM_FETCH.key: replaying(nothing)})
    assert await read(spu) == []
    assert spu.bodies(UPDATE_OFFSETS.key) == []


async def test_without_modules_no_probe_is_sent() -> None:
    spu = StockSpu(FRUIT)
    found = await read(spu, smartmodules=[])
    assert len(found) == 5
    assert spu.bodies(UPDATE_OFFSETS.key) == []


async def test_filtered_records_do_not_count_as_lag() -> None:
    spu = StockSpu(FRUIT, only(b"apple"))
    async with stock_cluster(spu) as address, Client.connect(address) as client:
        consumer = client.consumer(TOPIC, smartmodules=[CONTAINS])
        assert await consumer.lag() == {0: 5}
        with anyio.fail_after(SOON_S):
            chunk = await consumer.next_chunk()
        assert chunk is not None
        assert (list(chunk.offsets), await consumer.lag()) == ([0], {0: 0})
        assert consumer.next_offsets() == {0: 5}
        await consumer.close()


@pytest.mark.parametrize("kept", [[75], [5, 75], [75, 95], [95], []])
async def test_a_fully_filtered_segment_does_not_hide_the_next_one(kept: list[int]) -> None:
    """A stock server then skips to the end of the log, past all later segments."""
    spu = StockSpu(log_of(*[5] * 20), segments=(30, 50, 70, 90))
    spu.module = only(*(b"%d" % number for number in kept))
    assert rows(await read(spu)) == [(number, b"%d" % number) for number in kept]


async def test_a_batch_larger_than_one_read_is_skipped() -> None:
    large = bytes(6 << 20)
    log = batch_of(large) + batch_of(large, base_offset=1) + batch_of(b"1", base_offset=2)
    assert rows(await read(StockSpu(log, only(b"1"), segments=(2,)))) == [(2, b"1")]


async def test_a_short_log_is_not_read_twice() -> None:
    spu = StockSpu(log_of(5, 5, 5), only())
    assert await read(spu) == []
    assert all(body.max_bytes <= 64 << 10 for body in spu.bodies(FETCH.key))


# --- Start offsets -------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(5))
async def test_a_start_inside_a_batch_skips_the_records_before_it(start: int) -> None:
    expected = [(0, b"apple"), (2, b"banana"), (4, b"grape")]
    found = await read(StockSpu(FRUIT, has_a), start=start)
    assert rows(found) == [row for row in expected if row[0] >= start]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    kept=st.sets(st.integers(0, 239)),
    start=st.integers(0, 240),
)
@examples(30)
async def test_no_record_after_the_start_is_lost(
    sizes: list[int], kept: set[int], start: int
) -> None:
    """Not even a record of a long batch that looks like one before the start."""
    count = sum(sizes)
    start = min(start, count)
    left = [number for number in range(count) if number in kept]
    spu = StockSpu(log_of(*sizes), only(*(b"%d" % number for number in left)))
    found = await read(spu, start=start)
    numbers = [int(record.value) for record in found]
    assert [number for number in numbers if number >= start] == [n for n in left if n >= start]
    assert all(start <= record.offset <= max(start, int(record.value)) for record in found)


def log_of(*sizes: int) -> bytes:
    """Return batches of these sizes; the value of each record is its offset."""
    log, count = b"", 0
    for size in sizes:
        values = [b"%d" % number for number in range(count, count + size)]
        log += batch_of(*values, base_offset=count)
        count += size
    return log


@pytest.mark.parametrize(("sizes", "number"), [((10, 90), 24), ((10, 10, 60), 44)])
async def test_a_record_that_looks_like_one_before_the_start_is_kept(
    sizes: tuple[int, ...], number: int
) -> None:
    """It is in a later batch, but a stock server writes a delta of 4 for it."""
    value = b"%d" % number
    found = await read(StockSpu(log_of(*sizes), only(b"0", value)), start=6)
    assert rows(found) == [(6, value)]


async def test_without_long_batches_exactly_the_requested_records_arrive() -> None:
    spu = StockSpu(log_of(10, 10, 10, 10), lambda value, key: [(value, key)])
    found = await read(spu, start=6)
    assert [int(record.value) for record in found] == list(range(6, 40))


async def test_a_start_after_the_end_is_refused() -> None:
    refusal = FetchablePartition(
        0, ErrorCode(Code.OTHER, TextPayload("start offset: 9 is greater than leo: 5"))
    )
    spu = StockSpu(FRUIT, answers={STREAM_FETCH.key: replaying(refusal)})
    with pytest.raises(OffsetOutOfRange):
        await read(spu, start=9, until_end=False)


async def test_a_consumer_with_an_id_resumes_after_its_committed_offset() -> None:
    """The offset is stored while the stream runs, and after it was read to its end."""
    spu = StockSpu(FRUIT, has_a)
    options: dict[str, Any] = {"smartmodules": [CONTAINS], "consumer_id": "me"}
    async with stock_cluster(spu) as address, Client.connect(address) as client:
        consumer = client.consumer(TOPIC, offset_strategy="manual", **options)
        async with consumer:
            async for record in consumer:
                await consumer.commit(record)
                break
        assert spu.stored == {"me": 0}
    assert rows(await read(spu, **options)) == [(2, b"banana"), (4, b"grape")]

    async with stock_cluster(spu) as address, Client.connect(address) as client:
        consumer = client.consumer(TOPIC, until_end=True, offset_strategy="manual", **options)
        async with consumer:
            with anyio.fail_after(SOON_S):
                while (chunk := await consumer.next_chunk()) is not None:
                    last = chunk.records()[-1]
                await consumer.commit(last)
    assert spu.stored == {"me": 4}
    assert await read(spu, **options) == []


# --- Long logs -----------------------------------------------------------------------------


async def test_a_long_log_is_read_completely_with_any_response_size() -> None:
    values = [b"%d:" % number + bytes(1 << 20) for number in range(80)]
    log = b"".join(batch_of(value, base_offset=at) for at, value in enumerate(values))
    spu = StockSpu(log, lambda value, key: [(value, key)] if value[0] != ord("3") else [])
    found = await read(spu)
    assert [record.value for record in found] == [v for v in values if v[0] != ord("3")]
    wanted = [body.offsets[0].offset for body in spu.bodies(UPDATE_OFFSETS.key)]
    assert [offset for offset in wanted if offset != END_PROBE_OFFSET] == sorted(wanted)[-2:]


async def test_the_requested_size_is_enough_for_the_output_of_one_batch() -> None:
    """A stock server silently drops a larger output, and continues at the end of the log."""
    spu = StockSpu(batch_of(bytes(2 << 20)), lambda value, key: [(value, key)])
    found = await read(spu, max_bytes=1_000, prefetch_bytes=1)
    assert len(found) == 1
    assert [body.max_bytes for body in spu.bodies(STREAM_FETCH.key)] == [OUTPUT_BYTES]


# --- Modules that multiply or aggregate ----------------------------------------------------


async def test_no_record_has_a_higher_offset_than_its_input() -> None:
    def three(value: bytes, key: bytes | None) -> list[tuple[bytes, bytes | None]]:
        return [(b"%s %d" % (value, number), key) for number in range(3)]

    spu = StockSpu(FRUIT, three)
    found = await read(spu, smartmodules=[SmartModule("split", kind="array_map")])
    assert len(found) == 15
    true = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert all(record.offset <= offset for record, offset in zip(found, true, strict=True))
    offsets = [record.offset for record in found]
    assert offsets == sorted(offsets)


async def test_an_aggregate_returns_each_intermediate_state() -> None:
    total = 10

    def count(value: bytes, key: bytes | None) -> list[tuple[bytes, bytes | None]]:
        nonlocal total
        total += len(value)
        return [(b"%d" % total, key)]

    spu = StockSpu(FRUIT, count)
    found = await read(spu, smartmodules=[SmartModule("sum", kind="aggregate", initial="10")])
    assert [record.value for record in found] == [b"15", b"19", b"25", b"28", b"33"]
    chain = spu.bodies(STREAM_FETCH.key)[0].smartmodules
    assert chain[0].kind.accumulator == b"10"


# --- Failures ------------------------------------------------------------------------------


async def test_records_before_a_failure_arrive_first_then_the_error() -> None:
    def fails(value: bytes, key: bytes | None) -> list[tuple[bytes, bytes | None]]:
        if value == b"xyz":
            raise Failed(
                ErrorCode(
                    Code.SMARTMODULE_RUNTIME_ERROR,
                    TransformErrorPayload("no fruit", 3, 0, None, value),
                )
            )
        return [(value, key)]

    spu = StockSpu(FRUIT, fails)
    found: list[Record[bytes]] = []
    with pytest.raises(SmartModuleError, match="no fruit") as caught:
        await read(spu, until_end=False, into=found)
    assert [record.value for record in found] == [b"apple", b"kiwi", b"banana"]
    assert (caught.value.offset, caught.value.value) == (3, b"xyz")
    assert len(spu.bodies(STREAM_FETCH.key)) == 1


def missing_at_first(times: int, then: Any) -> Callable[[IncomingRequest], Any]:
    """Answer several times that the module is not known, then something else."""
    left = [ErrorCode(Code.SMARTMODULE_NOT_FOUND, TextPayload("contains"))] * times

    def answer(request: IncomingRequest) -> Any:
        error = left.pop() if left else NO_ERROR
        if request.api is STREAM_FETCH:
            partition = FetchablePartition(0, error) if error else then
            return StreamFetchResponse(TOPIC, 1, partition)
        stored = PartitionProduceResponse(0, error, 0)
        return ProduceResponse((TopicProduceResponse(TOPIC, (stored,)),))

    return answer


async def test_a_module_that_an_spu_does_not_know_yet_is_retried() -> None:
    answer = missing_at_first(2, recorded_answer(4, 25))
    answers = {STREAM_FETCH.key: answer, PRODUCE.key: missing_at_first(2, None)}
    spu = StockSpu(FRUIT, answers=answers, modules=("contains",))
    assert len(await read(spu)) == 3
    assert len(spu.bodies(STREAM_FETCH.key)) == 3
    async with (
        stock_cluster(spu) as address,
        Client.connect(address) as client,
        client.producer(TOPIC, smartmodules=[CONTAINS]) as producer,
    ):
        with anyio.fail_after(SOON_S):
            await (await producer.send(b"pear"))
    assert len(spu.bodies(PRODUCE.key)) == 3


async def test_a_module_that_the_cluster_does_not_have_is_not_retried() -> None:
    answer = missing_at_first(1, None)
    spu = StockSpu(
        FRUIT, answers={STREAM_FETCH.key: answer, PRODUCE.key: missing_at_first(1, None)}
    )
    with pytest.raises(SmartModuleNotFound):
        await read(spu)
    async with stock_cluster(spu) as address, Client.connect(address) as client:
        producer = client.producer(TOPIC, smartmodules=[CONTAINS])
        await producer.open()
        handle = await producer.send(b"pear")
        with anyio.fail_after(SOON_S), pytest.raises(SmartModuleNotFound):
            await handle
        producer.stop()
    assert len(spu.bodies(STREAM_FETCH.key)) == len(spu.bodies(PRODUCE.key)) == 1


async def test_a_server_too_old_for_a_chain_is_refused_without_a_request() -> None:
    spu = StockSpu(FRUIT, has_a, version=17)
    with pytest.raises(UnsupportedServer, match="StreamFetch version 17"):
        await read(spu)
    assert spu.bodies(STREAM_FETCH.key) == []


# --- Producers -----------------------------------------------------------------------------


def stored_at(base_offset: int, error: ErrorCode = NO_ERROR) -> dict[int, Any]:
    answer = PartitionProduceResponse(0, error, base_offset)
    response = ProduceResponse((TopicProduceResponse(TOPIC, (answer,)),))
    return {PRODUCE.key: lambda request: response}


async def test_a_producer_sends_its_chain_with_every_request() -> None:
    spu = StockSpu(answers=stored_at(5))
    async with (
        stock_cluster(spu) as address,
        Client.connect(address) as client,
        client.producer(TOPIC, smartmodules=[CONTAINS]) as producer,
    ):
        for value in (b"pear", b"plum"):
            await (await producer.send(value))
    requests: list[Any] = spu.bodies(PRODUCE.key)
    assert len(requests) == 2
    assert all(request.smartmodules == (CONTAINS.invocation(),) for request in requests)


async def test_a_handle_has_no_offset_if_the_server_changes_the_records() -> None:
    """In the recorded response three records are sent, and one is stored with base offset 5."""
    spu = StockSpu(answers=stored_at(5))
    async with (
        stock_cluster(spu) as address,
        Client.connect(address) as client,
        client.producer(TOPIC, smartmodules=[CONTAINS]) as producer,
    ):
        many = await (await producer.send_many([b"pear", b"plum", b"fig"]))
        one = await (await producer.send(b"pear"))
    assert (list(many.partitions), list(many.offsets)) == ([0, 0, 0], [-1, -1, -1])
    assert (one.partition, one.offset) == (0, -1)
    sent = [entry for body in spu.bodies(PRODUCE.key) for entry in body.topics[0].partitions]
    assert sum(h.record_count for each in sent for h, _ in whole_batches(each.records)) == 4


async def test_records_are_refused_if_the_chain_fails_on_them() -> None:
    code = ErrorCode(Code.OTHER, TextPayload("smartmodule chain failed: trap"))
    spu = StockSpu(answers=stored_at(-1, code))
    async with stock_cluster(spu) as address, Client.connect(address) as client:
        producer = client.producer(TOPIC, smartmodules=[CONTAINS])
        await producer.open()
        handle = await producer.send(b"pear")
        with anyio.fail_after(SOON_S), pytest.raises(SmartModuleError, match="trap"):
            await handle
        producer.stop()
    assert len(spu.bodies(PRODUCE.key)) == 1


async def test_a_producer_refuses_a_server_too_old_for_a_label() -> None:
    spu = StockSpu(version=24, answers=stored_at(0))
    async with stock_cluster(spu) as address, Client.connect(address) as client:
        producer = client.producer(TOPIC, smartmodules=[SmartModule("m", label="l")])
        await producer.open()
        handle = await producer.send(b"pear")
        with anyio.fail_after(SOON_S), pytest.raises(UnsupportedServer, match="version 24"):
            await handle
        producer.stop()
    assert spu.bodies(PRODUCE.key) == []
