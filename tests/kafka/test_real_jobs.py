"""Whole jobs and copies as processes with a real broker, each of which is also killed."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit.sync import Client
from tests.cli.processes import run
from tests.kafka.server import KafkaServer
from tests.kafka.test_kill import JOB, LANES
from tests.stop.job_environment import (
    Place,
    as_row,
    assert_each_at_least_once,
    assert_each_once_in_order,
    assert_first_occurrences_ascend,
    place_in,
)

pytestmark = pytest.mark.timeout(300)

BYTES = b"\x00\xff not JSON"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        yield found


@pytest.fixture
def kafka_variables(kafka: KafkaServer) -> dict[str, str]:
    """The variables of the job, with new topics."""
    source, target = kafka.topics.new(LANES), kafka.topics.new(LANES)
    return {"SERVERS": kafka.servers, "FROM": source, "TO": target}


def add_rows(kafka: KafkaServer, topic: str, first: int, count: int) -> None:
    """Write numbered rows in transactions, half of which are aborted, and tombstones."""
    rows: list[tuple[int, bytes | None]] = []
    for number in range(first, first + count):
        rows += [(lane, b'{"lane":%d,"number":%d}' % (lane, number)) for lane in range(LANES)]
    rows.append((number % LANES, None))
    kafka.topics.transaction(topic, [(0, b"aborted"), (1, b"aborted")], commits=False)
    kafka.topics.transaction(topic, rows, commits=True)


def test_a_repeatedly_killed_job_loses_no_row(
    place: Place, kafka: KafkaServer, kafka_variables: dict[str, str], is_deep: bool
) -> None:
    kills, count = (20 if is_deep else 3), 1_000
    chosen = random.Random(kills)
    for number in range(kills):
        place.produce_rows("numbers", lanes=LANES, count=count, first=number * count)
        add_rows(kafka, kafka_variables["FROM"], number * count, count)
        aim = f"{('fluvio', 'kafka')[number % 2]}:{chosen.randint(1, LANES * count)}:9"
        options = (*place.options, "--commit-interval", "20ms")
        with place.job(JOB, *options, AIM=aim, **kafka_variables) as job:
            assert job.wait() == -signal.SIGKILL, job.words
    rest = place.run(JOB, "--once", **kafka_variables)
    assert rest.process.returncode == 0, rest.words

    total = kills * count
    written = kafka.topics.read_all(kafka_variables["TO"])
    rows = [as_row(each.value()) for each in written]
    assert_each_at_least_once(rows, lanes=LANES, count=total)
    assert_first_occurrences_ascend(rows)
    assert_each_at_least_once(map(as_row, place.values("copied")), lanes=LANES, count=total)
    nothing = place.run(JOB, "--once", **kafka_variables)
    assert nothing.process.returncode == 0, nothing.words
    assert nothing.ended["records_in"] == 0


@pytest.mark.parametrize("kill_at", ["fluvio", pytest.param("kafka", marks=pytest.mark.deep)])
def test_a_job_during_which_kafka_is_killed_copies_each_row_once(
    place: Place, kafka: KafkaServer, kafka_variables: dict[str, str], kill_at: str
) -> None:
    count = 3_000
    place.produce_rows("numbers", lanes=LANES, count=count)
    add_rows(kafka, kafka_variables["FROM"], 0, count)
    aim = f"{kill_at}:{count}:0"
    options = (*place.options, "--commit-interval", "20ms", "--once")
    with place.job(JOB, *options, AIM=aim, **kafka_variables) as job:
        job.wait_for_error("at its aim")
        kafka.kill()
        kafka.start()
        assert job.wait() == 0, job.words
    for partition in kafka.topics.by_partition(kafka_variables["TO"]).values():
        rows = [as_row(each.value()) for each in partition]
        assert sorted(rows) == sorted(set(rows))
        assert_first_occurrences_ascend(rows)
    everything = kafka.topics.values(kafka_variables["TO"])
    assert_each_at_least_once(map(as_row, everything), lanes=LANES, count=count)
    assert_each_once_in_order(map(as_row, place.values("copied")), lanes=LANES, count=count)


def test_a_topic_is_copied_to_fluvio_and_back(place: Place, kafka: KafkaServer) -> None:
    there, back = kafka.topics.new(3), kafka.topics.new(3)
    kafka.topics.write(there, [(0, BYTES), (0, b""), (2, None)], key=b"k\xff", timestamp=1234)
    kafka.topics.transaction(there, [(1, b"aborted")], commits=False)
    kafka.topics.write(there, [(1, b"plain")], timestamp=99)

    def copied(*ends: str) -> str:
        done = run(place.folder, "copy", *place.options, *ends)
        assert done.code == 0, done.err
        return done.err

    to_fluvio = (f"kafka://{kafka.servers}/{there}", "fluvio:orders")
    assert "4 records in, 4 out" in copied(*to_fluvio)
    assert "0 records in, 0 out" in copied(*to_fluvio)
    with Client.connect(place.address) as client:
        records = [
            (each.value, each.key, each.timestamp_ms)
            for each in client.consumer("orders", start="beginning", until_end=True)
        ]
    assert sorted(records, key=str) == sorted(
        [
            (BYTES, b"k\xff", 1234),
            (b"", b"k\xff", 1234),
            (b"", b"k\xff", 1234),
            (b"plain", None, 99),
        ],
        key=str,
    )
    assert "4 records in, 4 out" in copied(
        "fluvio:orders", f"kafka://{kafka.servers}/{back}?tombstones=true&compression.type=zstd"
    )
    found = [(m.value(), m.key(), m.timestamp()[1]) for m in kafka.topics.read_all(back)]
    assert sorted(found, key=str) == sorted(
        [(each[0] or None, *each[1:]) for each in records], key=str
    )
