"""A source of a Kafka that is away, slow or refuses requests; topics that cannot be used."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import pytest

from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.connectors.kafka.reader import KafkaReader
from streamkit.errors import ConfigError, StreamKitError
from tests.kafka.cluster import (
    FETCH,
    LEADER_NOT_AVAILABLE,
    LIST_OFFSETS,
    METADATA,
    NOT_LEADER,
    OFFSET_NOT_AVAILABLE,
    OFFSET_OUT_OF_RANGE,
    REQUEST_TIMED_OUT,
    TOPIC_AUTHORIZATION_FAILED,
    Cluster,
)
from tests.kafka.conftest import PATIENCE_S, QUICK, Notes, during, env_of, opened_writer, rows

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def source_of(
    cluster: Cluster, folder: Path, notes: list[str], *, until_end: bool = False
) -> KafkaReader:
    source = KafkaSource(cluster.servers, "t", config=QUICK)
    return source.reader(env_of(folder, notes, until_end=until_end))


async def values_of(reader: KafkaReader, count: int) -> list[bytes]:
    found: list[bytes] = []
    with anyio.fail_after(PATIENCE_S):
        while len(found) < count:
            chunk = await reader.next()
            assert chunk is not None
            found += chunk.values
    return found


async def test_a_source_waits_for_the_broker_at_its_start_and_in_between(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t")
    cluster.write("t", [(0, b"1")])
    notes = Notes()
    cluster.stop()
    reader = source_of(cluster, tmp_path, notes)

    async def come_back() -> None:
        await notes.wait_for("is not reachable; retrying")
        cluster.start()

    await during(lambda: reader.open({}), come_back)
    assert await values_of(reader, 1) == [b"1"]
    assert notes[-1] == f"Kafka topic t at {cluster.servers} is reachable again"

    notes.clear()
    cluster.stop()

    async def come_back_with_more() -> None:
        await come_back()
        await anyio.to_thread.run_sync(partial(cluster.write, "t", [(1, b"2")]))

    await during(lambda: values_of(reader, 1), come_back_with_more)
    await reader.close()
    assert notes[-1].endswith("is reachable again")


@pytest.mark.parametrize(
    ("api", "codes"),
    [
        (FETCH, [NOT_LEADER, REQUEST_TIMED_OUT, NOT_LEADER]),
        (LIST_OFFSETS, [NOT_LEADER, REQUEST_TIMED_OUT]),
        (LIST_OFFSETS, [OFFSET_NOT_AVAILABLE] * 4),
        (FETCH, [OFFSET_NOT_AVAILABLE]),
        (METADATA, [REQUEST_TIMED_OUT]),
    ],
)
async def test_errors_that_pass_are_retried(
    cluster: Cluster, tmp_path: Path, api: int, codes: list[int]
) -> None:
    cluster.create("t")
    cluster.write("t", [(0, b"%d" % each) for each in range(100)])
    cluster.fail(api, *codes)
    reader = source_of(cluster, tmp_path, [], until_end=True)
    await reader.open({})
    assert await values_of(reader, 100) == [b"%d" % each for each in range(100)]
    assert await reader.next() is None
    await reader.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (TOPIC_AUTHORIZATION_FAILED, "authorization failed"),
        (OFFSET_OUT_OF_RANGE, "Offset out of range"),
    ],
)
async def test_a_refused_fetch_fails_after_the_records_before_it(
    cluster: Cluster, tmp_path: Path, code: int, words: str
) -> None:
    cluster.create("t", 1)
    cluster.write("t", [(0, b"1")])
    reader = source_of(cluster, tmp_path, [])
    await reader.open({})
    assert await values_of(reader, 1) == [b"1"]
    cluster.fail(FETCH, *[code] * 50)
    with anyio.fail_after(PATIENCE_S), pytest.raises(StreamKitError, match=words):
        await reader.next()
    await reader.close()


async def test_retention_that_removed_the_position_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t", 1)
    cluster.write("t", [(0, b"x" * 900_000)] * 10)  # the mock cluster keeps about 5 MB
    reader = source_of(cluster, tmp_path, [], until_end=True)
    with pytest.raises(ConfigError, match="offset 0 of partition 0 was removed by retention"):
        await reader.open({"0": "0"})
    await reader.close()
    reader = source_of(cluster, tmp_path, [], until_end=True)
    facts = await reader.open({})
    assert facts.start_offsets is not None
    assert int(facts.start_offsets["0"]) > 0
    await reader.close()


async def test_a_slow_broker_only_delays(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("t")
    cluster.delay(300)
    writer = await opened_writer(tmp_path, cluster.servers, "t")
    await writer.write(rows([b"1", b"2"]))
    await writer.prepare_commit(is_last=True).wait()
    await writer.close()
    reader = source_of(cluster, tmp_path, [], until_end=True)
    await reader.open({})
    assert sorted(await values_of(reader, 2)) == [b"1", b"2"]
    await reader.close()


async def test_a_source_can_be_cancelled_and_closed_while_the_broker_is_away(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create("t")
    for is_open in (False, True):
        reader = source_of(cluster, tmp_path, [])
        if is_open:
            await reader.open({})
        cluster.stop()
        with anyio.move_on_after(0.2) as scope:
            await (reader.next() if is_open else reader.open({}))
        assert scope.cancelled_caught
        with anyio.fail_after(5):
            await reader.close()
            await reader.close()
        cluster.start()


async def test_lag_counts_what_is_not_read_yet(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("t", 1)
    cluster.write("t", [(0, b"%d" % each) for each in range(2_000)])
    reader = source_of(cluster, tmp_path, [])
    facts = await reader.open({})
    assert facts.waiting == 2_000
    chunk = await reader.next()
    assert chunk is not None
    assert reader.lag() == 2_000 - len(chunk)
    await values_of(reader, 2_000 - len(chunk))
    assert reader.lag() == 0
    await reader.close()


async def test_a_topic_that_may_not_be_used_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("t")
    cluster.fail_topic("t", TOPIC_AUTHORIZATION_FAILED)
    writer = KafkaSink(cluster.servers, "t").writer(env_of(tmp_path, []))
    reader = source_of(cluster, tmp_path, [])
    for port in (writer, reader):
        with pytest.raises(ConfigError, match=r"cannot be used: .*authorization failed"):
            await port.open({})
        await port.close()


async def test_an_option_that_the_library_does_not_have_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    for port in (
        KafkaSink(cluster.servers, "t", config={"lingr.ms": 5}).writer(env_of(tmp_path, [])),
        KafkaSource(cluster.servers, "t", config={"lingr.ms": 5}).reader(env_of(tmp_path, [])),
    ):
        with pytest.raises(ConfigError, match=r'No such configuration property: "lingr\.ms"'):
            await port.open({})
        await port.close()


@pytest.mark.parametrize("kind", [KafkaSource, KafkaSink])
async def test_a_topic_without_a_leader_is_waited_for(
    cluster: Cluster, tmp_path: Path, kind: type[KafkaSource | KafkaSink]
) -> None:
    cluster.create("t")
    cluster.fail_topic("t", LEADER_NOT_AVAILABLE)
    notes = Notes()
    made = kind(cluster.servers, "t", config=QUICK)
    env = env_of(tmp_path, notes)
    port = made.reader(env) if isinstance(made, KafkaSource) else made.writer(env)

    async def elect() -> None:
        await notes.wait_for("is not ready; retrying")
        cluster.fail_topic("t", 0)

    await during(lambda: port.open({}), elect)
    await port.close()
    assert notes[-1].endswith("is reachable again")
