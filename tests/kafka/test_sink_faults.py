"""A sink to a Kafka that is away, slow or refuses requests, and calls that are cancelled."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from streamkit.connectors.kafka import KafkaSink
from streamkit.connectors.kafka.writer import KafkaWriter
from streamkit.env import SystemClock
from streamkit.errors import ConfigError, StreamKitError
from tests.kafka.cluster import (
    INIT_PRODUCER_ID,
    MSG_SIZE_TOO_LARGE,
    NOT_ENOUGH_REPLICAS,
    NOT_LEADER,
    PRODUCE,
    REQUEST_TIMED_OUT,
    Cluster,
)
from tests.kafka.conftest import PATIENCE_S, QUICK, Notes, during, env_of, rows

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def sink_of(cluster: Cluster, folder: Path, notes: list[str], **config: int) -> KafkaWriter:
    sink = KafkaSink(cluster.servers, "t", config={**QUICK, **config})
    return sink.writer(env_of(folder, notes))


async def test_a_sink_waits_for_the_broker_at_its_start_and_at_a_commit(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t")
    notes = Notes()
    cluster.stop()
    writer = sink_of(cluster, tmp_path, notes)

    async def come_back() -> None:
        await notes.wait_for("is not reachable; retrying")
        cluster.start()

    await during(lambda: writer.open({}), come_back)
    await writer.write(rows([b"1"]))
    await writer.prepare_commit(is_last=False).wait()
    notes.clear()
    cluster.stop()
    await writer.write(rows([b"2"]))
    assert writer.unacknowledged == 1
    await during(writer.prepare_commit(is_last=True).wait, come_back)
    assert writer.unacknowledged == 0
    await writer.close()
    assert sorted(each.value() for each in cluster.read_all("t")) == [b"1", b"2"]


async def test_a_write_waits_while_the_buffer_is_full_and_the_broker_is_away(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t")
    notes = Notes()
    writer = sink_of(cluster, tmp_path, notes, **{"queue.buffering.max.messages": 10})
    await writer.open({})
    cluster.stop()
    values = [b"%d" % each for each in range(50)]

    async def come_back() -> None:
        await notes.wait_for("is not reachable; retrying")
        cluster.start()

    await during(lambda: writer.write(rows(values)), come_back)
    await writer.prepare_commit(is_last=True).wait()
    await writer.close()
    assert sorted(each.value() for each in cluster.read_all("t")) == sorted(values)


async def test_a_write_that_is_cancelled_can_be_followed_by_a_close(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t")
    writer = sink_of(cluster, tmp_path, [], **{"queue.buffering.max.messages": 10})
    await writer.open({})
    cluster.stop()
    with anyio.move_on_after(0.2) as scope:
        await writer.write(rows([b"v"] * 50))
    assert scope.cancelled_caught
    with anyio.move_on_after(0.2) as scope:
        await writer.prepare_commit(is_last=True).wait()
    assert scope.cancelled_caught
    with anyio.fail_after(5):
        await writer.close()
        await writer.close()


async def test_a_commit_that_was_cancelled_can_be_waited_for_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t")
    writer = sink_of(cluster, tmp_path, [])
    await writer.open({})
    cluster.delay(300)
    await writer.write(rows([b"1"]))
    prepared = writer.prepare_commit(is_last=True)
    with anyio.move_on_after(0.05):
        await prepared.wait()
    assert writer.unacknowledged == 1
    await prepared.wait()
    assert writer.unacknowledged == 0
    await writer.close()


async def test_produce_errors_that_pass_are_retried_once_and_in_order(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t", 1)
    writer = sink_of(cluster, tmp_path, [], **{"batch.num.messages": 50})
    await writer.open({})
    cluster.fail(PRODUCE, NOT_LEADER, REQUEST_TIMED_OUT, NOT_LEADER)
    cluster.fail(INIT_PRODUCER_ID, REQUEST_TIMED_OUT)
    values = [b"%d" % each for each in range(1_000)]
    for each in range(0, 1_000, 100):
        await writer.write(rows(values[each : each + 100]))
    await writer.prepare_commit(is_last=True).wait()
    await writer.close()
    assert [each.value() for each in cluster.read_all("t")] == values


class FastClock(SystemClock):
    """A clock that moves 6 seconds forward whenever it is read."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 6
        return self._now_s


async def test_a_topic_with_too_few_replicas_is_waited_for_with_a_message(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t", 1)
    notes = Notes()
    env = replace(env_of(tmp_path, notes), clock=FastClock())
    writer = KafkaSink(cluster.servers, "t", config=QUICK).writer(env)
    await writer.open({})
    await writer.write(rows([b"1"]))
    await writer.prepare_commit(is_last=False).wait()
    notes.clear()  # the first record waits for the number of the producer
    cluster.fail(PRODUCE, *[NOT_ENOUGH_REPLICAS] * 100)
    await writer.write(rows([b"2"]))

    async def recover() -> None:
        await notes.wait_for("has acknowledged nothing for")
        cluster.recover(PRODUCE)

    await during(writer.prepare_commit(is_last=True).wait, recover)
    await writer.close()
    lost, back = notes
    assert re.search(r"for \d+ s; 1 record\(s\) wait.*min\.insync\.replicas", lost)
    assert back.endswith("acknowledges records again")
    assert [each.value() for each in cluster.read_all("t")] == [b"1", b"2"]


async def test_a_record_that_only_the_broker_finds_too_large_fails_the_commit(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t", 1)
    writer = sink_of(cluster, tmp_path, [])
    await writer.open({})
    cluster.fail(PRODUCE, MSG_SIZE_TOO_LARGE)
    await writer.write(rows([b"1"]))
    try:
        with anyio.fail_after(PATIENCE_S), pytest.raises(StreamKitError, match="too large"):
            await writer.prepare_commit(is_last=True).wait()
    finally:
        await writer.close()


async def test_a_topic_that_is_missing_is_not_created(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("other")
    writer = sink_of(cluster, tmp_path, [])
    with pytest.raises(ConfigError, match="the Kafka topic 't' does not exist"):
        await writer.open({})
    await writer.close()
    assert "t" not in cluster.topics()
