"""Files that change between two runs, or while they are followed: no row is lost or read twice."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamkit.connectors.files import Csv, Files, Text
from tests.connectors.test_files_resume import (
    read_up_to,
    reader_of,
    rest,
    rows_and_positions,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def write(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def replace(path: Path, data: bytes) -> None:
    """Give a path to a new file, as most programs and `rsync` do."""
    write(path.with_name(f"new{path.suffix}"), data)
    path.with_name(f"new{path.suffix}").rename(path)


def snapshot(rows: int, price: Callable[[int], int]) -> bytes:
    return b"".join(b"%06d,%d\n" % (row, price(row)) for row in range(rows))


OLD = snapshot(3_000, lambda row: 1)
OTHERS = {
    "as long": snapshot(3_000, lambda row: 1 + (row > 300)),
    "one row": snapshot(3_000, lambda row: 1 + (row == 1_500)),
    "longer": snapshot(3_500, lambda row: 1 + (row == 1_500)),
    "shorter": snapshot(2_000, lambda row: 1),
    "longer rows": snapshot(3_000, lambda row: 1 if row < 500 else 10),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["f.txt", "f.txt.gz"])
@pytest.mark.parametrize("change", [write, replace])
@pytest.mark.parametrize("read", [1, 1_000, 3_000])
async def test_a_new_file_that_begins_like_the_old_one_is_read_from_its_beginning(
    tmp_path: Path, other: str, name: str, change: Callable[[Path, bytes], None], read: int
) -> None:
    """A snapshot that is written each night has the same first rows as the one before."""
    path, data = tmp_path / name, OTHERS[other]
    write(path, OLD)
    source = Files(path, Text())
    positions = (await rows_and_positions(source))[read - 1][1]
    os.utime(path, ns=(1, 1))
    change(path, data)
    notes: list[str] = []
    reader = reader_of(source, notes)
    await reader.open(positions)
    chunk = await reader.next()
    await reader.close()
    assert chunk is not None
    assert chunk.values[0] == b"000000,1"
    assert "is another file now" in notes[0]
    assert await rest(source, positions) == data.splitlines()


@pytest.mark.parametrize("name", ["f.txt", "f.txt.gz"])
@pytest.mark.parametrize("read", [1, 1_000, 3_000])
async def test_a_copy_with_more_lines_is_the_same_file(
    tmp_path: Path, name: str, read: int
) -> None:
    """`rsync` replaces a log by a longer copy of it."""
    path = tmp_path / name
    write(path, OLD)
    source = Files(path, Text())
    positions = (await rows_and_positions(source))[read - 1][1]
    more = gzip.compress(b"more\n") if path.suffix == ".gz" else b"more\n"
    path.with_name("new").write_bytes(path.read_bytes() + more)
    path.with_name("new").rename(path)
    assert await rest(source, positions) == [*OLD.splitlines()[read:], b"more"]


@pytest.mark.parametrize("name", ["f.txt", "f.txt.gz"])
async def test_a_file_of_which_only_the_time_changes_is_compared_once(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    write(path, OLD)
    source = Files(path, Text())
    positions = (await rows_and_positions(source))[-1][1]
    path.touch()
    reader = reader_of(source)
    await reader.open(positions)
    assert await reader.next() is None
    noted = reader.skipped_positions()
    assert str(path.stat().st_mtime_ns) in noted[str(path)]
    assert reader.skipped_positions() == {}
    await reader.close()
    assert await rest(source, {**positions, **noted}) == []


def rotate(folder: Path) -> None:
    """Move the files as the Python handler of rotated logs does."""
    names = ["app.log", *(f"app.{number}.log" for number in range(1, 13))]
    for name, older in reversed(list(pairwise(names))):
        if (folder / name).exists():
            (folder / name).rename(folder / older)


@pytest.mark.parametrize("rotations", [1, 2, 3])
async def test_files_that_are_renamed_within_the_pattern_are_not_read_again(
    tmp_path: Path, rotations: int
) -> None:
    source = Files(tmp_path / "*.log", Text())
    positions: dict[str, str] = {}
    found: list[bytes] = []
    written = 0
    for _ in range(4):
        for _ in range(rotations):
            rotate(tmp_path)
            written += 1
            (tmp_path / "app.log").write_text(f"{written} a\n{written} b\n")
        reader = reader_of(source)
        await reader.open(positions)
        while (chunk := await reader.next()) is not None:
            found += chunk.values
            key, position = reader.position_after(chunk)
            positions[key] = position
        positions.update(reader.skipped_positions())
        await reader.close()
    expected = [f"{number} {each}" for number in range(1, written + 1) for each in "ab"]
    assert sorted(found) == sorted(each.encode() for each in expected)


@pytest.mark.parametrize("new", ["same\n", "same\nmore\n"])
@pytest.mark.parametrize("follows", [False, True])
async def test_a_new_file_with_the_id_of_a_deleted_one_is_read(
    tmp_path: Path, new: str, follows: bool
) -> None:
    """File systems use the id again, and files of one kind often begin alike."""
    (tmp_path / "a.txt").write_text("same\n")
    source = Files(tmp_path / "*.txt", Text(), follow=follows, every=0.01)
    reader = reader_of(source)
    await reader.open({})
    chunk = await reader.next()
    assert chunk is not None
    key, position = reader.position_after(chunk)
    if not follows:
        await reader.close()
        reader = reader_of(source)
    # A rename has the same effect as a deleted file whose id the next file gets. A reader that
    # follows may look at any moment, so what is not complete has a name outside of the pattern.
    (tmp_path / "a.txt").rename(tmp_path / "aside")
    (tmp_path / "aside").write_text(new)
    os.utime(tmp_path / "aside", ns=(1, 1))
    (tmp_path / "aside").rename(tmp_path / "b.txt")
    if not follows:
        await reader.open({key: position})
    with anyio.fail_after(10):
        chunk = await reader.next()
    await reader.close()
    assert chunk is not None
    assert list(chunk.values) == new.encode().splitlines()


async def test_a_followed_file_is_renamed_within_the_pattern(tmp_path: Path) -> None:
    notes: list[str] = []
    reader = reader_of(Files(tmp_path / "*.log", Text(), follow=True, every=0.01), notes)
    (tmp_path / "app.log").write_text("1\n" * 1_000)
    await reader.open({})
    found: list[bytes] = []
    read_until = partial(read_up_to, reader, found)
    await read_until(1_000)
    with (tmp_path / "app.log").open("a") as file:
        file.write("late\n")
    (tmp_path / "app.log").rename(tmp_path / "app.1.log")
    (tmp_path / "app.log").write_text("2\n")
    await read_until(1_002)
    with (tmp_path / "app.1.log").open("a") as file:
        file.write("later\n")
    await read_until(1_003)
    await reader.close()
    assert found == [b"1"] * 1_000 + [b"late", b"2", b"later"]
    assert notes == [f"{tmp_path / 'app.log'} was renamed to {tmp_path / 'app.1.log'}"]


async def test_a_renamed_file_is_read_under_its_new_path_only(tmp_path: Path) -> None:
    """The new file has no rows yet, so the position of the old one is still that of its path."""
    source = Files(tmp_path / "*.log", Text())
    path = tmp_path / "app.log"
    path.write_text("1\n")
    positions = (await rows_and_positions(source))[-1][1]
    path.rename(tmp_path / "app.1.log")
    path.touch()
    reader = reader_of(source)
    await reader.open(positions)
    assert await reader.next() is None
    positions = {**positions, **reader.skipped_positions()}
    await reader.close()
    with (tmp_path / "app.1.log").open("a") as file:
        file.write("late\n")
    assert await rest(source, positions) == [b"late"]
    (tmp_path / "app.1.log").write_text("1\n")
    path.write_text("2\n")
    assert await rest(source, positions) == [b"2"]


async def test_a_position_without_a_checksum_of_all_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("1\n2\n3\n")
    source = Files(path, Text())
    positions = (await rows_and_positions(source))[1][1]
    (key, text), *_ = positions.items()
    older = json.loads(text)
    del older["prefix"], older["modified"]
    positions = {key: json.dumps(older)}
    assert await rest(source, positions) == [b"3"]
    with path.open("a") as file:
        file.write("4\n")
    assert await rest(source, positions) == [b"3", b"4"]
    path.write_text("0\n" * 9)
    assert await rest(source, positions) == [b"0"] * 9


async def test_a_second_name_of_a_file_is_a_second_file(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("1\n")
    source = Files(tmp_path / "*.log", Text())
    positions = (await rows_and_positions(source))[-1][1]
    (tmp_path / "b.log").hardlink_to(tmp_path / "a.log")
    assert await rest(source, positions) == [b"1"]


async def test_the_last_line_of_a_file_that_is_moved_away_needs_no_line_end(tmp_path: Path) -> None:
    reader = reader_of(Files(tmp_path / "x.log", Text(), follow=True, every=0.01))
    path = tmp_path / "x.log"
    path.write_text("1\n")
    await reader.open({})
    found: list[bytes] = []
    await read_up_to(reader, found, 1)
    with path.open("a") as file:
        file.write("2")
    path.rename(tmp_path / "x.old")
    path.write_text("3\n")
    await read_up_to(reader, found, 3)
    await reader.close()
    assert found == [b"1", b"2", b"3"]


async def test_a_csv_file_with_another_order_of_columns_is_read_from_its_beginning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a,b\n" + "1,2\n" * 1_000)
    source = Files(path, Csv[Any]())
    positions = (await rows_and_positions(source))[-1][1]
    os.utime(path, ns=(1, 1))
    path.write_text("a,b\n" + "1,2\n" * 999 + "2,1\n")
    assert len(await rest(source, positions)) == 1_000
