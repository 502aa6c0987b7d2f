from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from streamkit.cli.progress import ProgressLine, rate, seconds
from streamkit.units import counted
from tests.cli.processes import COMMAND, environment


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_counts_rates_and_times_are_rounded_for_people() -> None:
    assert counted(1, "line") == "1 line"
    assert counted(27_004, "record") == "27,004 records"
    assert (rate(27_004, 0.4), rate(7, 1.0)) == ("68,000/s", "7/s")
    assert (seconds(0.4), seconds(0.004)) == ("0.4 s", "0.004 s")


def test_without_a_terminal_progress_is_printed_every_five_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    progress = ProgressLine("records produced", is_live=False, clock_s=clock)
    for clock.now_s in range(1, 11):
        progress.update(int(clock.now_s) * 100, int(clock.now_s), 20)
    progress.clear()
    assert capsys.readouterr().err.splitlines() == [
        "500 records produced, 100/s, 25 %",
        "1,000 records produced, 100/s, 50 %",
    ]


def test_on_a_terminal_one_line_is_overwritten_and_then_removed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    progress = ProgressLine("records produced", is_live=True, clock_s=clock)
    clock.now_s = 1.0
    progress.update(1_000, 1, None)
    clock.now_s = 1.1
    progress.update(1_100, 1, None)
    clock.now_s = 2.0
    progress.update(9, 1, None)
    progress.clear()
    first, second = "1,000 records produced, 1,000/s", "9 records produced, 4/s"
    assert capsys.readouterr().err == (
        f"\r{first}\r{second.ljust(len(first))}\r{' ' * len(second)}\r"
    )


@pytest.mark.parametrize(("variables", "is_colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_errors_are_colored_on_a_terminal_unless_no_color_is_set(
    tmp_path: Path, variables: dict[str, str], is_colored: bool
) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "zzz"], cwd=tmp_path, stderr=theirs, env=environment(**variables), check=False
    )
    os.close(theirs)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert done.returncode == 2
    assert b"no such command 'zzz'" in shown
    assert (b"\x1b[" in shown) is is_colored
