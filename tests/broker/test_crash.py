"""Recovery of the broker after a power cut.

A killed process loses no data that the kernel has, so a kill cannot find a missing sync. Here
every write, sync and rename of a running broker is recorded. Then a broker is opened on possible
disk states after a crash between any two of these steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import pytest

from streamkit.errors import StateError
from tests.broker.recording_disk import RecordingDisk, Step, crashes
from tests.broker.running import running
from tests.broker.workload import Known, Workload, check_recovery

# Seed 43 once produced a journal of zeros that the broker could not open.
SEEDS: Final = (1, 2, 43)
SHARES: Final = (0.0, 0.2, 0.5, 0.8, 1.0)


async def record(
    root: Path, seed: int, loses_sync: Callable[[Path], bool] = lambda _: False
) -> list[Step]:
    """Run a workload on a recording disk and return all steps, including those of closing."""
    disk = RecordingDisk(root, loses_sync=loses_sync)
    async with running(root / "data", disk=disk) as broker:
        await Workload(broker, disk, Random(seed)).run(40)
    return disk.steps


async def check_crashes(tmp_path: Path, steps: list[Step], random: Random, count: int) -> int:
    """Check recovery from random crashes; return how many were checked.

    Every fourth recovery crashes once more while the broker opens.
    """
    root, left, again = (tmp_path / name for name in ("work", "left", "again"))
    points = [random.randrange(len(steps) + 1) for _ in range(count)]
    checked = 0
    for point, model in crashes(root, steps, points):
        known = Known.of(steps[:point])
        model.write_crashed_disk(left, random, random.choice(SHARES))
        if checked % 4:
            await check_recovery(left / "data", known)
        else:
            shutil.copytree(left, again)
            opening = RecordingDisk(left)
            async with running(left / "data", disk=opening):
                pass
            ((_, second),) = crashes(left, opening.steps, [random.randrange(len(opening.steps))])
            shutil.rmtree(left)
            second.write_crashed_disk(left, random, random.choice(SHARES))
            await check_recovery(left / "data", known)
            shutil.rmtree(again)
        shutil.rmtree(left)
        checked += 1
    return checked


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_broker_recovers_all_acknowledged_data_after_a_power_cut(
    tmp_path: Path, seed: int, is_deep: bool
) -> None:
    steps = await record(tmp_path / "work", seed)
    count = 4_000 if is_deep else 80
    assert await check_crashes(tmp_path, steps, Random(seed), count) == count


# Syncs that are lost here, which the test above must detect.
LOST_SYNCS: Final[dict[str, Callable[[Path], bool]]] = {
    "segments": lambda path: path.suffix == ".log",
    "the journal": lambda path: path.stem == "journal",
    "stored offsets": lambda path: path.stem == "consumer-offsets",
    "names of segments": lambda path: path.name.isdigit(),
    "names of partitions": lambda path: path.parent.name == "logs",
    "names of topics": lambda path: path.name == "logs",
    "names of journals": lambda path: path.name == "broker",
    "the data folder": lambda path: path.name in ("data", "work"),
}


@pytest.mark.parametrize("what", LOST_SYNCS)
async def test_a_missing_sync_is_detected(tmp_path: Path, what: str) -> None:
    steps = await record(tmp_path / "work", 1, LOST_SYNCS[what])
    with pytest.raises((AssertionError, StateError)):
        await check_crashes(tmp_path, steps, Random(1), 400)
