"""The example writes the same counts as an independent computation, to every sink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "late_flights"
STREAMKIT = (sys.executable, "-m", "streamkit")


def streamkit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STREAMKIT, *arguments, "--embedded"],
        cwd=folder,
        env={**os.environ, "FLV_PROFILE_PATH": str(folder / "no-profile")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    counted = subprocess.run(
        [sys.executable, EXAMPLE / "expected.py"], capture_output=True, text=True, check=True
    )
    counts: dict[str, Any] = json.loads(counted.stdout)
    return counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("late-flights")
    streamkit(place, "produce", "flights", "--file", str(EXAMPLE / "flights.jsonl.gz"))
    return place


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    run = streamkit(folder, "run", str(EXAMPLE / "late_flights.py"), "--once", "--json")
    ended: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return ended


def test_the_end_report_has_the_counts_of_an_independent_computation(
    report: dict[str, Any], expected: dict[str, Any]
) -> None:
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert report["exit_code"] == 0
    assert stages["flights"]["taken"] == expected["flights"]
    assert stages["late"]["given"] == expected["late"]
    assert stages["late"]["dropped"] == expected["flights"] - expected["late"]


def test_the_topic_has_each_late_flight_once_with_its_carrier_as_key(
    folder: Path, report: dict[str, Any], expected: dict[str, Any]
) -> None:
    consumed = streamkit(folder, "consume", "late-flights", "-B", "-d", "-O", "json")
    records = [json.loads(line) for line in consumed.stdout.splitlines()]
    assert dict(sorted(Counter(each["key"] for each in records).items())) == dict(
        sorted(expected["late_by_carrier"].items())
    )
    assert sum(each["value"]["minutes"] for each in records) == expected["late_minutes"]
    flights = {
        (each["key"], each["value"]["flight"], each["value"]["time_hour"]) for each in records
    }
    assert len(flights) == expected["late"]
    partitions: dict[str, set[int]] = {}
    for each in records:
        partitions.setdefault(each["key"], set()).add(each["partition"])
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1


def test_the_file_has_the_same_flights_as_the_topic(
    folder: Path, report: dict[str, Any], expected: dict[str, Any]
) -> None:
    lines = (folder / "late-flights.jsonl").read_text().splitlines()
    carriers = Counter(json.loads(line)["carrier"] for line in lines)
    assert dict(carriers) == expected["late_by_carrier"]


def test_the_report_ends_with_a_command_that_shows_the_result(
    folder: Path, report: dict[str, Any], expected: dict[str, Any]
) -> None:
    command = report["look"].split()
    assert command[0] == "streamkit"
    shown = streamkit(folder, *command[1:]).stdout.splitlines()
    assert len(shown) == expected["late"]


def test_a_second_run_has_nothing_left_to_do(folder: Path, report: dict[str, Any]) -> None:
    run = streamkit(folder, "run", str(EXAMPLE / "late_flights.py"), "--once", "--json")
    again = json.loads(run.stdout.splitlines()[-1])
    assert (again["exit_code"], again["records_in"]) == (0, 0)
