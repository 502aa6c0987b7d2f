"""The example writes every row of its table to Parquet once, also if it is killed on the way."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import dataset

from tests.postgres.fixtures import NO_POSTGRES, connected
from tests.postgres.server import PostgresServer, programs

EXAMPLES = Path(__file__).parent.parent / "examples"
EXAMPLE = EXAMPLES / "postgres_to_parquet"
EXTRACT = EXAMPLES / "csv_to_topic_to_sqlite" / "flights.csv.gz"
YEARS = 3
Counts = dict[str, list[int]]  # of each airport: flights, cancelled flights, minutes late, miles

pytestmark = pytest.mark.skipif(programs() is None, reason=NO_POSTGRES)


@pytest.fixture(scope="module", autouse=True)
def a_server_that_outlives_the_tests(request: pytest.FixtureRequest) -> None:
    # Started before the first test, so that no test seems to leave its sockets open.
    request.getfixturevalue("postgres")


def start(folder: Path, csv: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE / "run.py"), str(folder), *options],
        env={**os.environ, "FLIGHTS_CSV": str(csv)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, csv: Path = EXTRACT, *options: str) -> str:
    """Run the script to its end; return its output."""
    with start(folder, csv, *options) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def expected(csv: Path = EXTRACT) -> tuple[Counts, int]:
    """Return what the standard library counts in the file, and how many rows are corrected."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "expected.py")],
        env={**os.environ, "FLIGHTS_CSV": str(csv)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return found["airports"], found["corrected"]


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all files that are visible."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "flights").rglob("[!.]*.parquet")):
        found = dataset.dataset(path).to_table().to_pylist()
        places = {(row["origin"], str(row["date"])) for row in found}
        assert places == {(path.parts[-3], path.parts[-2])}, "a row is in the wrong folder"
        rows += found
    return rows


def counted(rows: list[dict[str, Any]]) -> Counts:
    latest: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["updated_at"]):
        latest[row["id"]] = row
    counts: Counts = {}
    for row in latest.values():
        found = counts.setdefault(row["origin"], [0, 0, 0, 0])
        delay = row["delay_minutes"]
        new = (1, delay is None, delay or 0, row["miles"])
        found[:] = [before + more for before, more in zip(found, new, strict=True)]
    return dict(sorted(counts.items()))


def records_in(output: str) -> list[int]:
    """Return how many rows each run of the job has read."""
    found = re.findall(r"^  ([\d,]+) records in, ", output, re.M)
    return [int(each.replace(",", "")) for each in found]


def remove_server(folder: Path) -> None:
    if (folder / "postgres").is_symlink():
        shutil.rmtree((folder / "postgres").resolve().parent)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder after a run, and the output of the run."""
    folder = tmp_path_factory.mktemp("postgres-to-parquet") / "data"
    try:
        yield folder, run(folder)
    finally:
        remove_server(folder)


def test_the_files_have_every_row_of_the_table_and_every_changed_row(
    finished: tuple[Path, str],
) -> None:
    folder, output = finished
    counts, corrected = expected()
    rows = rows_in(folder)
    assert counted(rows) == counts
    assert len(rows) == 12_208 + corrected
    assert len({(row["id"], row["updated_at"]) for row in rows}) == len(rows)
    assert records_in(output) == [11_280, 928 + corrected], "it read rows that had not changed"


def test_the_script_ends_with_the_counts_of_the_readme(finished: tuple[Path, str]) -> None:
    _, output = finished
    *lines, last = output.splitlines()[-5:]
    readme = (EXAMPLE / "README.md").read_text()
    assert last.startswith("12,221 rows, 12,208 flights in ")
    assert "\n".join(lines) in readme
    numbers = [[int(each.replace(",", "")) for each in line.split()[1:]] for line in lines[1:]]
    assert numbers == list(expected()[0].values())
    for line in output.splitlines():
        if line.startswith(("loaded ", "corrected ", "  source ")) or " records in" in line:
            assert line in readme


def test_rows_have_the_time_in_utc_and_the_local_date(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    (row,) = (row for row in rows_in(folder) if row["id"] == 1)
    assert row["scheduled"].isoformat() == "2013-01-01T10:15:00+00:00"
    assert (str(row["date"]), row["delay_minutes"], row["miles"]) == ("2013-01-01", 2, 1400)


def test_no_output_shows_the_password(finished: tuple[Path, str]) -> None:
    folder, output = finished
    password = (folder / "postgres" / "password").read_text()
    assert len(password) > 30
    assert password not in output


def test_a_second_run_has_nothing_left_to_do(finished: tuple[Path, str]) -> None:
    folder, first = finished
    second = run(folder)
    assert records_in(second) == [0, 0]
    assert second.splitlines()[-5:] == first.splitlines()[-5:]


def test_another_server_can_be_used(
    tmp_path: Path, postgres: PostgresServer, new_database: Callable[[], str]
) -> None:
    url = postgres.url(new_database())
    run(tmp_path / "data", EXTRACT, "--url", url)
    assert not (tmp_path / "data" / "postgres").exists()
    assert counted(rows_in(tmp_path / "data")) == expected()[0]
    with connected(url) as connection:
        assert connection.execute("SELECT count(*) FROM flights").fetchone() == (12_208,)


def test_a_missing_server_is_one_error_with_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("server_of_the_example", EXAMPLE / "server.py")
    assert spec is not None
    assert spec.loader is not None
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    monkeypatch.setattr(server, "INSTALLED", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as caught, server.postgres(tmp_path / "data"):
        pass
    assert "apt-get install postgresql" in str(caught.value)
    assert "--url" in str(caught.value)


@pytest.mark.kill
def test_a_killed_script_resumes_and_writes_every_row_once(tmp_path: Path) -> None:
    csv, folder = many_years(tmp_path / "csv"), tmp_path / "data"
    counts, corrected = expected(csv)
    total = sum(each[0] for each in counts.values())
    try:
        kill_midway(folder, csv)
        before = len(rows_in(folder))
        assert 0 < before < total, "the kill was not midway"
        output = run(folder, csv)
    finally:
        remove_server(folder)

    resumed_after = int(re.findall(r"after ([\d,]+) rows", output)[0].replace(",", ""))
    assert resumed_after >= before
    assert resumed_after + sum(records_in(output)) == total + corrected
    assert "loaded" not in output
    rows = rows_in(folder)
    assert len(rows) == total + corrected
    assert len({(row["id"], row["updated_at"]) for row in rows}) == len(rows)
    assert counted(rows) == counts
    assert not list((folder / "flights").rglob(".*")), "no file is left aside"


def kill_midway(folder: Path, csv: Path) -> None:
    """Run the script and kill it with SIGKILL when it has shown its first files."""
    with start(folder, csv, "--commit-interval", "0.05") as process:
        while not any((folder / "flights").rglob("[!.]*.parquet")):
            assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    assert "corrected" not in output


def many_years(folder: Path) -> Path:
    """Write the flights of the example once for each of many years; return the pattern."""
    folder.mkdir()
    text = gzip.decompress(EXTRACT.read_bytes())
    for year in range(2013, 2013 + YEARS):
        data = text.replace(b"\n2013,", b"\n%d," % year).replace(b"2013-", b"%d-" % year)
        (folder / f"{year}.csv.gz").write_bytes(gzip.compress(data, 1))
    return folder / "*.csv.gz"
