"""Files that are read in several runs: each row once, also inside a file, and while they change."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamkit.connectors import Chunk, ConnectorEnv, SourceReader
from streamkit.connectors.files import Csv, Files, JsonArray, Jsonl, Text
from streamkit.env import SystemClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def reader_of(source: Files[Any], notes: list[str] | None = None, **env: Any) -> SourceReader:
    kept: list[str] = [] if notes is None else notes
    unused = Path("unused")
    return source.reader(
        ConnectorEnv("rows", "test", unused, SystemClock(), note=kept.append, **env)
    )


def parts_of(chunk: Chunk, rows: int) -> Iterator[Chunk]:
    for start in range(0, len(chunk), rows):
        yield chunk.slice(start, start + rows)


async def rows_and_positions(source: Files[Any]) -> list[tuple[Any, dict[str, str]]]:
    """Read all rows one by one; return each with the positions after it."""
    found = []
    positions: dict[str, str] = {}
    reader = reader_of(source)
    await reader.open({})
    while (chunk := await reader.next()) is not None:
        for part in parts_of(chunk, 1):
            key, position = reader.position_after(part)
            positions[key] = position
            found.append((part.values[0], dict(positions)))
    await reader.close()
    return found


async def rest(source: Files[Any], positions: dict[str, str], **env: Any) -> list[Any]:
    found: list[Any] = []
    reader = reader_of(source, **env)
    await reader.open(positions)
    while (chunk := await reader.next()) is not None:
        found += chunk.values
    await reader.close()
    return found


async def read_up_to(reader: SourceReader, found: list[bytes], count: int) -> None:
    """Read until ``found`` has ``count`` values."""
    with anyio.fail_after(10):
        while len(found) < count:
            chunk = await reader.next()
            assert chunk is not None
            reader.position_after(chunk)
            found.extend(chunk.values)


QUOTED = 'a,b\r\n1,"x\r\ny"\r\n\r\n2,\xe4\r\n3,"""q"""\r\n4,end'
SMALL = [
    ("f.csv", QUOTED.encode(), Csv[Any]()),
    ("f.csv.gz", gzip.compress(QUOTED.encode()), Csv[Any]()),
    ("g.csv", QUOTED.encode("latin-1"), Csv[Any](encoding="latin-1")),
    ("h.csv", b"\xef\xbb\xbf1;2\n3;4\n5;6\n", Csv[Any](header=["x", "y"], delimiter=";")),
    ("f.jsonl", b"1\n\n2\r\n3\n\n4", Jsonl[Any]()),
    ("f.txt", b"\xef\xbb\xbfa\n\nb\n", Text()),
    ("f.json", b' [1, {"a": 2}, 3] ', JsonArray[Any]()),
]


@pytest.mark.parametrize(("name", "data", "form"), SMALL, ids=[each[0] for each in SMALL])
async def test_reading_resumes_after_every_row(
    tmp_path: Path, name: str, data: bytes, form: Any
) -> None:
    (tmp_path / f"1-{name}").write_bytes(data)
    (tmp_path / f"2-{name}").write_bytes(data)
    source = Files(tmp_path / f"*{name}", form)
    read = await rows_and_positions(source)
    assert len(read) >= 6
    for number, (_, positions) in enumerate(read, 1):
        assert await rest(source, positions) == [row for row, _ in read[number:]]


async def test_reading_resumes_in_a_file_of_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    lines = [f'{number},"{"x" * (number % 50)}"' for number in range(60_000)]
    path.write_text("\n".join(["a,b", *lines]) + "\n")
    source = Files(path, Csv[Any]())
    reader = reader_of(source)
    await reader.open({})
    done = 0
    while (chunk := await reader.next()) is not None:
        for part in parts_of(chunk, 777):
            done += len(part)
            key, position = reader.position_after(part)
            if done % 5 == 0:
                again = await rest(source, {key: position})
                assert len(again) == 60_000 - done
                assert not again or again[0][1][0] == str(done)
    await reader.close()
    assert done == 60_000


async def test_a_cancelled_call_loses_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("".join(f"{number}\n" for number in range(200_000)))
    reader = reader_of(Files(path, Text()))
    await reader.open({})
    found: list[bytes] = []
    is_over = False
    while not is_over:
        with anyio.move_on_after(0.0002):
            chunk = await reader.next()
            is_over = chunk is None
            found += () if chunk is None else chunk.values
    await reader.close()
    assert found == [str(number).encode() for number in range(200_000)]


async def test_a_file_that_grew_is_read_from_its_old_end(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a\n1\n2\n")
    positions = (await rows_and_positions(Files(path, Csv[Any]())))[-1][1]
    assert await rest(Files(path, Csv[Any]()), positions) == []
    with path.open("a") as file:
        file.write("3\n")
    (tmp_path / "e.csv").write_text("a\n0\n")
    rows = await rest(Files(tmp_path / "*.csv", Csv[Any]()), positions)
    assert [row for _, row in rows] == [["0"], ["3"]]


async def test_another_file_with_the_same_name_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("a\nb\n")
    source = Files(path, Text())
    positions = (await rows_and_positions(source))[-1][1]
    path.write_text("x\ny\nz\n")
    notes: list[str] = []
    reader = reader_of(source, notes)
    await reader.open(positions)
    chunk = await reader.next()
    assert chunk is not None
    assert list(chunk.values) == [b"x", b"y", b"z"]
    assert "is another file now" in notes[0]
    await reader.close()


async def test_after_a_rotation_the_rest_of_the_old_file_is_read_first(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("1\n2\n")
    source = Files(path, Text(), follow=True)
    positions = (await rows_and_positions(Files(path, Text())))[0][1]
    path.rename(tmp_path / "app.log.1")
    path.write_text("3\n")
    assert await rest(source, positions, until_end=True) == [b"2", b"3"]


async def test_a_followed_file_gives_what_is_appended_and_new_files(tmp_path: Path) -> None:
    reader = reader_of(Files(tmp_path / "*.log", Text(), follow=True, every=0.01))
    await reader.open({})
    found: list[bytes] = []
    read_until = partial(read_up_to, reader, found)
    path = tmp_path / "a.log"
    with path.open("w", buffering=1) as file:
        file.write("1\n2")
        await read_until(1)
        file.write("2\n3\n")
        await read_until(3)
    (tmp_path / "b.log").write_text("4\n")
    await read_until(4)
    path.rename(tmp_path / "a.log.1")
    path.write_text("5\n")
    await read_until(5)
    with path.open("w") as file:  # truncated
        file.write("6\n")
    await read_until(6)
    await reader.close()
    assert found == [b"1", b"22", b"3", b"4", b"5", b"6"]


@pytest.mark.parametrize("filler", ["y", "y" * 300_000])
async def test_a_followed_csv_row_waits_for_its_last_line(tmp_path: Path, filler: str) -> None:
    path = tmp_path / "f.csv"
    reader = reader_of(Files(path, Csv[Any](quotechar="'"), follow=True, every=0.01))
    await reader.open({})
    found: list[Any] = []
    with path.open("w", buffering=1) as file, anyio.fail_after(20):
        file.write(f"a,b\n1,x\n2,'{filler[:60_000]}\n{filler[:60_000]}\n")
        while len(found) < 1:
            chunk = await reader.next()
            assert chunk is not None
            found += chunk.values
        file.write("z'\n3,w\n")
        while len(found) < 3:
            chunk = await reader.next()
            assert chunk is not None
            found += chunk.values
    await reader.close()
    rows = [row for _, row in found]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[1][1] == f"{filler[:60_000]}\n{filler[:60_000]}\nz"


@pytest.mark.parametrize("form", [Csv[Any](), Jsonl[Any](), Text()])
async def test_a_chunk_of_long_rows_has_few_of_them(tmp_path: Path, form: Any) -> None:
    path = tmp_path / "long"
    path.write_text("a\n" + f'"{"x" * 60_000}"\n' * 500)
    reader = reader_of(Files(path, form))
    await reader.open({})
    lengths = []
    while (chunk := await reader.next()) is not None:
        lengths.append(len(chunk))
    await reader.close()
    assert sum(lengths) >= 500
    assert max(lengths[1:]) <= 20


async def test_closing_is_allowed_in_every_state(tmp_path: Path) -> None:
    source = Files(tmp_path / "none", Text(), follow=True)
    reader = reader_of(source)
    await reader.close()
    await reader.close()
    reader = reader_of(source)
    await reader.open({})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.next)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await reader.close()
