"""SIGTERM under load: everything is flushed and committed, and nothing is repeated."""

from __future__ import annotations

import random
import signal
from collections import Counter

import pytest

from streamkit.runtime.shutdown import Phase
from tests.stop.job_environment import (
    Place,
    assert_each_once_in_order,
    assert_partitions_hold_each_once,
)
from tests.stop.running import Job

LANES = 3
# The deadline is 25 s; a job that needs less has not waited for it. A machine may be busy.
EXIT_S_MAX = 10.0
RECORDS_PER_RUN = 40_000
# The signal comes between these records, so that the job has run at full speed before.
FIRST, LAST = 10_000, 20_000


def signalled_at_s(place: Place) -> float:
    return float((place.folder / "signalled-at").read_text())


def aims(count: int) -> list[str]:
    """Choose where the signals are sent; the seed is fixed, so a failure can be repeated."""
    chosen = random.Random(count)
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += [
            f"stage:{chosen.randint(FIRST, LAST)}",
            f"flush:{chosen.randint(2, 4)}",
            f"write:{chosen.randint(10, 15)}",
            "outside",
            f"stage:{chosen.randint(FIRST, LAST)}",
        ]
    return drawn[:count]


def stop_once(place: Place, aim: str) -> tuple[Job, float]:
    """Run the job until its signal has ended it; return how long the stop took, in seconds."""
    options = ("--commit-interval", "200ms")
    if aim == "outside":
        with place.job("copying.py", *options, AIM=f"stage:{FIRST}:0") as job:
            job.wait_for_error("at its aim")
            sent_s = job.signal(signal.SIGTERM)
            job.wait()
    else:
        with place.job("copying.py", *options, AIM=f"{aim}:{int(signal.SIGTERM)}") as job:
            job.wait()
        sent_s = signalled_at_s(place)
    return job, job.ended_s - sent_s


@pytest.mark.timeout(600)
def test_a_job_stopped_under_load_loses_and_repeats_nothing(place: Place, is_deep: bool) -> None:
    times = 30 if is_deep else 5
    count = times * RECORDS_PER_RUN // LANES
    place.produce_rows("numbers", lanes=LANES, count=count)
    phases: Counter[str] = Counter()
    for aim in aims(times):
        job, seconds = stop_once(place, aim)
        assert job.process.returncode == 0, job.words
        assert job.ended["lag"] > 0, job.words
        assert job.ended["unacknowledged"] == {}
        assert seconds < EXIT_S_MAX, job.words
        phases.update(job.phases)
    assert phases == {
        phase.label: times for phase in Phase if phase not in (Phase.RUNNING, Phase.STOPPED)
    }
    rest = place.run("copying.py", "--once")
    assert rest.process.returncode == 0, rest.words
    assert_each_once_in_order(place.rows_of_file("copies.jsonl"), lanes=LANES, count=count)
    assert_each_once_in_order(place.rows_of_file("copies.lines"), lanes=LANES, count=count)
    assert_partitions_hold_each_once(place.rows_by_partition("copies"), lanes=LANES, count=count)
