"""kill -9 at any moment: no record is lost, and repeated records keep their order."""

from __future__ import annotations

import random
import signal

import msgspec
import pytest

from tests.stop.job_environment import (
    Place,
    assert_each_at_least_once,
    assert_first_occurrences_ascend,
)

LANES = 3
RECORDS_PER_RUN = 12_000


def aims(count: int) -> list[str]:
    """Choose where the process is killed; the seed is fixed, so a failure can be repeated."""
    chosen = random.Random(count)
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += [
            f"stage:{chosen.randint(1, RECORDS_PER_RUN)}",
            f"flush:{chosen.randint(1, 4)}",
            f"write:{chosen.randint(1, 6)}",
            "commit",
            f"stage:{chosen.randint(1, RECORDS_PER_RUN)}",
        ]
    return drawn[:count]


def kill_once(place: Place, aim: str) -> None:
    options = ("--commit-interval", "50ms")
    is_outside = aim == "commit"
    aim = f"stage:{RECORDS_PER_RUN}:0" if is_outside else f"{aim}:{int(signal.SIGKILL)}"
    with place.job("copying.py", *options, AIM=aim) as job:
        if is_outside:  # close to a commit, because there is one every 50 ms
            job.wait_for_error("at its aim")
            job.signal(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL, job.words


@pytest.mark.timeout(900)
def test_a_repeatedly_killed_job_loses_nothing_and_keeps_the_order(
    place: Place, is_deep: bool
) -> None:
    times = 50 if is_deep else 5  # a kill of each kind
    count = times * 20_000 // LANES
    place.produce_rows("numbers", lanes=LANES, count=count)
    for aim in aims(times):
        kill_once(place, aim)
    rest = place.run("copying.py", "--once")
    assert rest.process.returncode == 0, rest.words
    assert rest.ended["commits"] >= 1

    written = place.rows_of_file("copies.jsonl")
    doubled = assert_each_at_least_once(written, lanes=LANES, count=count)
    assert_first_occurrences_ascend(written)
    partitions = place.rows_by_partition("copies")
    rows = [row for partition in partitions.values() for row in partition]
    assert_each_at_least_once(rows, lanes=LANES, count=count)
    for partition in partitions.values():
        assert_first_occurrences_ascend(partition)
    assert doubled, "without a repeated record, no kill has interrupted any work"

    nothing = place.run("copying.py", "--once")
    assert nothing.process.returncode == 0, nothing.words
    assert nothing.ended["records_in"] == 0


@pytest.mark.timeout(900)
def test_the_state_of_a_repeatedly_killed_job_counts_each_record_once(
    place: Place, is_deep: bool
) -> None:
    times = 50 if is_deep else 4
    count = times * 20_000 // LANES
    place.produce_rows("numbers", lanes=LANES, count=count)
    chosen = random.Random(times)
    for _ in range(times):
        aim = f"stage:{chosen.randint(1, RECORDS_PER_RUN)}:{int(signal.SIGKILL)}"
        with place.job("counting.py", "--commit-interval", "50ms", AIM=aim) as job:
            assert job.wait() == -signal.SIGKILL, job.words
    rest = place.run("counting.py", "--once")
    assert rest.process.returncode == 0, rest.words
    decode = msgspec.json.Decoder(tuple[int, int, int]).decode
    counts = [decode(value) for chunk in place.chunks("counts") for value in chunk.values]
    assert {(lane, number) for lane, number, _ in counts} == {
        (lane, number) for lane in range(LANES) for number in range(count)
    }
    # A record that was written twice was counted the same both times.
    assert all(rows == number + 1 for _, number, rows in counts)
    assert len(counts) > LANES * count, "no kill has interrupted any work"


@pytest.mark.timeout(900)
def test_windows_and_joins_of_a_repeatedly_killed_job_are_those_of_a_calm_run(
    place: Place, is_deep: bool
) -> None:
    times = 50 if is_deep else 6
    place.produce_rows("numbers", lanes=LANES, count=times * 3_000 // LANES)
    chosen = random.Random(times)
    for _ in range(times):
        aim = f"stage:{chosen.randint(1_000, 4_000)}:{int(signal.SIGKILL)}"
        with place.job("windowing.py", "--commit-interval", "50ms", AIM=aim) as job:
            job.wait()
    for name in ("windowing", "calm"):
        rest = place.run("windowing.py", "--once", "--drain", APP_NAME=name)
        assert rest.process.returncode == 0, rest.words
    repeated = 0
    for stream in ("sums", "overlapping", "sessions", "again", "pairs", "late"):
        calm = place.values(f"calm-{stream}")
        killed = place.values(f"windowing-{stream}")
        assert calm, stream
        assert len(set(calm)) == len(calm), stream
        assert set(killed) == set(calm), stream
        repeated += len(killed) - len(calm)
    assert repeated, "no kill has interrupted any work"
