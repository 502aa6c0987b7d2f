"""Measures the Kafka sink and source against confluent-kafka by hand, in rows per second.

python benchmarks/kafka.py

Kafka is the mock cluster of librdkafka in this process. What is read is already in the buffer of
the client, because the mock cluster is slower than that. The sink commits every 100,000 rows; by
hand there is a flush. The last lines are the time from a write to a source that waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import anyio
import confluent_kafka as kafka
import msgspec

from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.connectors.kafka.reader import KafkaReader
from streamkit.dataflow.contracts import ConnectorEnv
from streamkit.env import SystemClock
from streamkit.record import Chunk
from tests.kafka.cluster import Cluster

COMMIT_ROWS: Final = 100_000
CHUNK_ROWS: Final = 4_096
# The mock cluster keeps 100,000 rows and 5 MB of each partition.
PARTITIONS: Final = 16
ARRIVALS: Final = 100
FILLED_S: Final = 4.0
# The mock cluster answers at the end of this time, even if there are records earlier.
FETCHES: Final = {"fetch.wait.max.ms": 5, "fetch.queue.backoff.ms": 20}
_numbers = count(1)


class Order(msgspec.Struct):
    id: int = 0
    name: str = ""
    amount: float = 0.0


def orders(rows: int) -> list[Order]:
    return [Order(each, f"name {each}", each / 2) for each in range(rows)]


def main(*, rows: int = 300_000, rounds: int = 5) -> list[str]:
    """Measure all sides in turns; return a line for each."""
    given = orders(rows)
    cluster = Cluster()
    stored = new_topic(cluster)
    produce_by_hand(cluster, given, stored)
    sides: dict[str, Callable[[], float]] = {
        "produce by hand": lambda: produce_by_hand(cluster, given, new_topic(cluster)),
        "sink": lambda: anyio.run(write, cluster, given),
        "consume by hand": lambda: consume_by_hand(cluster, given, stored),
        "source": lambda: anyio.run(read, cluster, given, stored),
    }
    best = dict.fromkeys(sides, 0.0)
    for _ in range(rounds):
        for name, run in sides.items():
            best[name] = max(best[name], rows / run())
    bases = {"sink": "produce by hand", "source": "consume by hand"}
    lines = [
        f"{name:<16} {rate:>10,.0f} rows/s"
        + (f", {rate / best[bases[name]]:.2f} of {bases[name]}" if name in bases else "")
        for name, rate in best.items()
    ]
    for name, waits in (("poll by hand", arrivals_by_hand), ("source", arrivals)):
        lines.append(f"{name:<16} {1_000 * median(waits(cluster)):>10.2f} ms from write to read")
    cluster.close()
    return lines


def new_topic(cluster: Cluster) -> str:
    name = f"orders_{next(_numbers)}"
    cluster.create(name, PARTITIONS)
    return name


def env_of(name: str) -> ConnectorEnv:
    return ConnectorEnv(name, "benchmark", Path(), SystemClock(), until_end=True, kind=Order)


def produce_by_hand(cluster: Cluster, given: list[Order], topic: str) -> float:
    encode = msgspec.json.Encoder().encode
    producer = kafka.Producer(
        {
            "bootstrap.servers": cluster.servers,
            "enable.idempotence": True,
            "delivery.report.only.error": True,
            "linger.ms": 5,
        }
    )
    producer.produce(topic, b"{}")
    producer.flush()  # the first one waits for the id of the producer
    started_s = perf_counter()
    for row, each in enumerate(given, 1):
        while True:
            try:
                producer.produce(topic, encode(each), b"%d" % each.id)
                break
            except BufferError:
                producer.poll(0.01)
        if row % COMMIT_ROWS == 0:
            producer.flush()
    producer.flush()
    seconds = perf_counter() - started_s
    assert sum(cluster.ends(topic).values()) == len(given) + 1
    return seconds


async def write(cluster: Cluster, given: list[Order]) -> float:
    topic = new_topic(cluster)
    sink = KafkaSink(cluster.servers, topic)
    encode = sink.encoder(Order, None).dumps
    writer = sink.writer(env_of(topic))
    await writer.open({})
    await writer.write(Chunk([b"{}"], [None], [-1], [0]))
    await writer.prepare_commit(is_last=False).wait()
    started_s = perf_counter()
    for first in range(0, len(given), COMMIT_ROWS):
        part = given[first : first + COMMIT_ROWS]
        for start in range(0, len(part), CHUNK_ROWS):
            values = part[start : start + CHUNK_ROWS]
            keys = [b"%d" % each.id for each in values]
            chunk = Chunk(
                [encode(each) for each in values], keys, [-1] * len(values), range(len(values))
            )
            await writer.write(writer.on_chunk(chunk))
        await writer.prepare_commit(is_last=False).wait()
    seconds = perf_counter() - started_s
    await writer.close()
    assert sum(cluster.ends(topic).values()) == len(given) + 1
    return seconds


def consumer_of(cluster: Cluster, topic: str) -> Any:
    consumer = kafka.Consumer(
        {"bootstrap.servers": cluster.servers, "group.id": "by-hand", **FETCHES}
    )
    parts = range(PARTITIONS)
    consumer.assign([kafka.TopicPartition(topic, each, 0) for each in parts])
    return consumer


def consume_by_hand(cluster: Cluster, given: list[Order], topic: str) -> float:
    decode = msgspec.json.Decoder(Order).decode
    consumer = consumer_of(cluster, topic)
    anyio.run(anyio.sleep, FILLED_S)
    started_s = perf_counter()
    found = 0
    positions: dict[int, int] = {}
    while found < len(given) + 1:
        rows: list[tuple[Order, bytes | None]] = []
        for each in consumer.consume(1_000, timeout=0.1):
            if each.error() is not None:
                raise kafka.KafkaException(each.error())
            rows.append((decode(each.value()), each.key()))
            positions[each.partition()] = each.offset() + 1
        found += len(rows)
    seconds = perf_counter() - started_s
    consumer.close()
    return seconds


async def read(cluster: Cluster, given: list[Order], topic: str) -> float:
    source = KafkaSource(cluster.servers, topic, config=FETCHES)
    decoder = source.decoder(Order, None)
    assert decoder is not None
    assert decoder.many is not None
    reader = source.reader(env_of(topic))
    await reader.open({})
    await anyio.sleep(FILLED_S)
    started_s = perf_counter()
    found = 0
    while (chunk := await reader.next()) is not None:
        found += len(list(zip(decoder.many(chunk.values), chunk.keys, strict=True)))
        reader.position_after(chunk)
    seconds = perf_counter() - started_s
    await reader.close()
    assert found == len(given) + 1
    return seconds


# --- latency --------------------------------------------------------------------------


def arrivals_by_hand(cluster: Cluster) -> list[float]:
    topic = new_topic(cluster)
    consumer = consumer_of(cluster, topic)
    waits: list[float] = []

    def take() -> None:
        while consumer.poll(1) is None:
            pass

    producer = writer_of(cluster)
    for _ in range(ARRIVALS):
        waits.append(waited(producer, topic, take))
    producer.flush()
    consumer.close()
    return waits


def arrivals(cluster: Cluster) -> list[float]:
    return anyio.run(_arrivals, cluster)


async def _arrivals(cluster: Cluster) -> list[float]:
    topic = new_topic(cluster)
    env = ConnectorEnv(topic, "benchmark", Path(), SystemClock())
    reader: KafkaReader = KafkaSource(cluster.servers, topic, config=FETCHES).reader(env)
    await reader.open({})
    producer = writer_of(cluster)
    waits: list[float] = []
    for _ in range(ARRIVALS):
        await anyio.sleep(0.02)
        started_s = perf_counter()
        producer.produce(topic, b"{}")
        producer.poll(0)
        await reader.next()
        waits.append(perf_counter() - started_s)
    producer.flush()
    await reader.close()
    return waits


def writer_of(cluster: Cluster) -> Any:
    return kafka.Producer({"bootstrap.servers": cluster.servers, "linger.ms": 0})


def waited(producer: Any, topic: str, take: Callable[[], None]) -> float:
    anyio.run(partial(anyio.sleep, 0.02))
    started_s = perf_counter()
    producer.produce(topic, b"{}")
    producer.poll(0)
    take()
    return perf_counter() - started_s


if __name__ == "__main__":
    print("\n".join(main()))
