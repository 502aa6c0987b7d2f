"""A user function fails: the error, what is committed, and how the next run resumes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from streamkit.limits import CHUNK_RECORDS_MAX
from tests.stop.job_environment import (
    Place,
    Row,
    assert_each_once_in_order,
    assert_partitions_hold_each_once,
)
from tests.stop.running import JOBS, Event, Job

LANES = 2
COUNT = 2 * CHUNK_RECORDS_MAX + 100
STAGES = {"source": "numbers", "stage": "checked", "topic": "copies", "file": "copies-file"}
STAGES |= {"each": "each", "batches": "batches"}
FILES = ("copies.jsonl", "each.lines", "batches.lines")
EDGES = [0, 1, CHUNK_RECORDS_MAX - 1, CHUNK_RECORDS_MAX, COUNT - 1]
DEEP_EDGES = (1, COUNT - 1)
AT_EDGES = [
    pytest.param(edge, marks=[pytest.mark.deep] if edge in DEEP_EDGES else []) for edge in EDGES
]


def line_of(app: str, text: str) -> str:
    """Return ``file:line`` of the only line with a text."""
    path: Path = JOBS / app
    (number,) = [at for at, line in enumerate(path.read_text().splitlines(), 1) if text in line]
    return f"{path}:{number}"


def counts_of(ended: Event) -> dict[str, Event]:
    return {stage["name"]: stage for stage in ended["stages"]}


def assert_counts_add_up(job: Job) -> None:
    counts = counts_of(job.ended)
    for stage in counts.values():
        assert stage["taken"] == stage["handled"] + stage["dropped"] + stage["skipped"], stage
    assert counts["checked"]["taken"] == counts["numbers"]["given"]
    for sink in counts.keys() - {"numbers", "checked"}:
        assert counts[sink]["taken"] == counts["checked"]["given"], sink


def assert_nothing_is_lost_or_repeated(place: Place, *, except_for: set[str] | None = None) -> None:
    for name in FILES:
        if name not in (except_for or set()):
            assert_each_once_in_order(place.rows_of_file(name), lanes=LANES, count=COUNT)
    assert_partitions_hold_each_once(place.rows_by_partition("copies"), lanes=LANES, count=COUNT)


def test_the_error_has_stage_record_value_and_line_of_the_user_code(place: Place) -> None:
    place.produce_rows("numbers", lanes=LANES, count=COUNT)
    job = place.run("failing.py", BAD="1-777")
    assert job.process.returncode == 1, job.words
    error = job.ended["error"]
    assert "stage 'checked' failed on numbers-1 offset 777: ValueError: cannot stand 777" in error
    assert f"at: {line_of('failing.py', 'raise ValueError')}" in error
    assert "value: Numbered(lane=1, number=777)" in error
    assert "key: b'1-1'" in error


@pytest.mark.parametrize("number", AT_EDGES)
def test_after_a_failing_stage_is_fixed_nothing_is_repeated_or_lost(
    place: Place, number: int
) -> None:
    place.produce_rows("numbers", lanes=LANES, count=COUNT)
    job = place.run("failing.py", BAD=f"0-{number}")
    assert job.process.returncode == 1, job.words
    assert_counts_add_up(job)
    assert job.ended["unacknowledged"] == {}
    rest = place.run("failing.py", "--once")
    assert rest.process.returncode == 0, rest.words
    taken = [counts_of(run.ended)["numbers"]["taken"] for run in (job, rest)]
    assert sum(taken) == LANES * COUNT
    assert_nothing_is_lost_or_repeated(place)


@pytest.mark.parametrize("where", ["source", "topic", "file"])
def test_a_failure_in_any_function_before_a_sink_loses_nothing(place: Place, where: str) -> None:
    place.produce_rows("numbers", lanes=LANES, count=COUNT)
    job = place.run("failing.py", BAD="0-5000", BAD_IN=where)
    assert job.process.returncode == 1, job.words
    assert f"stage {STAGES[where]!r} failed on numbers-0 offset 5000" in job.ended["error"]
    assert_counts_add_up(job)
    rest = place.run("failing.py", "--once")
    assert rest.process.returncode == 0, rest.words
    assert_nothing_is_lost_or_repeated(place)


@pytest.mark.parametrize("number", AT_EDGES)
def test_records_before_a_failure_of_a_sink_function_are_not_repeated(
    place: Place, number: int
) -> None:
    place.produce_rows("numbers", lanes=LANES, count=COUNT)
    job = place.run("failing.py", BAD=f"0-{number}", BAD_IN="each")
    assert job.process.returncode == 1, job.words
    assert f"stage 'each' failed on numbers-0 offset {number}" in job.ended["error"]
    assert_counts_add_up(job)
    rest = place.run("failing.py", "--once")
    assert rest.process.returncode == 0, rest.words
    taken = [counts_of(run.ended)["numbers"]["taken"] for run in (job, rest)]
    assert sum(taken) == LANES * COUNT
    assert_nothing_is_lost_or_repeated(place)


def test_only_a_failed_batch_is_repeated(place: Place) -> None:
    place.produce_rows("numbers", lanes=LANES, count=COUNT)
    job = place.run("failing.py", BAD="0-5000", BAD_IN="batches")
    assert job.process.returncode == 1, job.words
    assert "stage 'batches' failed on numbers-0 offset" in job.ended["error"]
    assert "cannot stand 5000" in job.ended["error"]
    rest = place.run("failing.py", "--once")
    assert rest.process.returncode == 0, rest.words
    assert_nothing_is_lost_or_repeated(place, except_for={"each.lines"})
    # `each` comes before `batches`, so it has received the chunk when `batches` fails.
    taken = Counter(place.rows_of_file("each.lines"))
    assert len(taken) == LANES * COUNT
    assert all(row >= (0, 4900) and row[0] == 0 for row, times in taken.items() if times > 1)


def test_several_bad_records_in_one_chunk_fail_one_after_another(place: Place) -> None:
    place.produce_rows("numbers", lanes=LANES, count=COUNT)
    left = ["0-10", "0-11", "0-200"]
    while left:
        job = place.run("failing.py", BAD=",".join(left))
        assert job.process.returncode == 1, job.words
        assert f"cannot stand {left.pop(0).removeprefix('0-')}" in job.ended["error"]
    rest = place.run("failing.py", "--once")
    assert rest.process.returncode == 0, rest.words
    assert_nothing_is_lost_or_repeated(place)


@pytest.mark.parametrize("where", list(STAGES))
def test_bad_records_can_be_skipped_and_are_counted_and_reported(place: Place, where: str) -> None:
    place.produce_rows("numbers", lanes=LANES, count=COUNT)
    bad = [*EDGES, 17, 18]
    lanes_and_numbers = ",".join(f"0-{number}" for number in bad)
    job = place.run("failing.py", "--once", BAD=lanes_and_numbers, BAD_IN=where, POLICY="skip")
    assert job.process.returncode == 0, job.words
    assert job.ended["skipped"] == len(bad)
    assert counts_of(job.ended)[STAGES[where]]["skipped"] == len(bad)
    assert_counts_add_up(job)
    assert any(f"failed on numbers-0 offset {EDGES[0]}" in note for note in job.notes)
    left_out = {(0, number) for number in bad}
    everything = {(lane, number) for lane in range(LANES) for number in range(COUNT)}
    for sink, rows in sinks_of(place).items():
        missing = left_out if where in ("source", "stage", sink) else set()
        assert Counter(rows) == Counter(everything - missing), sink


def sinks_of(place: Place) -> dict[str, list[Row]]:
    partitions = place.rows_by_partition("copies")
    return {
        "topic": [row for rows in partitions.values() for row in rows],
        "file": place.rows_of_file("copies.jsonl"),
        "each": place.rows_of_file("each.lines"),
        "batches": place.rows_of_file("batches.lines"),
    }


def test_undecodable_bytes_make_the_source_fail_and_are_shown(place: Place) -> None:
    place.produce("numbers", [b'{"lane":0,"number":0}', b"not JSON"])
    job = place.run("failing.py")
    assert job.process.returncode == 1, job.words
    error = job.ended["error"]
    assert "stage 'numbers' failed on numbers-0 offset 1" in error
    assert "value: b'not JSON'" in error


def test_undecodable_bytes_can_be_skipped(place: Place) -> None:
    place.produce("numbers", [b"\xff", b'{"lane":0,"number":0}', b"{}"])
    job = place.run("failing.py", "--once", POLICY="skip")
    assert job.process.returncode == 0, job.words
    assert counts_of(job.ended)["numbers"]["skipped"] == 2
    assert place.rows_of_file("copies.jsonl") == [(0, 0)]


def test_a_chunk_of_one_bad_record_can_be_skipped(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=1)
    job = place.run("failing.py", "--once", BAD="0-0", POLICY="skip")
    assert job.process.returncode == 0, job.words
    assert job.ended["skipped"] == 1
    nothing = place.run("failing.py", "--once")
    assert nothing.ended["records_in"] == 0
