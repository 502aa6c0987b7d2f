"""Generator sources, sink functions, sink classes and files."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamkit.connectors.files import JsonLines
from streamkit.dataflow.contracts import ConnectorEnv, WriteFailed
from streamkit.dataflow.endpoints import FunctionSink, FunctionSource
from streamkit.dataflow.functions import resume_type_of
from streamkit.env import SystemClock
from streamkit.errors import ConfigError, StageError, StreamKitError
from streamkit.record import Chunk
from streamkit.runtime.function_sinks import FunctionWriter, ObjectWriter
from streamkit.runtime.function_source import FunctionReader

# The engine runs on asyncio only, so its readers and writers are not tested with trio.
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


ENV = ConnectorEnv("file", "test", Path("unused"), SystemClock())


def chunk_of(*values: Any) -> Chunk:
    count = len(values)
    return Chunk(list(values), [None] * count, [0] * count, range(count), "topic", 0)


def never() -> bool:
    return False


def reader_of(function: Callable[..., Any]) -> FunctionReader:
    return FunctionReader("mine", FunctionSource(function, resume_type_of(function)), SystemClock())


async def gather(reader: FunctionReader, values: list[Any]) -> None:
    while (chunk := await reader.next()) is not None:
        values.extend(chunk.values)


async def everything(reader: FunctionReader) -> list[Any]:
    values: list[Any] = []
    await gather(reader, values)
    return values


async def test_a_generator_is_read_in_order_to_its_end() -> None:
    reader = reader_of(lambda: iter(range(10_000)))
    facts = await reader.open({})
    assert not facts.is_replayable
    assert "cannot be replayed" in facts.description
    assert await everything(reader) == list(range(10_000))
    await reader.close()


async def test_an_async_generator_is_read_in_order_to_its_end() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(100):
            await anyio.lowlevel.checkpoint()
            yield number

    reader = reader_of(numbers)
    await reader.open({})
    assert await everything(reader) == list(range(100))
    await reader.close()


async def test_a_value_is_passed_on_before_the_next_one_is_ready() -> None:
    arrived = anyio.Event()

    async def ticks() -> AsyncIterator[int]:
        yield 1
        await arrived.wait()
        yield 2

    reader = reader_of(ticks)
    await reader.open({})
    with anyio.fail_after(5):
        first = await reader.next()
    assert first is not None
    assert list(first.values) == [1]
    arrived.set()
    assert await everything(reader) == [2]
    await reader.close()


async def test_a_replayable_source_resumes_after_the_committed_position() -> None:
    def lines(resume: int | None) -> Iterator[tuple[int, str]]:
        for number in range(0 if resume is None else resume + 1, 5):
            yield number, f"line {number}"

    reader = reader_of(lines)
    assert (await reader.open({})).is_replayable
    chunk = await reader.next()
    assert chunk is not None
    key, position = reader.position_after(chunk.slice(0, 1))
    again = reader_of(lines)
    await again.open({key: position})
    assert await everything(again) == ["line 1", "line 2", "line 3", "line 4"]
    for each in (reader, again):
        await each.close()


async def test_values_before_the_failure_of_a_source_are_passed_on() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no more")

    reader = reader_of(failing)
    await reader.open({})
    values: list[int] = []
    with pytest.raises(StageError, match="failed after 2 values: ValueError: no more"):
        await gather(reader, values)
    assert values == [1, 2]
    await reader.close()


async def test_a_replayable_source_that_yields_no_positions_is_refused() -> None:
    def wrong(resume: int | None) -> Iterator[int]:
        yield 1

    reader = reader_of(wrong)
    await reader.open({})
    with pytest.raises(StageError, match=r"must yield \(position, value\)"):
        await reader.next()


async def test_a_function_gets_one_record_after_another() -> None:
    got: list[Any] = []
    await FunctionWriter(FunctionSink(got.append)).write(chunk_of(1, 2, 3), never)
    assert got == [1, 2, 3]


async def test_an_async_function_gets_one_record_after_another() -> None:
    got: list[Any] = []

    async def take(value: int) -> None:
        await anyio.lowlevel.checkpoint()
        got.append(value)

    await FunctionWriter(FunctionSink(take)).write(chunk_of(1, 2, 3), never)
    assert got == [1, 2, 3]


async def test_a_batch_function_gets_lists_up_to_its_size() -> None:
    got: list[Any] = []
    await FunctionWriter(FunctionSink(got.append, batch=2)).write(chunk_of(1, 2, 3), never)
    assert got == [[1, 2], [3]]


@pytest.mark.parametrize(("batch", "row", "rows"), [(None, 2, 1), (2, 2, 2), (10, 0, 4)])
async def test_the_error_of_a_failing_function_has_the_row_and_the_number_of_rows_in_the_call(
    batch: int | None, row: int, rows: int
) -> None:
    def refuse(given: Any) -> None:
        if given == 3 or (isinstance(given, list) and 3 in given):
            raise ValueError(3)

    with pytest.raises(WriteFailed) as caught:
        await FunctionWriter(FunctionSink(refuse, batch)).write(chunk_of(1, 2, 3, 4), never)
    assert (caught.value.row, caught.value.rows) == (row, rows)
    assert isinstance(caught.value.__cause__, ValueError)


class Noted:
    """A sink class that records its calls; its flush may fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls: list[Any] = []
        self.fails = fails

    def open(self) -> None:
        self.calls.append("open")

    async def write(self, rows: list[int]) -> None:
        self.calls.append(rows)

    def flush(self) -> None:
        if self.fails:
            raise OSError("gone")
        self.calls.append("flush")

    async def close(self) -> None:
        self.calls.append("close")


async def test_a_sink_object_is_opened_written_flushed_and_closed() -> None:
    noted = Noted()
    writer = ObjectWriter(noted, SystemClock())
    await writer.open({})
    await writer.write(chunk_of(1, 2), never)
    await writer.flush(is_last=False)
    await writer.close()
    assert noted.calls == ["open", [1, 2], "flush", "close"]


async def test_the_error_for_a_sink_that_cannot_flush_names_it() -> None:
    writer = ObjectWriter(Noted(fails=True), SystemClock())
    await writer.open({})
    with pytest.raises(StreamKitError, match=r"Noted.* could not be flushed: OSError: gone"):
        await writer.flush(is_last=True)


async def write_lines(path: Path, *lines: bytes) -> None:
    writer = JsonLines(path).writer(ENV)
    await writer.open({})
    await writer.write(chunk_of(*lines))
    assert writer.unacknowledged == len(lines)
    await writer.prepare_commit(is_last=False).wait()
    assert writer.unacknowledged == 0
    await writer.close()


@pytest.mark.parametrize(
    "before",
    [b"", b"1\n2\n", b"1\n2", b"12", b"1\n" + b"x" * 200_000, b"x" * 200_000 + b"\n"],
)
async def test_lines_of_other_programs_are_kept(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(before)
    await write_lines(path, b"3")
    assert (
        path.read_bytes()
        == before + (b"" if before.endswith(b"\n") or not before else b"\n") + b"3\n"
    )


@pytest.mark.parametrize("torn", [b"4", b'{"half": ', b"x" * 200_000])
async def test_a_half_written_line_of_a_crashed_job_is_removed(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"a stranger's\n")
    crashed = JsonLines(path).writer(ENV)
    await crashed.open({})
    await crashed.write(chunk_of(b"1", b"2"))
    kept = crashed.prepare_commit(is_last=False)
    await kept.wait()
    await crashed.write(chunk_of(b"3"))
    with path.open("ab") as file:
        file.write(torn)
    await crashed.close()
    again = JsonLines(path).writer(ENV)
    await again.open(kept.positions)
    await again.close()
    assert path.read_bytes() == b"a stranger's\n1\n2\n3\n"


async def test_after_a_clean_stop_a_half_written_line_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    writer = JsonLines(path).writer(ENV)
    await writer.open({})
    await writer.write(chunk_of(b"1"))
    kept = writer.prepare_commit(is_last=True)
    await kept.wait()
    await writer.close()
    with path.open("ab") as file:
        file.write(b"theirs")
    again = JsonLines(path).writer(ENV)
    await again.open(kept.positions)
    await again.close()
    assert path.read_bytes() == b"1\ntheirs\n"


async def test_a_file_cannot_have_two_writers(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "out.jsonl").writer(ENV)
    await writer.open({})
    with pytest.raises(ConfigError, match="another job writes to"):
        await JsonLines(tmp_path / "out.jsonl").writer(ENV).open({})
    await writer.close()


async def test_after_its_file_is_moved_a_sink_writes_to_a_new_file_with_the_old_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.jsonl"
    writer = JsonLines(path).writer(ENV)
    await writer.open({})
    await writer.write(chunk_of(b"1"))
    before = writer.prepare_commit(is_last=False)
    path.rename(tmp_path / "out.jsonl.1")
    await writer.write(chunk_of(b"2"))
    for prepared in (before, writer.prepare_commit(is_last=False)):
        await prepared.wait()
    await writer.close()
    assert (tmp_path / "out.jsonl.1").read_bytes() == b"1\n"
    assert path.read_bytes() == b"2\n"


@pytest.mark.parametrize("damage", ["cut", "delete"])
async def test_a_job_fails_if_its_file_lost_uncommitted_lines(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "out.jsonl"
    writer = JsonLines(path).writer(ENV)
    await writer.open({})
    await writer.write(chunk_of(b"1", b"2"))
    if damage == "cut":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(StreamKitError, match="by another program while the job wrote to it"):
        await writer.prepare_commit(is_last=False).wait()
    await writer.close()


async def test_lines_go_to_the_end_of_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    writer = JsonLines(path).writer(ENV)
    await writer.open({})
    await writer.write(chunk_of(b"1"))
    await writer.prepare_commit(is_last=False).wait()
    path.write_bytes(b"")
    await writer.write(chunk_of(b"2"))
    await writer.prepare_commit(is_last=False).wait()
    await writer.close()
    assert path.read_bytes() == b"2\n"


async def test_lines_can_be_written_to_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    try:
        writer = JsonLines(path).writer(ENV)
        await writer.open({})
        await writer.write(chunk_of(b"1", b"2"))
        await writer.prepare_commit(is_last=True).wait()
        assert writer.unacknowledged == 0
        await writer.close()
        assert os.read(pipe, 100) == b"1\n2\n"
    finally:
        os.close(pipe)


async def test_two_concurrent_commits_count_each_record_once(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "out.jsonl").writer(ENV)
    await writer.open({})
    await writer.write(chunk_of(b"1", b"2"))
    first, second = (writer.prepare_commit(is_last=False) for _ in range(2))
    await second.wait()
    await first.wait()
    assert writer.unacknowledged == 0
    await writer.close()


async def test_a_file_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write to"):
        await JsonLines(tmp_path / "none" / "out.jsonl").writer(ENV).open({})
