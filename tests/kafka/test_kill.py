"""kill -9 at any moment: every row arrives in Kafka, and every row of Kafka in Fluvio."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.cluster import Cluster
from tests.stop.job_environment import (
    Place,
    as_row,
    assert_each_at_least_once,
    assert_first_occurrences_ascend,
    place_in,
)

JOB = Path(__file__).parent / "jobs" / "copying_kafka.py"
LANES = 3


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        yield found


def add_rows(cluster: Cluster, first: int, count: int) -> None:
    """Write numbered rows, and tombstones between them."""
    rows: list[tuple[int, bytes | None]] = []
    for number in range(first, first + count):
        rows += [(lane, b'{"lane":%d,"number":%d}' % (lane, number)) for lane in range(LANES)]
        if number % 100 == 0:
            rows.append((number % LANES, None))
    cluster.write("in", rows)


@pytest.mark.timeout(900)
def test_a_repeatedly_killed_job_loses_no_row(
    place: Place, cluster: Cluster, is_deep: bool
) -> None:
    kills, count = (20 if is_deep else 6), 3_000
    cluster.create("in", LANES)
    cluster.create("out", 16)  # the mock cluster keeps only 100,000 rows of each partition
    chosen = random.Random(kills)
    for number in range(kills):
        # Enough new rows for the aim, even if all that came before are committed.
        place.produce_rows("numbers", lanes=LANES, count=count, first=number * count)
        add_rows(cluster, number * count, count)
        aim = f"{('fluvio', 'kafka')[number % 2]}:{chosen.randint(1, LANES * count)}:9"
        with place.job(
            JOB, *place.options, "--commit-interval", "20ms", AIM=aim, SERVERS=cluster.servers
        ) as job:
            assert job.wait() == -signal.SIGKILL, job.words
    rest = place.run(JOB, "--once", SERVERS=cluster.servers)
    assert rest.process.returncode == 0, rest.words

    total = kills * count
    written = cluster.read_all("out")
    rows = [as_row(each.value()) for each in written]
    assert_each_at_least_once(rows, lanes=LANES, count=total)
    assert_first_occurrences_ascend(rows)
    assert_each_at_least_once(map(as_row, place.values("copied")), lanes=LANES, count=total)
    for (lane, number), message in zip(rows, written, strict=True):
        assert message.key() == b"%d-%d" % (lane, number % 8)

    nothing = place.run(JOB, "--once", SERVERS=cluster.servers)
    assert nothing.process.returncode == 0, nothing.words
    assert nothing.ended["records_in"] == 0


@pytest.mark.timeout(300)
def test_a_job_that_must_stop_while_kafka_is_away_ends_in_time_and_resumes(
    place: Place, cluster: Cluster
) -> None:
    count = 2_000
    cluster.create("in", LANES)
    cluster.create("out", LANES)
    place.produce_rows("numbers", lanes=LANES, count=count)
    with place.job(
        JOB, *place.options, "--stop-deadline", "3s", AIM="fluvio:1:0", SERVERS=cluster.servers
    ) as job:
        job.wait_for_error("at its aim")
        cluster.stop()
        place.produce_rows("numbers", lanes=LANES, count=10, first=count)
        job.wait_for_note("is not reachable; retrying")
        sent_s = job.signal(signal.SIGTERM)
        assert job.wait() != 0, job.words
        assert job.ended_s - sent_s < 10
    cluster.start()
    rest = place.run(JOB, "--once", SERVERS=cluster.servers)
    assert rest.process.returncode == 0, rest.words
    rows = [as_row(each.value()) for each in cluster.read_all("out")]
    assert_each_at_least_once(rows, lanes=LANES, count=count + 10)
