"""Records that fail take no memory once they are counted, put aside or retried."""

from __future__ import annotations

import sys

import pytest

from tests.stop.job_environment import Place

# By how much the second half of the records may exceed the first. The allocator keeps 10 MB more or
# less in the first half, depending on when garbage is collected, and then 4 MB at most.
GROWTH_BYTES_MAX = 12_000_000


@pytest.mark.timeout(3_600)
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_the_memory_of_a_job_that_fails_often_stays_the_same(place: Place, is_deep: bool) -> None:
    count = 10_000_000 if is_deep else 100_000
    place.produce("dead", [])
    patience_s = 3_500.0 if is_deep else 120.0
    with place.job("failing_often.py", "--once", RECORDS=str(count)) as job:
        job.process.wait(patience_s)
    assert job.process.returncode == 0, job.words
    stages = {each["name"]: each for each in job.ended["stages"]}
    hundredth = count // 100
    assert stages["skipped"]["skipped"] == hundredth
    assert stages["put-aside"]["dead_lettered"] == hundredth
    assert stages["retried"]["handled"] == stages["retried"]["taken"] == 98 * hundredth
    assert stages["awaited"]["dead_lettered"] == hundredth
    assert stages["measured"]["handled"] == 97 * hundredth
    assert len(place.values("dead")) == 2 * hundredth
    sizes = [int(line) for line in (place.folder / "resident").read_text().split()]
    assert len(sizes) == 19
    assert max(sizes[10:]) - max(sizes[:10]) < GROWTH_BYTES_MAX, sizes
