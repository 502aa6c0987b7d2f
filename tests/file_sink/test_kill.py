"""kill -9 at any moment: every row of a topic is in the files exactly once, and none is half."""

from __future__ import annotations

import csv
import gzip
import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.file_sink.reading import shown
from tests.small_disk import fill
from tests.stop.job_environment import Place, place_in
from tests.stop.running import Job, run_to_end

JOB = Path(__file__).parent / "jobs" / "copying_to_files.py"
LANES = 3


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        yield found


def rows_of(path: Path) -> list[tuple[int, int]]:
    """Return the lanes and numbers in a file; fail if it is not whole."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", newline="") as file:
            return [(int(row["lane"]), int(row["number"])) for row in csv.DictReader(file)]
    if path.suffix == ".parquet":
        return [(row["lane"], row["number"]) for row in parquet.read_table(path).to_pylist()]
    text = path.read_text()
    rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [(row["lane"], row["number"]) for row in rows]


def counted(folder: Path) -> Counter[tuple[int, int]]:
    return Counter(row for path in shown(folder) for row in rows_of(path))


@pytest.mark.timeout(900)
def test_a_repeatedly_killed_job_writes_every_row_to_one_file_once(
    place: Place, tmp_path: Path, is_deep: bool
) -> None:
    kills, count, out = 60 if is_deep else 6, 2_000, tmp_path / "out"
    chosen = random.Random(kills)
    for number in range(kills):
        # Enough new rows for the aim, even if all that came before are committed.
        place.produce_rows("numbers", lanes=LANES, count=count, first=number * count)
        aim = f"topic:{chosen.randint(1, LANES * count)}:{int(signal.SIGKILL)}"
        with place.job(JOB, "--commit-interval", "20ms", AIM=aim, OUT=str(out)) as job:
            assert job.wait() == -signal.SIGKILL, job.words
        for path in shown(out):  # what is visible is whole, also right after a kill
            rows_of(path)
    rest = place.run(JOB, "--once", OUT=str(out))
    assert rest.process.returncode == 0, rest.words

    total = kills * count
    expected = Counter((lane, number) for lane in range(LANES) for number in range(total))
    for kind in ("csv", "jsonl", "json", "parquet"):
        assert counted(out / kind) == expected, kind
    assert max(len(rows_of(path)) for path in shown(out / "csv")) == 700
    assert not [path for path in out.rglob(".*")], "no file is left aside"
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".spool", ".aside")]

    nothing = place.run(JOB, "--once", OUT=str(out))
    assert nothing.process.returncode == 0, nothing.words
    assert counted(out / "csv") == expected


@pytest.mark.parametrize("full", ["out", "data"])
def test_a_job_waits_while_the_disk_is_full(
    place: Place, tmp_path: Path, small_disk: Path, full: str
) -> None:
    count = 3_000
    place.produce_rows("numbers", lanes=1, count=count)
    out = (small_disk if full == "out" else tmp_path) / "out"
    data = (small_disk if full == "data" else tmp_path) / "own"
    options = ("--cluster", place.address, "--data-dir", str(data))
    with Job(JOB, tmp_path, *options, "--commit-interval", "50ms", OUT=str(out)) as job:
        job.wait_for(lambda event: event.get("commits"))
        fill(small_disk / "used")
        place.produce_rows("numbers", lanes=1, count=count, first=count)
        job.wait_for_note("No space left")
        (small_disk / "used").unlink()
        job.signal(signal.SIGTERM)
        assert job.wait() == 0, job.words
    rest = run_to_end(JOB, tmp_path, *options, "--once", OUT=str(out))
    assert rest.process.returncode == 0, rest.words
    for kind in ("csv", "jsonl", "json", "parquet"):
        assert counted(out / kind) == Counter((0, number) for number in range(2 * count)), kind
