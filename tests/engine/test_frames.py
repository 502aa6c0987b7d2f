"""Stages and sinks whose function gets frames."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import msgspec
import pandas
import polars
import pyarrow
import pytest

from streamkit import App, Context, Record
from streamkit.dataflow.calling import called_step
from streamkit.dataflow.dead_letters import Letter
from streamkit.dataflow.explain import explain
from streamkit.dataflow.stream import Stream
from streamkit.errors import RowError, StageError, TopologyError
from streamkit.policies import dead_letter, retry


class Flight(msgspec.Struct):
    carrier: str
    delay: float | None = None
    number: int = 0


class Late(msgspec.Struct):
    carrier: str
    is_late: bool


FLIGHTS = [Flight("UA", 3.0, 1), Flight("B6", None, 2), Flight("AA", 20.0, 3)]
LATE = [Late("UA", False), Late("B6", False), Late("AA", True)]
TOO_LARGE = "the field 'number' is 9223372036854775808: it does not fit into 64 bits"
ROWS = [msgspec.structs.asdict(each) for each in FLIGHTS]


def app_of() -> tuple[App, Stream[Flight]]:
    app = App("frames")
    return app, app.stream("flights", Flight)


def results(app: App, source: Stream[Any], stage: Stream[Any], values: Iterable[Any]) -> list[Any]:
    with app.test() as job:
        job.send(source, *values)
        return job.output(stage)


def errors_in(letters: list[bytes]) -> list[tuple[str, str]]:
    found = [msgspec.json.decode(each, type=Letter) for each in letters]
    return [(each.error_type, each.error) for each in found]


def late(frame: polars.DataFrame) -> polars.DataFrame:
    return frame.select("carrier", is_late=polars.col("delay").fill_null(0.0) > 15)


# --- what a function gets and returns ---------------------------------------------------


def test_a_frame_becomes_rows_of_the_declared_type() -> None:
    app, flights = app_of()
    found = app.stage(flights, batch=10, output_type=Late)(late)
    assert found.node.value_type is Late
    assert results(app, flights, found, FLIGHTS) == LATE


def test_without_a_declared_type_rows_are_dicts() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10)
    def same(frame: pandas.DataFrame) -> pandas.DataFrame:
        return frame

    assert same.node.value_type == dict[str, Any]
    assert results(app, flights, same, FLIGHTS) == ROWS


@pytest.mark.parametrize("kind", [polars.DataFrame, pandas.DataFrame])
def test_every_frame_may_be_returned_as_another_one(kind: Any) -> None:
    app, flights = app_of()
    makers: dict[str, Any] = {
        "polars": polars.DataFrame,
        "pandas": pandas.DataFrame,
        "table": pyarrow.Table.from_pylist,
        "batch": pyarrow.RecordBatch.from_pylist,
    }
    found = {}
    for name, make in makers.items():

        def other(frame: Any, make: Any = make) -> Any:
            return make([{"carrier": each, "number": 7} for each in frame["carrier"]])

        other.__annotations__["frame"] = kind
        found[name] = app.stage(flights, batch=10, name=name)(other)
    with app.test() as job:
        job.send(flights, *FLIGHTS)
        expected = [{"carrier": each.carrier, "number": 7} for each in FLIGHTS]
        assert {name: job.output(stage) for name, stage in found.items()} == dict.fromkeys(
            makers, expected
        )


async def late_async(frame: polars.DataFrame) -> polars.DataFrame:
    await asyncio.sleep(0)
    return late(frame)


def late_list(frame: polars.DataFrame) -> list[Late]:
    return [Late(*row) for row in late(frame).iter_rows()]


@pytest.mark.parametrize(
    ("function", "options"),
    [(late, {}), (late, {"blocking": True}), (late_async, {}), (late_list, {})],
    ids=["slices", "threads", "async", "list"],
)
def test_one_row_for_each_record_keeps_keys_and_timestamps(
    function: Any, options: dict[str, Any]
) -> None:
    app, flights = app_of()
    stage: Any = app.stage(flights, batch=10, output_type=Late, **options)(function)
    with app.test() as job:
        given = [Record(each, each.carrier.encode(), 1_000 + each.number) for each in FLIGHTS]
        job.send(flights, *given)
        found = [(each.value, each.key, each.timestamp_ms) for each in job.records(stage)]
    expected = [(each.key, each.timestamp_ms) for each in given]
    assert found == [(row, *place) for row, place in zip(LATE, expected, strict=True)]


def test_any_number_of_rows_has_the_key_and_timestamp_of_the_last_record() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10)
    def filtered(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        yield frame.filter(polars.col("number") > 1)
        yield frame.head(0)

    with app.test() as job:
        job.send(flights, *(Record(each, each.carrier.encode(), each.number) for each in FLIGHTS))
        found = [(each.value, each.key, each.timestamp_ms) for each in job.records(filtered)]
        counts = job._task.counts[filtered.node]
    assert found == [(row, b"AA", 3) for row in ROWS[1:]]
    assert (counts.taken, counts.handled, counts.dropped, counts.given) == (3, 3, 0, 2)


def test_records_with_columns_for_keys_and_timestamps_keep_their_own() -> None:
    app = App("frames")
    flights = app.stream("flights", Record[Flight])

    @app.stage(flights, batch=10, output_type=Record[Flight])
    def filtered(frame: polars.DataFrame) -> Iterator[polars.DataFrame]:
        yield frame.filter(polars.col("value").struct.field("number") != 2)

    filtered.to("filtered")
    with app.test() as job:
        job.send(flights, *(Record(each, each.carrier.encode(), each.number) for each in FLIGHTS))
        found = [(each.key, each.timestamp_ms) for each in job.records("filtered")]
    assert found == [(b"UA", 1), (b"AA", 3)]


def test_a_batch_without_rows_drops_its_records() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=2)
    def nothing(frame: pandas.DataFrame) -> Iterator[pandas.DataFrame]:
        yield frame[frame["number"] > 5]

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(nothing) == []
        counts = job._task.counts[nothing.node]
        assert (counts.taken, counts.handled, counts.dropped, counts.given) == (3, 1, 2, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_frames_have_at_most_the_rows_of_a_batch(size: int) -> None:
    app, flights = app_of()
    heights: list[int] = []

    @app.stage(flights, batch=size)
    def measured(frame: pyarrow.RecordBatch) -> list[str]:
        heights.append(frame.num_rows)
        return frame["carrier"].to_pylist()  # type: ignore[no-any-return]

    assert results(app, flights, measured, FLIGHTS) == ["UA", "B6", "AA"]
    assert max(heights) == min(size, 3)
    assert sum(heights) == 3


def test_values_of_other_kinds_may_be_returned() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10)
    def listed(frame: polars.DataFrame) -> list[float | None]:
        return frame["delay"].to_list()

    @app.stage(flights, batch=10)
    def counted(frame: polars.DataFrame) -> Iterator[int]:
        yield frame.height

    @app.stage(flights, batch=10, output_type=float)
    def column(frame: polars.DataFrame) -> polars.Series:
        return frame["delay"]

    @app.stage(flights, batch=10, output_type=int)
    def numbers(frame: pandas.DataFrame) -> Any:
        return frame["number"].to_numpy() + 1

    @app.stage(flights, batch=10, output_type=str)
    def array(frame: pyarrow.Table) -> Any:
        return frame["carrier"]

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(listed) == job.output(column) == [3.0, 20.0]
        assert job.output(counted) == [3]
        assert job.output(numbers) == [2, 3, 4]
        assert set(map(type, job.output(numbers))) == {int}
        assert job.output(array) == ["UA", "B6", "AA"]


def test_a_stage_without_annotations_of_its_result_returns_one_row_for_each_record() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10, output_type=Late)
    def unannotated(frame: polars.DataFrame):  # type: ignore[no-untyped-def]
        return late(frame)

    assert results(app, flights, unannotated, FLIGHTS) == LATE


def test_several_streams_of_one_type_share_frames() -> None:
    app, flights = app_of()
    others = app.stream("others", Flight)
    both: Any = app.stage(flights, others, batch=10)  # type: ignore[call-overload]
    same = both(lambda_of_polars)
    with app.test() as job:
        job.send(flights, FLIGHTS[0])
        job.send(others, FLIGHTS[1])
        assert job.output(same) == ROWS[:2]


def lambda_of_polars(frame: polars.DataFrame) -> polars.DataFrame:
    return frame


# --- where the function runs ------------------------------------------------------------


def test_an_async_function_of_frames() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=2, concurrency=3, timeout=5, output_type=Late)
    async def mapped(frame: polars.DataFrame) -> polars.DataFrame:
        await asyncio.sleep(0.001 * frame.height)
        return late(frame)

    @app.stage(flights, batch=10)
    async def several(frame: polars.DataFrame) -> AsyncIterator[polars.DataFrame]:
        yield frame.head(1)
        await asyncio.sleep(0)
        yield frame.tail(1)

    @app.stage(flights, batch=10)
    async def listed(frame: polars.DataFrame) -> Iterable[polars.DataFrame]:
        await asyncio.sleep(0)
        return [frame.head(1), frame.head(0)]

    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(mapped) == LATE
        assert job.output(several) == [ROWS[0], ROWS[2]]
        assert job.output(listed) == [ROWS[0]]


def test_in_threads_frames_are_made_and_read_in_the_thread() -> None:
    app, flights = app_of()
    threads: set[str] = set()

    class Noted(msgspec.Struct):
        carrier: str

        def __post_init__(self) -> None:
            threads.add(threading.current_thread().name)

    @app.stage(flights, batch=10, blocking=True, timeout=5, output_type=Noted)
    def mapped(frame: polars.DataFrame) -> polars.DataFrame:
        return frame.select("carrier")

    assert len(results(app, flights, mapped, FLIGHTS)) == 3
    assert {name.startswith("streamkit-call-mapped") for name in threads} == {True}


def test_a_call_with_a_frame_that_takes_too_long_fails() -> None:
    app, flights = app_of()

    @app.stage(flights, batch=10, blocking=True, timeout=0.5, on_error="skip")
    def slow(frame: polars.DataFrame) -> polars.DataFrame:
        if "B6" in frame["carrier"]:
            time.sleep(1.5)
        return frame

    assert results(app, flights, slow, FLIGHTS) == [ROWS[0], ROWS[2]]


def of_pandas(frame: pandas.DataFrame) -> Iterator[pandas.DataFrame]:
    yield frame[["carrier"]].assign(is_late=frame["delay"] > 15)


def refusing(frame: polars.DataFrame) -> polars.DataFrame:
    if "B6" in frame["carrier"]:
        raise RowError(frame["carrier"].to_list().index("B6"), "no B6 here")
    return frame


def test_frames_in_processes() -> None:
    app, flights = app_of()
    mapped = app.stage(flights, batch=2, process=True, output_type=Late)(late)
    several = app.stage(flights, batch=10, process=True, concurrency=1, output_type=Late)(of_pandas)
    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(mapped) == LATE
        assert job.output(several) == LATE


def test_errors_of_frames_in_processes_are_those_of_their_record() -> None:
    app, flights = app_of()
    big = Flight("XX", None, 2**63)
    stage = app.stage(flights, batch=10, process=True, on_error=dead_letter("letters"))(refusing)
    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(stage) == [ROWS[0], ROWS[2]]
        assert errors_in(job.output("letters")) == [("RowError", "no B6 here")]
    with app.test() as job:
        job.send(flights, *FLIGHTS[::2], big)
        assert job.output(stage) == [ROWS[0], ROWS[2]]
        assert errors_in(job.output("letters")) == [("RowError", f"row 2: {TOO_LARGE}")]


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
    app.stage(flights, batch=10, name="same")(lambda_of_polars)
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
            decorate(lambda_of_polars)
        assert hint in caught.value.hint
        assert __file__ in str(caught.value)


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
            decorate(lambda_of_polars)
        assert __file__ in str(caught.value)
    app.stage(anything, batch=10)(lambda_of_polars)


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
