"""Functions of frames: errors, sinks, and what is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pandas
import polars
import pytest

from streamkit import Context
from streamkit.dataflow.calling import called_step
from streamkit.dataflow.explain import explain
from streamkit.errors import RowError, StageError, TopologyError
from streamkit.policies import dead_letter, retry
from tests.engine.frame_cases import (
    FLIGHTS,
    ROWS,
    TOO_LARGE,
    Flight,
    Late,
    app_of,
    errors_in,
    late,
    refusing,
    results,
    same_frame,
)

# --- errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"blocking": True}], ids=str)
def test_only_the_record_that_fits_into_no_column_fails(options: dict[str, Any]) -> None:
    app, flights = app_of()
    heights: list[int] = []
    wrong = Flight("XX", None, 2**63)

    def counted(frame: polars.DataFrame) -> polars.DataFrame:
        heights.append(frame.height)
        return frame

    decorate: Any = app.stage(flights, batch=10, on_error=dead_letter("letters"), **options)
    same = decorate(counted)
    with app.test() as job:
        job.send(flights, FLIGHTS[0], wrong, *FLIGHTS[1:])
        assert job.output(same) == ROWS
        counts = job._task.counts[same.node]
        assert (counts.taken, counts.handled, counts.dead_lettered) == (4, 3, 1)
        assert errors_in(job.output("letters")) == [("RowError", f"row 1: {TOO_LARGE}")]
    assert heights == ([3] if options else [1, 2])


def test_a_record_that_fits_into_no_column_stops_the_job_with_its_field() -> None:
    app, flights = app_of()
    app.stage(flights, batch=10, name="same")(same_frame)
    with app.test() as job, pytest.raises(StageError, match="the field 'number' is 92233"):
        job.send(flights, *FLIGHTS, Flight("XX", None, 2**63))


def test_only_the_record_fails_whose_row_is_wrong() -> None:
    app, flights = app_of()

    class Checked(msgspec.Struct):
        delay: float

    @app.stage(flights, batch=10, output_type=Checked, on_error="skip")
    def checked(frame: polars.DataFrame) -> polars.DataFrame:
        return frame.select("delay")

    assert results(app, flights, checked, FLIGHTS) == [Checked(3.0), Checked(20.0)]


def test_a_wrong_row_among_any_number_of_rows_fails_the_batch() -> None:
    app, flights = app_of()
    heights: list[int] = []

    class Checked(msgspec.Struct):
        delay: float

    @app.stage(flights, batch=10, output_type=Checked, on_error="skip")
    def checked(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        heights.append(frame.height)
        yield frame.select("delay").reverse()

    given = [FLIGHTS[1], FLIGHTS[0], FLIGHTS[2]]
    assert results(app, flights, checked, given) == [Checked(3.0), Checked(20.0)]
    assert heights == [3, 1, 1, 1]


def test_each_record_that_fails_has_its_own_error() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=100, on_error=dead_letter("letters"))
    def checked(frame: polars.DataFrame) -> polars.DataFrame:
        wrong = [number for number in frame["number"] if number % 7 == 0]
        if wrong:
            raise ValueError(f"{wrong[-1]} is wrong")
        return frame

    with app.test() as job:
        job.send(flights, *(Flight("UA", None, number) for number in range(1, 30)))
        letters = errors_in(job.output("letters"))
    expected = [f"ValueError: {number} is wrong" for number in (7, 14, 21, 28)]
    assert letters == [("ValueError", text) for text in expected]


def test_a_frame_with_other_columns_fails_with_their_names() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10, output_type=Late)
    def wrong(frame: polars.DataFrame) -> polars.DataFrame:
        return late(frame).rename({"is_late": "late"})

    with app.test() as job, pytest.raises(StageError) as caught:
        job.send(flights, *FLIGHTS)
    assert "a frame for Late lacks the column 'is_late' and has the column 'late'" in str(
        caught.value
    )


def test_a_row_error_of_the_function_is_that_of_the_record() -> None:
    app, flights = app_of()
    stage = app.stage(flights, batch=10, on_error="skip")(refusing)
    assert results(app, flights, stage, FLIGHTS) == [ROWS[0], ROWS[2]]


@pytest.mark.parametrize("bad", [[0], [7], [0, 1, 2], [3, 9, 10, 99], list(range(100))], ids=str)
@pytest.mark.parametrize("size", [1, 7, 64, 1_000])
@pytest.mark.parametrize("names_row", [True, False], ids=["RowError", "ValueError"])
def test_each_record_that_fails_is_found(bad: list[int], size: int, names_row: bool) -> None:
    app, flights = app_of()
    calls = 0

    @app.stage(flights, batch=size, on_error="skip")
    def checked(frame: polars.DataFrame) -> polars.DataFrame:
        nonlocal calls
        calls += 1
        for row, number in enumerate(frame["number"]):
            if number in bad and names_row:
                raise RowError(row, "not this one")
        if not set(bad).isdisjoint(frame["number"]):
            raise ValueError("one of them")
        return frame

    with app.test() as job:
        job.send(flights, *(Flight("UA", None, number) for number in range(100)))
        assert [row["number"] for row in job.output(checked)] == [
            number for number in range(100) if number not in bad
        ]
        counts = job._task.counts[checked.node]
        assert (counts.taken, counts.handled, counts.skipped) == (100, 100 - len(bad), len(bad))
    assert calls <= 100 // size + 1 + len(bad) * (2 if names_row else 9)


def test_the_error_that_a_row_error_names_is_reported() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10, on_error=dead_letter("letters"))
    def checked(frame: polars.DataFrame) -> polars.DataFrame:
        for row, carrier in enumerate(frame["carrier"]):
            if carrier == "B6":
                raise RowError(row) from KeyError(carrier)
        return frame

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(checked) == [ROWS[0], ROWS[2]]
        assert errors_in(job.output("letters")) == [("KeyError", "KeyError: 'B6'")]


def test_a_plain_function_of_one_row_for_each_is_called_in_slices() -> None:
    app, flights = app_of()

    def rows(frame: polars.DataFrame) -> polars.DataFrame:
        return frame

    def any_number(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        yield frame

    async def awaited(frame: polars.DataFrame) -> polars.DataFrame:
        return frame

    options: list[dict[str, Any]] = [
        {"max_wait": 1},
        {"rate_limit": 5},
        {"ordered": "key"},
        {"blocking": True},
        {"on_error": retry(attempts=2)},
    ]
    in_slices: Any = app.stage(flights, batch=10, name="slices", on_error="skip")(rows)
    called: list[Any] = [app.stage(flights, batch=10, name="any")(any_number)]
    called.append(app.stage(flights, batch=10, name="async")(awaited))
    for number, each in enumerate(options):
        called.append(app.stage(flights, batch=10, name=f"s{number}", **each)(rows))
    assert called_step(in_slices.node) is None
    notes = {each.name: each.notes for each in explain(app.topology).nodes}
    assert "gets frames of up to 10 rows, in slices" in notes["slices"]
    assert [name for name, lines in notes.items() if "gets frames" in "".join(lines)] == ["slices"]
    assert None not in [called_step(each.node) for each in called]


def test_a_batch_that_fails_is_retried_whole_first() -> None:
    app, flights = app_of()
    heights: list[int] = []

    @app.stage(flights, batch=10, on_error=retry(attempts=2, delay=1).then("skip"))
    def checked(frame: polars.DataFrame) -> polars.DataFrame:
        heights.append(frame.height)
        if "B6" in frame["carrier"]:
            raise OSError("not now")
        return frame

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        job.advance(seconds=2)
        assert job.output(checked) == [ROWS[0], ROWS[2]]
    assert heights == [3, 3, 1, 1, 1]


# --- sinks ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"blocking": True}, {"concurrency": 1}], ids=str)
def test_a_sink_of_frames_writes_the_other_records_if_one_fits_into_no_column(
    options: dict[str, Any],
) -> None:
    app, flights = app_of()
    written: list[str] = []

    if "concurrency" in options:

        @app.sink(flights, batch=10, on_error="skip", **options)
        async def write(frame: pandas.DataFrame) -> None:
            await asyncio.sleep(0)
            written.extend(frame["carrier"])

    else:

        @app.sink(flights, batch=10, on_error="skip", **options)
        def write(frame: pandas.DataFrame) -> None:
            written.extend(frame["carrier"])

    with app.test() as job:
        job.send(flights, *FLIGHTS[:2], Flight("XX", None, 2**63), FLIGHTS[2])
        counts = job._task.counts[write.node]
        assert (counts.taken, counts.given, counts.skipped) == (4, 3, 1)
    assert written == ["UA", "B6", "AA"]


def test_a_sink_of_frames_writes_full_batches() -> None:
    app, flights = app_of()
    written: list[polars.DataFrame] = []

    @app.sink(flights, batch=2)
    def write(frame: polars.DataFrame) -> None:
        written.append(frame)

    with app.test() as job:
        job.send(flights, *FLIGHTS)
    assert [frame.to_dicts() for frame in written] == [ROWS[:2], ROWS[2:]]


def test_a_sink_that_raises_a_row_error_has_written_the_rows_before_it() -> None:
    app, flights = app_of()
    written: list[str] = []

    @app.sink(flights, batch=10, on_error="skip")
    def write(frame: polars.DataFrame) -> None:
        for row, carrier in enumerate(frame["carrier"]):
            if carrier == "B6":
                raise RowError(row, "no B6 here")
            written.append(carrier)

    with app.test() as job:
        job.send(flights, *FLIGHTS)
    assert written == ["UA", "AA"]


# --- refused ----------------------------------------------------------------------------


def test_a_function_of_frames_without_a_batch_is_refused() -> None:
    app, flights = app_of()
    decorators: list[tuple[Any, str]] = [
        (app.stage(flights), "batch=4096"),
        (app.sink(flights), "batch=4096"),
        (app.sink(flights, to="late"), "from a stage with batch="),
    ]
    for decorate, hint in decorators:
        with pytest.raises(TopologyError, match=r"gets a polars\.DataFrame") as caught:
            decorate(same_frame)
        assert hint in caught.value.hint
        assert same_frame.__code__.co_filename in str(caught.value)


def test_values_that_cannot_be_rows_are_refused_where_the_function_is() -> None:
    app, flights = app_of()
    texts, anything = app.stream("texts", str), app.stream("things", dict[str, Any])
    both: Any = app.stage(flights, texts, batch=10)  # type: ignore[call-overload]
    for decorate, problem in [
        (app.stage(texts, batch=10), "values of str cannot be rows of a frame"),
        (app.sink(texts, batch=10), "values of str cannot be rows of a frame"),
        (both, "the rows of a frame have one type"),
    ]:
        with pytest.raises(TopologyError, match=problem) as caught:
            decorate(same_frame)
        assert same_frame.__code__.co_filename in str(caught.value)
    app.stage(anything, batch=10)(same_frame)


def test_results_without_a_declared_type_are_refused() -> None:
    app, flights = app_of()
    decorate: Any = app.stage(flights, batch=10)

    def column(frame: polars.DataFrame) -> polars.Series:
        return frame["delay"]

    def of_lists(rows: list[Flight]) -> polars.DataFrame:
        return polars.DataFrame(rows)

    def yields(rows: list[Flight]) -> Iterator[polars.DataFrame]:
        yield polars.DataFrame(rows)

    with pytest.raises(TopologyError, match="returns a column") as caught:
        decorate(column)
    assert "output_type=float" in caught.value.hint
    for function in (of_lists, yields):
        with pytest.raises(TopologyError, match="but it gets no frame"):
            decorate(function)


def test_a_function_of_frames_has_no_context() -> None:
    app, flights = app_of()

    def with_context(frame: polars.DataFrame, context: Context[str]) -> polars.DataFrame:
        return frame

    decorate: Any = app.stage(flights, batch=10)
    with pytest.raises(TopologyError, match="no common context"):
        decorate(with_context)


NEEDS_NOTHING = """
import sys
import streamkit, streamkit.app, streamkit.frames.functions, streamkit.dataflow.decorated
assert not {"pyarrow", "polars", "pandas", "numpy"} & set(sys.modules)
"""
WITHOUT_ARROW = """
import sys
sys.modules["pyarrow"] = None
import msgspec, polars
from streamkit import App
from streamkit.errors import UsageError

class Flight(msgspec.Struct):
    carrier: str

app = App("frames")
try:
    @app.stage(app.stream("flights", Flight), batch=10)
    def same(frame: polars.DataFrame) -> polars.DataFrame:
        return frame
except UsageError as error:
    print(error, error.hint)
"""


def test_importing_streamkit_imports_no_library_of_frames() -> None:
    subprocess.run([sys.executable, "-c", NEEDS_NOTHING], check=True)


def test_without_pyarrow_the_error_names_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ARROW], check=True, capture_output=True, text=True
    )
    assert "a frame needs the library pyarrow" in done.stdout
    assert "pip install 'fluvio-streamkit[arrow]'" in done.stdout
