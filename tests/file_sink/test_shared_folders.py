"""Several jobs write to the same folder, and clocks are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamkit.connectors.files import FileSink
from streamkit.errors import StreamKitError
from tests.file_sink.reading import Flight, flights_in, flights_of, shown
from tests.file_sink.writing import ManualClock, Writing


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # connectors have threads that know only this loop


ONE, TWO = Flight(1, "JFK", None), Flight(2, "LGA", 3.5)


async def test_two_jobs_of_the_same_name_never_write_the_same_file(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out" / "f.csv")
    a: dict[str, str] = {}
    b: dict[str, str] = {}
    first = await Writing(sink, tmp_path / "a", Flight).start(a)
    second = await Writing(sink, tmp_path / "b", Flight).start(b)
    await first.write(ONE)
    await second.write(TWO)
    show_first = await first.prepare(a, is_last=True)
    show_second = await second.prepare(b, is_last=True)
    await show_first()
    with pytest.raises(StreamKitError, match="created by another program"):
        await show_second()
    await first.writer.close()
    await second.writer.close()
    assert flights_in(tmp_path / "out") == [ONE]

    (tmp_path / "out" / "f.csv").rename(tmp_path / "out" / "first.csv")
    await (await Writing(sink, tmp_path / "b", Flight).start(b)).end(b)
    assert flights_of(tmp_path / "out" / "f.csv") == [TWO], "its row is lost"


async def test_a_name_of_200_bytes_is_possible(tmp_path: Path) -> None:
    sink, committed = FileSink(tmp_path / "out" / f"{'x' * 196}.csv"), dict[str, str]()
    run = await Writing(sink, tmp_path / "data", Flight, name="n" * 60).start(committed)
    await run.write(ONE)
    await run.end(committed)
    assert flights_in(tmp_path / "out") == [ONE]


async def test_a_file_from_the_future_is_completed_after_its_time(tmp_path: Path) -> None:
    sink, committed, clock = (
        FileSink(tmp_path / "f.csv", roll_after=10),
        dict[str, str](),
        ManualClock(),
    )
    clock.now_ms += 10 * 365 * 86_400_000
    run = await Writing(sink, tmp_path / "data", Flight, clock=clock).start(committed)
    await run.write(ONE)
    await run.commit(committed)
    clock.now_ms -= 10 * 365 * 86_400_000
    await run.commit(committed)
    assert shown(tmp_path) == [tmp_path / "data" / "0.spool"]
    clock.now_ms += 10_000
    await run.commit(committed)
    assert flights_of(tmp_path / "f.csv") == [ONE]
    await run.writer.close()
