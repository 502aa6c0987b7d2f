"""What a power cut may leave, and what the broker makes of it.

A kill never loses what the kernel holds, so it cannot find a missing sync. Here every write,
sync and rename of a working broker is recorded, and disks that a crash may leave between any two
of them are made and opened.
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
from tests.broker.workload import Known, Workload, judge

# 43 once left a journal of nothing but zeros, which no broker would open.
SEEDS: Final = (1, 2, 43)
SHARES: Final = (0.0, 0.2, 0.5, 0.8, 1.0)


async def record(
    root: Path, seed: int, forgets: Callable[[Path], bool] = lambda _: False
) -> list[Step]:
    """Let a broker work on a recording disk and return all steps, closing included."""
    disk = RecordingDisk(root, forgets=forgets)
    async with running(root / "data", disk=disk) as broker:
        await Workload(broker, disk, Random(seed)).run(40)
    return disk.steps


async def judge_crashes(tmp_path: Path, steps: list[Step], random: Random, count: int) -> int:
    """Judge some of the disks that crashes may leave; return how many.

    One in four is crashed a second time while it is opened.
    """
    root, left, again = (tmp_path / name for name in ("work", "left", "again"))
    points = [random.randrange(len(steps) + 1) for _ in range(count)]
    judged = 0
    for point, model in crashes(root, steps, points):
        known = Known.of(steps[:point])
        model.leave(left, random, random.choice(SHARES))
        if judged % 4:
            await judge(left / "data", known)
        else:
            shutil.copytree(left, again)
            opening = RecordingDisk(left)
            async with running(left / "data", disk=opening):
                pass
            ((_, second),) = crashes(left, opening.steps, [random.randrange(len(opening.steps))])
            shutil.rmtree(left)
            second.leave(left, random, random.choice(SHARES))
            await judge(left / "data", known)
            shutil.rmtree(again)
        shutil.rmtree(left)
        judged += 1
    return judged


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_a_power_cut_leaves_opens_with_all_that_was_acknowledged(
    tmp_path: Path, seed: int, is_deep: bool
) -> None:
    steps = await record(tmp_path / "work", seed)
    count = 4_000 if is_deep else 80
    assert await judge_crashes(tmp_path, steps, Random(seed), count) == count


# What a broker may forget to sync, and the test above must notice.
FORGOTTEN: Final[dict[str, Callable[[Path], bool]]] = {
    "segments": lambda path: path.suffix == ".log",
    "the journal": lambda path: path.stem == "journal",
    "stored offsets": lambda path: path.stem == "consumer-offsets",
    "names of segments": lambda path: path.name.isdigit(),
    "names of partitions": lambda path: path.parent.name == "logs",
    "names of topics": lambda path: path.name == "logs",
    "names of journals": lambda path: path.name == "broker",
    "the data folder": lambda path: path.name in ("data", "work"),
}


@pytest.mark.parametrize("what", FORGOTTEN)
async def test_a_forgotten_sync_is_noticed(tmp_path: Path, what: str) -> None:
    steps = await record(tmp_path / "work", 1, FORGOTTEN[what])
    with pytest.raises((AssertionError, StateError)):
        await judge_crashes(tmp_path, steps, Random(1), 400)
