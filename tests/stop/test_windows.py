"""What a run, a stop and the end of a run do with open windows, in real processes."""

from __future__ import annotations

import signal

import msgspec

from tests.stop.job_environment import Place
from tests.stop.jobs.windowing import Summed
from tests.stop.running import Job

COUNT = 300
_decode = msgspec.json.Decoder(Summed).decode


def rows_in(place: Place, stream: str = "sums") -> int:
    """Sum the rows of the windows that were written."""
    return sum(_decode(value).rows for value in place.values(f"windowing-{stream}"))


def waiting(job: Job) -> int:
    found: int = job.ended["time"]["waiting"]
    return found


def test_open_windows_go_on_with_the_next_run_and_drain_completes_them(place: Place) -> None:
    place.produce_rows("numbers", lanes=2, count=COUNT)
    first = place.run("windowing.py", "--once")
    assert first.process.returncode == 0, first.words
    assert 0 < rows_in(place) < 2 * COUNT
    assert waiting(first) > 0

    place.produce_rows("numbers", lanes=2, count=COUNT, first=COUNT)
    second = place.run("windowing.py", "--once", "--drain")
    assert second.process.returncode == 0, second.words
    late = len(place.values("windowing-late"))
    assert rows_in(place) + late == 4 * COUNT
    assert waiting(second) == 0

    third = place.run("windowing.py", "--once", "--drain")
    assert third.process.returncode == 0, third.words
    assert rows_in(place) + late == 4 * COUNT


def test_a_stop_keeps_windows_open_unless_the_run_drains(place: Place) -> None:
    place.produce_rows("numbers", lanes=2, count=COUNT)
    written = []
    for options in ((), ("--drain",)):
        with place.job("windowing.py", *options) as job:
            job.wait_for(lambda event: event["event"] == "progress" and not event["lag"])
            job.signal(signal.SIGTERM)
            assert job.wait() == 0, job.words
        written.append(rows_in(place))
    late = len(place.values("windowing-late"))
    assert written[0] + late < 2 * COUNT
    assert written[1] + late == 2 * COUNT


def test_records_that_come_while_a_function_blocks_are_not_late(place: Place) -> None:
    """The function takes longer than ``idle``, and the records of the other partition wait."""
    place.produce_rows("numbers", lanes=2, count=1)
    with place.job("blocking.py") as job:
        job.wait_for_records(2)
        place.produce_lane("numbers", 0, [10])
        job.wait_for_error("blocked")
        place.produce_lane("numbers", 1, range(1, 9))
        job.wait_for_records(11)
        job.signal(signal.SIGTERM)
        assert job.wait() == 0, job.words
    (stage,) = (each for each in job.ended["stages"] if each["name"] == "counts")
    assert (stage["taken"], stage["late"]) == (11, 0)
