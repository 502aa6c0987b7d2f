"""kill -9 at any moment: every row of a topic is in one object, once."""

from __future__ import annotations

import gzip
import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_stores.buckets import Bucket
from tests.object_stores.test_file_sink import objects_of
from tests.stop.job_environment import Place, place_in

JOB = Path(__file__).parent / "jobs" / "copying_to_objects.py"
LANES = 3
KILLS = {"s3": 4, "gs": 1, "az": 1}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        yield found


def counted(bucket: Bucket) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for data in objects_of(bucket).values():
        rows = map(json.loads, gzip.decompress(data).splitlines())
        found.update((row["lane"], row["number"]) for row in rows)
    return found


@pytest.mark.timeout(900)
def test_a_repeatedly_killed_job_writes_every_row_to_one_object_once(
    place: Place, any_bucket: Bucket, is_deep: bool
) -> None:
    kills, count = 30 if is_deep else KILLS[any_bucket.scheme], 5_000
    chosen = random.Random(kills)
    bucket = any_bucket
    variables = {"BUCKET": bucket.root, "STORE": json.dumps(bucket.plain_store)}
    for number in range(kills):
        place.produce_rows("numbers", lanes=LANES, count=count, first=number * count)
        aim = f"topic:{chosen.randint(1, LANES * count)}:{int(signal.SIGKILL)}"
        with place.job(JOB, "--commit-interval", "20ms", AIM=aim, **variables) as job:
            assert job.wait() == -signal.SIGKILL, job.words
        assert set(counted(bucket).values()) <= {1}
    rest = place.run(JOB, "--once", **variables)
    assert rest.process.returncode == 0, rest.words
    total = kills * count
    assert counted(bucket) == Counter(
        (lane, number) for lane in range(LANES) for number in range(total)
    )
