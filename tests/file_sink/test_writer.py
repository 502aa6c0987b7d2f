"""The writer of a file sink, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from streamkit.connectors import ConnectorEnv
from streamkit.connectors.file_sink.writer import FileWriter
from streamkit.connectors.files import FileSink, Text
from streamkit.env import SystemClock
from streamkit.record import Chunk
from tests.file_sink.reading import shown

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def writer_in(tmp_path: Path, *, roll_after: float = 600.0) -> FileWriter:
    sink = FileSink(tmp_path / "out" / "f.txt", Text(), roll_after=roll_after)
    env = ConnectorEnv("out", "test", tmp_path / "spools", SystemClock(), kind=str)
    return sink.writer(env)


def chunk(rows: Sequence[bytes]) -> Chunk:
    count = len(rows)
    return Chunk(list(rows), [None] * count, [0] * count, range(count), "topic", 0)


async def commit(writer: FileWriter, *, is_last: bool = False) -> dict[str, str]:
    prepared = writer.prepare_commit(is_last=is_last)
    await prepared.wait()
    if prepared.publish is not None:
        await prepared.publish()
    return dict(prepared.positions)


async def test_a_file_that_begins_while_another_is_shown_has_a_name_of_its_own(
    tmp_path: Path,
) -> None:
    first = writer_in(tmp_path)
    await first.open({})
    await first.write(chunk([b"one"]))
    positions = await commit(first)
    await first.close()

    # The file of the first run is full at once. Its name is not taken on disk yet.
    second = writer_in(tmp_path, roll_after=0.001)
    await second.open(positions)
    prepared = second.prepare_commit(is_last=False)
    await second.write(chunk([b"two"]))
    await prepared.wait()
    assert prepared.publish is not None
    await prepared.publish()
    await commit(second, is_last=True)
    await second.close()
    assert [path.read_text() for path in shown(tmp_path / "out")] == ["two\n", "one\n"]


async def test_nothing_is_shown_before_the_commit_is_stored(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    await writer.open({})
    await writer.write(chunk([b"one"]))
    assert writer.unacknowledged == 1
    prepared = writer.prepare_commit(is_last=True)
    await prepared.wait()
    assert writer.unacknowledged == 0
    assert shown(tmp_path / "out") == []
    assert prepared.publish is not None
    await prepared.publish()
    await writer.close()
    assert [path.name for path in shown(tmp_path / "out")] == ["f.txt"]
