"""`app.test()` calls sink functions, sink classes and generator sources, and checks the graph."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from streamkit import App
from streamkit.connectors.files import JsonLines
from streamkit.errors import StageError, TopologyError, UsageError


class Table:
    """A sink class that records its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def open(self) -> None:
        self.calls.append("open")

    async def write(self, rows: list[int]) -> None:
        self.calls.append(rows)

    def flush(self) -> None:
        self.calls.append("flush")

    async def close(self) -> None:
        self.calls.append("close")


def test_a_sink_object_is_opened_written_flushed_and_closed() -> None:
    app, table = App("own"), Table()
    numbers = app.stream("numbers", int)
    numbers.to(table, name="table")
    with app.test() as job:
        assert table.calls == ["open"]
        job.send(numbers, 1, 2)
        job.commit()
        job.send(numbers, 3)
    assert table.calls == ["open", [1, 2], "flush", [3], "flush", "close"]


class Broken(Table):
    """A table that cannot be opened."""

    def open(self) -> None:
        raise OSError("no such table")


@pytest.mark.parametrize("fails", ["lifespan", "sink"])
def test_what_was_opened_is_closed_if_the_test_cannot_begin(fails: str) -> None:
    app, table = App("own"), Table()
    numbers = app.stream("numbers", int)
    numbers.to(table, name="table")
    numbers.to(Broken(), name="broken")

    @app.lifespan
    async def lifespan() -> AsyncIterator[str]:
        if fails == "lifespan":
            raise OSError("no such service")
        table.calls.append("begin")
        yield "client"
        table.calls.append("end")

    with pytest.raises(Exception, match="no such"), app.test():
        pass
    assert table.calls == ([] if fails == "lifespan" else ["begin", "open", "close", "end"])
    gc.collect()  # an event loop that is still open would warn now


def test_plain_and_async_function_sinks_are_called() -> None:
    app = App("own")
    got: list[Any] = []
    numbers = app.stream("numbers", int)

    @app.sink(numbers, batch=2)
    async def listed(rows: list[int]) -> None:
        got.append(rows)

    app.sink(numbers, name="each")(lambda value: got.append(value))
    with app.test() as job:
        job.send("numbers", 1, 2, 3)
        assert got == [[1, 2], [3], 1, 2, 3]


async def test_a_job_can_be_tested_while_an_event_loop_runs() -> None:
    app, table = App("own"), Table()
    numbers = app.stream("numbers", int)
    numbers.to(table, name="table")
    with app.test() as job:
        job.send(numbers, 1)
    assert table.calls == ["open", [1], "flush", "close"]


def test_the_error_of_a_failing_sink_names_the_record() -> None:
    app = App("own")
    got: list[int] = []
    numbers = app.stream("numbers", int)

    @app.sink(numbers)
    def picky(value: int) -> None:
        if value == 3:
            raise ValueError("not this one")
        got.append(value)

    with app.test() as job, pytest.raises(StageError, match="numbers-0 offset 2: ValueError"):
        job.send(numbers, 1, 2, 3, 4)
    assert got == [1, 2]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_generator_source_is_read_up_to_a_limit_and_resumes(is_async: bool) -> None:
    app = App("own")
    begun: list[int | None] = []

    def plain(resume: int | None) -> Iterator[tuple[int, int]]:
        begun.append(resume)
        for number in range(0 if resume is None else resume + 1, 5):
            yield number, number * 10

    async def waiting(resume: int | None) -> AsyncIterator[tuple[int, int]]:
        for pair in plain(resume):
            yield pair

    source: Any = app.source(waiting if is_async else plain)
    source.to("copies")
    with app.test() as job:
        assert job.read(source, 2) == 2
        assert job.output(source) == [0, 10]
        assert job.read(source) == 3
        assert job.output(source) == [0, 10, 20, 30, 40]
    assert begun == [None, 1]


def test_reading_a_topic_source_is_refused() -> None:
    app = App("own")
    numbers = app.stream("numbers", int)
    numbers.to("copies")
    with app.test() as job, pytest.raises(UsageError, match="reads a topic"):
        job.read(numbers)


def test_app_test_does_not_write_to_connectors(tmp_path: Any) -> None:
    app = App("own")
    app.stream("numbers", int).to(JsonLines(tmp_path / "out.jsonl"), name="file")
    with app.test() as job:
        job.send("numbers", 1)
    assert not (tmp_path / "out.jsonl").exists()


def test_app_test_refuses_a_graph_that_cannot_run() -> None:
    app = App("own")
    numbers = app.stream("numbers", int)

    def shouted(value: str) -> str:
        return value.upper()

    wrong: Any = shouted  # a type checker would find it too
    app.stage(numbers)(wrong).to("loud")
    with pytest.raises(TopologyError, match="expects str"):
        app.test()


def build_branches(app: App) -> Any:
    rows = app.stream("rows", dict[str, int])

    def strip(row: dict[str, int]) -> dict[str, int]:
        row.pop("secret", None)
        return row

    rows.map(strip, name="public").to("public")
    rows.map(lambda row: row, name="private").to("private")
    return rows


def test_a_branch_that_changes_the_input_of_another_branch_fails() -> None:
    app = App("own")
    rows = build_branches(app)
    with (
        app.test(isolated=True) as job,
        pytest.raises(StageError, match="'public' failed on rows-0 offset 1: ChangedInPlace"),
    ):
        job.send(rows, {"id": 1}, {"id": 2, "secret": 3})


def test_branches_that_create_new_values_pass() -> None:
    app = App("own")
    rows = app.stream("rows", dict[str, int])
    rows.map(lambda row: {"id": row["id"]}, name="public").to("public")
    rows.map(lambda row: row, name="private").to("private")
    with app.test(isolated=True) as job:
        job.send(rows, {"id": 2, "secret": 3})
        assert job.output("public") == [b'{"id":2}']
        assert job.output("private") == [b'{"id":2,"secret":3}']
