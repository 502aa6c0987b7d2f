"""The example writes every flight of its file to SQLite once, also if it is killed on the way."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "csv_to_topic_to_sqlite"
YEARS = 16
Counts = dict[str, list[int]]  # of each airport: flights, cancelled flights, minutes late, miles


def variables(csv: str) -> dict[str, str]:
    return {**os.environ, "FLIGHTS_CSV": csv}


def start(folder: Path, csv: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLE / "run.py"), str(folder), *options]
    return subprocess.Popen(
        command, env=variables(csv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path, csv: str = str(EXAMPLE / "flights.csv.gz")) -> str:
    """Run the script to its end; return its output."""
    with start(folder, csv) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def killed(folder: Path, csv: str, *, when: Callable[[Path], bool]) -> str:
    """Run the script and kill it with SIGKILL at a moment; return its output."""
    with start(folder, csv, "--commit-interval", "0.05") as process:
        while not when(folder):
            assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    return output


def expected(csv: str = str(EXAMPLE / "flights.csv.gz")) -> Counts:
    """Return what the standard library counts in the files."""
    command = [sys.executable, str(EXAMPLE / "expected.py")]
    done = subprocess.run(command, env=variables(csv), capture_output=True, text=True, check=True)
    counts: Counts = json.loads(done.stdout)
    return counts


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "flights.db", timeout=30)) as database:
        return database.execute(query).fetchall()


def in_database(folder: Path) -> Counts:
    found = rows(
        folder,
        "SELECT origin, count(*), count(*) - count(delay_minutes), sum(delay_minutes), sum(miles) "
        "FROM departures GROUP BY origin",
    )
    return {origin: list(counts) for origin, *counts in found}


def topic_has_records(folder: Path) -> bool:
    """Return whether a part of the flights is in the topic."""
    logs = (folder / ".streamkit" / "broker" / "logs").rglob("*")
    return sum(each.stat().st_size for each in logs if each.is_file()) > 1_000_000


def table_has_rows(folder: Path) -> bool:
    if not (folder / "flights.db").exists():
        return False
    if not rows(folder, "SELECT 1 FROM sqlite_master WHERE name = 'departures'"):
        return False
    return bool(rows(folder, "SELECT 1 FROM departures LIMIT 1"))


def many_files(folder: Path) -> str:
    """Write the flights of the example once for each of many years; return the pattern."""
    folder.mkdir()
    text = gzip.decompress((EXAMPLE / "flights.csv.gz").read_bytes())
    for year in range(2013, 2013 + YEARS):
        data = text.replace(b"2013-", b"%d-" % year)
        (folder / f"{year}.csv.gz").write_bytes(gzip.compress(data, 1))
    return str(folder / "*.csv.gz")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after a run, and the output of the run."""
    folder = tmp_path_factory.mktemp("csv-to-sqlite") / "data"
    return folder, run(folder)


def test_the_database_has_every_flight_of_the_file(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    assert in_database(folder) == expected()
    assert sum(counts[0] for counts in expected().values()) == 12_208


def test_the_script_ends_with_the_counts_of_the_readme(finished: tuple[Path, str]) -> None:
    _, output = finished
    *lines, last = output.splitlines()[-5:]
    assert last.startswith("12,208 rows in ")
    assert "\n".join(lines) in (EXAMPLE / "README.md").read_text()
    numbers = [[int(each.replace(",", "")) for each in line.split()[1:]] for line in lines[1:]]
    assert numbers == list(expected().values())


def test_departures_have_the_time_in_utc(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    assert rows(
        folder,
        "SELECT scheduled, dest, delay_minutes, miles FROM departures "
        "WHERE carrier = 'UA' AND flight = 1545 AND scheduled < '2013-01-02'",
    ) == [("2013-01-01 10:15:00.000000+00:00", "IAH", 2, 1400)]


def test_a_second_run_has_nothing_left_to_do(finished: tuple[Path, str]) -> None:
    folder, first = finished
    second = run(folder)
    assert second.count("  0 records in, 0 out") == 2
    assert second.splitlines()[-5:] == first.splitlines()[-5:]


@pytest.mark.kill
def test_a_killed_script_resumes_and_writes_every_flight_once(tmp_path: Path) -> None:
    csv, folder = many_files(tmp_path / "csv"), tmp_path / "data"
    counts = expected(csv)
    total = sum(each[0] for each in counts.values())

    assert "flights-to-sqlite" not in killed(folder, csv, when=topic_has_records)
    killed(folder, csv, when=table_has_rows)
    ((before,),) = rows(folder, "SELECT count(*) FROM departures")
    assert 0 < before < total, "the kill was not midway"

    last = run(folder, csv)
    assert re.findall(r"([\d,]+) records in", last)[0] == "0", "the first job had ended"
    assert sum(committed_offsets(last)) >= before
    assert in_database(folder) == counts


def committed_offsets(output: str) -> list[int]:
    """Return where the second job resumes in each partition, from its start report."""
    (offsets,) = re.findall(r"topic flights from committed offsets \((.*)\)", output)
    return [int(each) for each in re.findall(r": (\d+)", offsets)]
