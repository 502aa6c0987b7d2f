"""The broker is absent, or dies and comes back: the job says so and goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.stop.broker import BrokerProcess
from tests.stop.job_environment import (
    Place,
    assert_each_at_least_once,
    assert_each_once_in_order,
    assert_first_occurrences_ascend,
)
from tests.stop.running import Job, run_to_end

LANES = 3
ROWS_PER_KILL = 10_000


def wait_for_another_commit(job: Job) -> None:
    before = job.commits
    job.wait_until(lambda: job.commits > before)


def wait_for_another_note(job: Job, act: Callable[[], object]) -> None:
    before = len(job.notes)
    act()
    job.wait_until(lambda: len(job.notes) > before)


def test_a_job_goes_on_when_its_killed_broker_is_back(place: Place, is_deep: bool) -> None:
    kills = 10 if is_deep else 3
    count = kills * ROWS_PER_KILL
    place.produce_rows("numbers", lanes=LANES, count=ROWS_PER_KILL)
    options = ("--cluster", place.address, "--create-topics", "--commit-interval", "50ms")
    with Job("copying.py", place.folder, *options) as job:
        for kill in range(1, kills + 1):
            wait_for_another_commit(job)
            wait_for_another_note(job, place.broker.kill)
            place.broker.start()
            if kill < kills:
                first = kill * ROWS_PER_KILL
                place.produce_rows("numbers", lanes=LANES, first=first, count=ROWS_PER_KILL)
        job.wait_for_records(LANES * count)
        assert any("retrying" in note for note in job.notes), job.words
        job.signal(signal.SIGTERM)
        assert job.wait() == 0, job.words
        assert job.ended["unacknowledged"] == {}
    assert_each_once_in_order(place.rows_of_file("copies.jsonl"), lanes=LANES, count=count)
    partitions = place.rows_by_partition("copies")
    rows = [row for partition in partitions.values() for row in partition]
    assert_each_at_least_once(rows, lanes=LANES, count=count)
    for partition in partitions.values():
        assert_first_occurrences_ascend(partition)
    rest = run_to_end("copying.py", place.folder, *options, "--once")
    assert rest.ended["records_in"] == 0


def test_a_job_whose_broker_is_absent_says_so_and_begins_when_it_appears(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data")
    options = ("--cluster", broker.address, "--create-topics")
    with Job("copying.py", tmp_path, *options) as job:
        note = job.wait_for_note("waiting for the broker")["text"]
        assert broker.address in note
        with broker:
            job.wait_for(lambda event: event["event"] == "started")
            Place(tmp_path, broker).produce_rows("numbers", lanes=1, count=10)
            job.wait_for_records(10)
            job.signal(signal.SIGTERM)
            assert job.wait() == 0, job.words
