"""`append`: the rate of acknowledged appends, compared with the rate of the disk alone.

The batches are encoded before the measurement. Two requests are always in flight, so that the
broker reads one while it syncs the other: each sync covers one request.
"""

from __future__ import annotations

import time
from statistics import quantiles

import anyio

from streamkit.bench.environment import Environment, broker
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.bench.timing import Stopwatch, best_of, measured
from streamkit.bench.workload import VALUE_BYTES, values_of
from streamkit.client import Client as AsyncClient
from streamkit.env import Disk
from streamkit.limits import BATCH_BYTES_DEFAULT, RECORDS_PER_BATCH_MAX, REQUEST_BYTES_DEFAULT
from streamkit.protocol import codec
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.batch import OVERHEAD_BYTES, Columns, encode_batch
from streamkit.protocol.data_plane import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)

_NOW_MS = 1_700_000_000_000
_SINGLES_MAX = 1_000
_SYNCS_FOR_ONE = 2
_MORE_S = 0.0005


def run(scale: Scale) -> Result:
    records = scale.records
    requests = requests_of(records)
    singles = min(records, _SINGLES_MAX)
    with broker(scale) as environment:

        def ours() -> Timing:
            with environment.topic() as topic:
                watch = anyio.run(append_all, environment, topic, requests)
                _check(environment, topic, records)
            return watch.timing(records)

        best = best_of(
            scale.rounds,
            {"broker": ours, "disk": lambda: raw_groups(environment, requests).timing(records)},
        )
        one = best_of(
            scale.rounds,
            {
                "broker": lambda: _single(environment, singles),
                "disk": lambda: _syncs(environment, singles),
            },
        )
    return _result(records, requests, best, one)


def _result(
    records: int, requests: list[bytes], best: dict[str, Timing], one: dict[str, Timing]
) -> Result:
    sync_s = one["disk"].seconds
    limit_s = _SYNCS_FOR_ONE * sync_s + _MORE_S
    size_mb = sum(map(len, requests)) / 1e6
    return Result(
        "append",
        f"{records:,} records of {VALUE_BYTES} B to one partition, fsync on",
        [
            Comparison(
                "acknowledged rate", best["broker"], best["disk"], "write and fdatasync", 0.5
            ),
            Comparison(
                "single send, p99",
                Timing(one["broker"].seconds),
                Timing(limit_s),
                "two syncs (p99) and 0.5 ms",
                1.0,
            ),
        ],
        [
            f"{len(requests):,} requests of up to {REQUEST_BYTES_DEFAULT:,} B: "
            f"broker {size_mb / best['broker'].seconds:,.0f} MB/s, "
            f"disk {size_mb / best['disk'].seconds:,.0f} MB/s",
            f"a sync of one record takes {sync_s * 1e3:.2f} ms (p99)",
        ],
    )


def requests_of(records: int) -> list[bytes]:
    """Encode records as a producer does: batches of the default size, requests of up to 1 MiB."""
    values = values_of(records)
    columns = Columns(values, [None] * records, [_NOW_MS] * records)
    requests: list[bytes] = []
    batches: list[bytes] = []
    start = 0
    while start < records:
        stop, size = codec.fit_rows(
            columns.values,
            columns.keys,
            columns.timestamps_ms,
            start,
            BATCH_BYTES_DEFAULT - OVERHEAD_BYTES,
            RECORDS_PER_BATCH_MAX,
        )
        batch = encode_batch(columns, start, stop, size)
        if batches and sum(map(len, batches)) + len(batch) > REQUEST_BYTES_DEFAULT:
            requests.append(b"".join(batches))
            batches = []
        batches.append(batch)
        start = stop
    requests.append(b"".join(batches))
    return requests


async def append_all(environment: Environment, topic: str, requests: list[bytes]) -> Stopwatch:
    """Send requests, with two of them in flight, and wait for every acknowledgement."""
    async with AsyncClient.connect(environment.address) as client:
        cluster = client.cluster
        channel = await cluster.spu(await cluster.leader(topic, 0))
        with measured() as watch:
            pending = None
            for records in requests:
                data = (TopicProduceData(topic, (PartitionProduceData(0, records),)),)
                posted = await channel.post(PRODUCE, ProduceRequest(topics=data))
                if pending is not None:
                    _raise_error(await pending)
                pending = posted
            if pending is not None:
                _raise_error(await pending)
    return watch


def raw_groups(environment: Environment, requests: list[bytes]) -> Stopwatch:
    """Write the same bytes to a file, with a sync after each request."""
    disk = Disk()
    path = environment.folder / "raw"
    fd = disk.open_append(path)
    try:
        with measured() as watch:
            position = 0
            for records in requests:
                disk.write_at(fd, records, position)
                disk.sync(fd)
                position += len(records)
    finally:
        disk.close(fd)
        path.unlink()
    return watch


def _single(environment: Environment, count: int) -> Timing:
    """Send records one by one, each awaited before the next; return the p99 latency."""

    async def main(topic: str) -> list[float]:
        async with (
            AsyncClient.connect(environment.address) as client,
            client.producer(topic) as producer,
        ):
            latencies = []
            for value in values_of(count):
                started_s = time.perf_counter()
                await (await producer.send(value))
                latencies.append(time.perf_counter() - started_s)
            return latencies

    with environment.topic() as topic:
        latencies = anyio.run(main, topic)
        _check(environment, topic, count)
    return Timing(_p99(latencies))


def _syncs(environment: Environment, count: int) -> Timing:
    """Write records one by one, each followed by a sync; return the p99 latency."""
    disk = Disk()
    path = environment.folder / "syncs"
    fd = disk.open_append(path)
    data = bytes(VALUE_BYTES + OVERHEAD_BYTES)
    latencies = []
    try:
        for row in range(count):
            started_s = time.perf_counter()
            disk.write_at(fd, data, row * len(data))
            disk.sync(fd)
            latencies.append(time.perf_counter() - started_s)
    finally:
        disk.close(fd)
        path.unlink()
    return Timing(_p99(latencies))


def _p99(latencies: list[float]) -> float:
    return quantiles(latencies, n=100)[98] if len(latencies) > 1 else latencies[0]


def _raise_error(response: ProduceResponse) -> None:
    error = response.topics[0].partitions[0].error
    if error:
        raise WrongOutput(f"the broker refused an append: {error}")


def _check(environment: Environment, topic: str, records: int) -> None:
    expected = values_of(records)
    found: list[bytes] = []
    with environment.client.consumer(topic, until_end=True) as consumer:
        for chunk in consumer.chunks():
            found += chunk.values
    if len(found) != records:
        raise WrongOutput(f"{records:,} records were sent, {len(found):,} are stored")
    if found != expected:
        raise WrongOutput("the stored records differ from those that were sent")
