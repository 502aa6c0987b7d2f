"""Sinks of places with transactions, here a place in memory whose transactions fail at will."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors import (
    Chunk,
    ConnectorEnv,
    Sink,
    SinkWriter,
    StoredCommit,
    TransactionalWriter,
    transactional,
)
from streamkit.env import SystemClock
from streamkit.errors import StateMismatch
from streamkit.testing import check_sink


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(eq=False)
class Place:
    """Rows and the number of the last commit; ``starts`` are those of the commits."""

    rows: list[Any] = field(default_factory=list)
    number: int = 0
    starts: list[bytes] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    def clear(self) -> None:
        self.rows, self.number = [], 0


@dataclass(frozen=True)
class PlaceSink(Sink[Any]):
    place: Place

    def writer(self, env: ConnectorEnv) -> SinkWriter:
        return PlaceWriter(self.place, env)


class PlaceWriter(TransactionalWriter[list[Any]]):
    def __init__(self, place: Place, env: ConnectorEnv) -> None:
        super().__init__(env, "a place in memory")
        self.place = place

    async def connect(self) -> int:
        return self.place.number

    async def begin(self, commit: StoredCommit[list[Any]]) -> None:
        self.place.begun.append(commit.number)

    async def publish(self, commit: StoredCommit[list[Any]]) -> None:
        if self.place.number == commit.number:
            return
        if self.place.number != commit.number - 1:
            raise self.other_run(self.place.number, commit.number - 1)
        self.place.rows += [row for block in commit.blocks() for row in block]
        self.place.number = commit.number
        self.place.starts.append(commit.start)

    async def disconnect(self) -> None:
        pass

    def start(self) -> bytes:
        return b"the columns"

    def block(self, chunk: Chunk) -> list[Any]:
        return list(chunk.values)


def writer_of(place: Place, folder: Path) -> PlaceWriter:
    return PlaceWriter(place, ConnectorEnv("rows", "app", folder, SystemClock()))


def chunk_of(*values: Any) -> Chunk:
    count = len(values)
    return Chunk(values, [None] * count, [0] * count, range(count))


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
def test_a_sink_that_only_has_transactions_writes_each_row_once(
    kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactional, "_KEPT_BYTES_MAX", kept_bytes)
    place = Place()
    check_sink(
        lambda: PlaceSink(place),
        lambda: place.rows,
        [f"value {number}" for number in range(20)],
        clear=place.clear,
        exactly_once=True,
        ordered=True,
    )
    assert set(place.starts) == {b"the columns"}
    assert place.begun


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["waited", "stored", "published"])
async def test_a_commit_is_written_again_only_if_the_place_lacks_it(
    ends: str, tmp_path: Path
) -> None:
    place = Place()
    positions: dict[str, str] = {}
    writer = writer_of(place, tmp_path)
    await writer.open({})
    positions.update(writer.prepare_commit(is_last=False).positions)
    await writer.write(chunk_of([1, "one"], [2, None]))
    assert writer.unacknowledged == 2
    prepared = writer.prepare_commit(is_last=False)
    await prepared.wait()
    assert (writer.unacknowledged, place.rows) == (0, [])
    if ends != "waited":
        positions.update(prepared.positions)
    if ends == "published":
        assert prepared.publish is not None
        await prepared.publish()
        await prepared.publish()
        assert os.listdir(tmp_path) == [], "the place has the rows"
    await writer.close()

    again = writer_of(place, tmp_path)
    await again.open(positions)
    assert place.rows == ([] if ends == "waited" else [[1, "one"], [2, None]])
    assert os.listdir(tmp_path) == [], "no rows are left behind"
    await again.close()


@pytest.mark.anyio
async def test_a_place_that_another_run_has_written_to_is_refused(tmp_path: Path) -> None:
    place = Place()
    writer = writer_of(place, tmp_path)
    await writer.open({})
    positions = writer.prepare_commit(is_last=False).positions
    await writer.close()
    place.number = 7
    text = r"a place in memory has commit 7 of the sink 'rows' of 'app', .* after commit 0"
    with pytest.raises(StateMismatch, match=text):
        await writer_of(place, tmp_path).open(positions)
