"""Functions are inspected at run time in the same way as type checkers see them."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
import typing
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, NewType, ParamSpec, TypeVar

import msgspec
import pytest

from streamkit import App, Context, Record
from streamkit.dataflow.decorated_function import Sink, Stage
from streamkit.dataflow.stream import Stream
from streamkit.errors import StageError, TopologyError
from tests.typing.rows import Flight, Late

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

    from streamkit.testing.job import TestJob

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Minutes = NewType("Minutes", float)
HERE = Path(__file__)


def flights_of(app: App) -> Stream[Flight]:
    return app.stream("flights", Flight)


def results(app: App, stage: Stream[T], *flights: Flight) -> list[T]:
    with app.test() as job:
        return sent(job, *flights).output(stage)


def sent(job: TestJob, *flights: Flight) -> TestJob:
    job.send("flights", *(flights or (Flight("UA", 7, 20.0),)))
    return job


def logged(function: Callable[P, R]) -> Callable[P, R]:
    """An example of a decorator that uses `functools.wraps`."""

    @functools.wraps(function)
    def calling(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return calling


@pytest.fixture
def app() -> App:
    return App("typing")


# --- kinds of functions -----------------------------------------------------------


def test_a_generator_wrapped_with_functools_is_a_flat_map(app: App) -> None:
    @app.stage(flights_of(app))
    @logged
    def letters(flight: Flight) -> Iterator[str]:
        yield from flight.carrier

    assert results(app, letters) == ["U", "A"]


def test_an_async_function_wrapped_with_functools_is_awaited(app: App) -> None:
    @app.stage(flights_of(app))
    @logged
    async def slow(flight: Flight) -> str:
        return flight.carrier

    assert results(app, slow) == ["UA"]


def test_a_plain_function_annotated_iterator_is_a_flat_map(app: App) -> None:
    @app.stage(flights_of(app))
    def letters(flight: Flight) -> Iterator[str]:
        return iter(flight.carrier)

    assert results(app, letters) == ["U", "A"]
    assert letters.node.value_type is str


def test_a_generator_annotated_iterable_is_refused_with_its_line(app: App) -> None:
    with pytest.raises(TopologyError, match="annotated as") as caught:

        @app.stage(flights_of(app))
        def letters(flight: Flight) -> Iterable[str]:
            yield from flight.carrier

    assert caught.value.hint == "annotate Iterator[...] with the type of the values it yields"
    assert caught.value.at.startswith(f"{HERE}:")


def test_an_iterable_that_is_not_a_generator_is_one_value(app: App) -> None:
    @app.stage(flights_of(app))
    def parts(flight: Flight) -> Iterable[str]:
        return [flight.carrier]

    assert results(app, parts) == [["UA"]]


def test_only_a_stage_function_drops_a_value_by_returning_none(app: App) -> None:
    flights = flights_of(app)

    @app.stage(flights)
    def nothing(flight: Flight) -> str | None:
        return None

    @app.stage(flights)
    def yields_nothing(flight: Flight) -> Iterator[str | None]:
        yield None

    mapped = flights.map(lambda flight: None)
    with app.test() as job:
        sent(job)
        assert job.output(nothing) == []
        assert job.output(yields_nothing) == [None]
        assert job.output(mapped) == [None]


async def in_a_while(flight: Flight) -> str:
    return flight.carrier


def one_by_one(flight: Flight) -> Iterator[str]:
    yield flight.carrier


def as_coroutine(flight: Flight) -> object:
    return in_a_while(flight)


def as_generator(flight: Flight) -> object:
    return one_by_one(flight)


def as_iterator(flight: Flight) -> object:
    return iter([flight.carrier])


@pytest.mark.parametrize(
    ("function", "kind"),
    [(as_coroutine, "coroutine"), (as_generator, "generator"), (as_iterator, "list_iterator")],
)
@pytest.mark.parametrize("verb", ["stage", "map"])
def test_a_coroutine_or_iterator_as_a_result_fails_at_the_first_record(
    app: App, function: Callable[[Flight], object], kind: str, verb: str
) -> None:
    flights = flights_of(app)
    if verb == "stage":
        app.stage(flights)(function)
    else:
        flights.map(function)
    with app.test() as job, pytest.raises(StageError, match=f"returned '{kind}'") as caught:
        sent(job, Flight("UA", 1, None), Flight("UA", 2, None))
    assert caught.value.offset == 0


def test_an_async_predicate_is_refused(app: App) -> None:
    predicate: Any = in_a_while
    flights = flights_of(app)
    with pytest.raises(TopologyError, match="got the async function 'in_a_while'"):
        flights.filter(predicate)
    flights.filter(lambda flight: predicate(flight))
    with app.test() as job, pytest.raises(StageError, match="must not be async"):
        sent(job)


def test_a_generator_as_a_function_sink_is_refused(app: App) -> None:
    flights = flights_of(app)
    with pytest.raises(TopologyError, match="'show' is a generator"):

        @app.sink(flights)  # type: ignore[arg-type]
        def show(flight: Flight) -> Iterator[str]:
            yield flight.carrier


def test_a_function_sink_with_a_context_is_refused(app: App) -> None:
    flights = flights_of(app)
    with pytest.raises(TopologyError, match="'show' has a context parameter"):

        @app.sink(flights)  # type: ignore[arg-type]
        def show(flight: Flight, context: Context[str]) -> None: ...


def test_a_topic_sink_that_returns_nothing_is_refused(app: App) -> None:
    with pytest.raises(TopologyError, match="returns nothing"):

        @app.sink(flights_of(app), to="out")
        def show(flight: Flight) -> None: ...


# --- annotations ------------------------------------------------------------------


def test_an_annotation_can_use_a_class_of_the_enclosing_function(app: App) -> None:
    class Row(msgspec.Struct):
        carrier: str

    @app.source("flights")
    def rows(row: Row) -> Row:
        return row

    assert results(app, rows) == [Row("UA")]


def test_an_annotation_can_use_a_class_of_an_outer_function_if_the_body_uses_it(app: App) -> None:
    class Row(msgspec.Struct):
        carrier: str

    def decorate() -> Stream[Row]:
        @app.source("flights")
        def rows(row: Row) -> Row:
            return Row(row.carrier.lower())

        return rows

    assert results(app, decorate()) == [Row("ua")]


def test_a_class_that_cannot_be_resolved_is_reported(app: App) -> None:
    class Row(msgspec.Struct):
        carrier: str

    def decorate() -> None:
        @app.source("flights")
        def rows(row: Row) -> str:
            return row.carrier

    with pytest.raises(TopologyError, match="'rows' use 'Row'") as caught:
        decorate()
    assert caught.value.at.startswith(f"{HERE}:")


def test_a_type_imported_for_checkers_only_is_reported(app: App) -> None:
    with pytest.raises(TopologyError, match="'OnlyForCheckers', which does not exist") as caught:

        @app.source("flights")
        def rows(row: OnlyForCheckers) -> str:
            return str(row)

    assert "TYPE_CHECKING" in caught.value.hint


class Wrapped(msgspec.Struct, Generic[T]):
    carrier: T


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Wrapped[str], Wrapped("UA")),
        (Annotated[dict[str, Any], "a row"], {"carrier": "UA", "flight": 7, "arr_delay": 20.0}),
        (bytes, b'{"carrier":"UA","flight":7,"arr_delay":20.0}'),
        (str, '{"carrier":"UA","flight":7,"arr_delay":20.0}'),
        (Flight | None, Flight("UA", 7, 20.0)),
        (Any, {"carrier": "UA", "flight": 7, "arr_delay": 20.0}),
    ],
)
def test_a_topic_is_decoded_to_the_annotated_type(app: App, kind: Any, value: object) -> None:
    def rows(row: Any) -> Any:
        return row

    rows.__annotations__ = {"row": kind, "return": kind}
    assert results(app, app.source("flights")(rows)) == [value]


def test_a_new_type_is_decoded_as_its_underlying_type(app: App) -> None:
    @app.source("minutes")
    def minutes(row: Minutes) -> Minutes:
        return row

    with app.test() as job:
        job.send(minutes, 2.5)
        assert job.output(minutes) == [2.5]


def test_a_record_is_passed_with_its_key(app: App) -> None:
    @app.source("flights")
    def keys(record: Record[Flight]) -> str:
        return f"{record.key_text} {record.value.flight}"

    with app.test() as job:
        job.send("flights", Record(Flight("UA", 7, None), key=b"AA"))
        assert job.output(keys) == ["AA 7"]


def test_a_source_without_annotation_is_refused(app: App) -> None:
    with pytest.raises(TopologyError, match="the parameter of the source"):
        app.source("flights")(lambda row: row)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Context, b"UA"),
        (Context[str], "UA"),
        (Context[str | None], "UA"),
        (Context[bytes], b"UA"),
        (Context[bytes | None], b"UA"),
        (Context[Any], b"UA"),
    ],
)
def test_a_context_has_a_key_of_the_annotated_type(app: App, kind: Any, key: object) -> None:
    def key_of(flight: Flight, context: Context[Any]) -> object:
        return context.key

    key_of.__annotations__["context"] = kind
    stage = app.stage(flights_of(app))(key_of)
    with app.test() as job:
        job.send("flights", Record(Flight("UA", 7, None), key=b"UA"))
        assert job.output(stage) == [key]


def test_a_context_with_another_key_type_is_refused(app: App) -> None:
    with pytest.raises(TopologyError, match="cannot have keys of type <class 'int'>") as caught:

        @app.stage(flights_of(app))
        def numbered(flight: Flight, context: Context[int]) -> int:
            return context.key

    assert caught.value.at.startswith(f"{HERE}:")


# --- other callables --------------------------------------------------------------


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, flight: Flight) -> float | None:
        return None if flight.arr_delay is None else flight.arr_delay * self.factor

    def __call__(self, flight: Flight) -> Iterator[float]:
        yield self.factor
        yield self.factor

    @staticmethod
    def number(flight: Flight) -> int:
        return flight.flight

    @classmethod
    def named(cls, flight: Flight) -> str:
        return cls.__name__ + flight.carrier


def scaled(flight: Flight, factor: float = 1.0, *, offset: float = 0.0) -> float:
    return flight.flight * factor + offset


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (scaled, [7.0]),
        (functools.partial(scaled, factor=2.0, offset=1.0), [15.0]),
        (functools.partial(functools.partial(scaled, factor=2.0), offset=2.0), [16.0]),
        (Scale(2.0).apply, [40.0]),
        (Scale(2.0), [2.0, 2.0]),
        (Scale.number, [7]),
        (Scale.named, ["ScaleUA"]),
        (lambda flight: flight.carrier, ["UA"]),
        (len, None),
    ],
    ids=["defaults", "partial", "partial of partial", "bound method", "callable object",
         "static method", "class method", "lambda", "of C"],
)  # fmt: skip
def test_any_callable_can_be_a_stage(
    app: App, function: Callable[[Any], Any], expected: list[object] | None
) -> None:
    if expected is None:
        stage = app.stage(app.stream("text", str), name="stage")(function)
        with app.test() as job:
            job.send("text", "four")
            assert job.output(stage) == [4]
    else:
        stage = app.stage(flights_of(app), name="stage")(function)
        assert results(app, stage) == expected


def test_a_method_in_a_class_body_is_refused(app: App) -> None:
    flights = flights_of(app)
    with pytest.raises(TopologyError, match="first parameter is 'self'"):

        class Jobs:
            @app.stage(flights)  # type: ignore[arg-type]
            def carrier(self, flight: Flight) -> str:
                return flight.carrier


def test_a_function_without_parameters_is_refused(app: App) -> None:
    flights = flights_of(app)
    with pytest.raises(TopologyError, match="has no parameters"):

        @app.stage(flights)  # type: ignore[arg-type]
        def nothing() -> str:
            return ""


def test_reading_a_stage_wrapped_in_another_decorator_is_refused(app: App) -> None:
    @logged
    @app.stage(flights_of(app))
    def carrier(flight: Flight) -> str:
        return flight.carrier

    with pytest.raises(TopologyError, match="needs a stream, but this is <function"):
        app.stage(carrier)  # type: ignore[call-overload]


def test_reading_a_sink_or_a_name_is_refused(app: App) -> None:
    @app.sink(flights_of(app))
    def show(flight: Flight) -> None: ...

    with pytest.raises(TopologyError, match="a sink, which nothing can read"):
        app.stage(show)  # type: ignore[call-overload]
    with pytest.raises(TopologyError, match="needs a stream, but this is 'flights'"):
        app.stage("flights")  # type: ignore[call-overload]


def test_one_function_can_be_two_stages(app: App) -> None:
    flights = flights_of(app)
    one, two = app.stage(flights, name="one")(scaled), app.stage(flights, name="two")(scaled)
    with app.test() as job:
        sent(job)
        assert job.output(one) == job.output(two) == [7.0]


# --- generator sources ------------------------------------------------------------


def test_a_generator_with_defaults_is_a_source(app: App) -> None:
    @app.source
    def numbers(count: int = 3) -> Iterator[int]:
        yield from range(count)

    assert numbers.node.value_type is int
    assert list(numbers()) == [0, 1, 2]


def test_a_generator_source_with_parameters_is_refused(app: App) -> None:
    with pytest.raises(TopologyError, match="'numbers' has the parameters count"):

        @app.source  # type: ignore[arg-type]
        def numbers(count: int) -> Iterator[int]:
            yield count


def test_a_plain_function_as_a_source_without_topic_is_refused(app: App) -> None:
    with pytest.raises(TopologyError, match="needs a generator"):

        @app.source  # type: ignore[arg-type]
        def number() -> int:
            return 1


def test_an_async_generator_is_a_source(app: App) -> None:
    @app.source
    async def ticks() -> AsyncIterator[float]:
        yield 1.0

    assert ticks.node.value_type is float


# --- signature and docstring of a decorated function -------------------------------


@pytest.fixture
def carrier(app: App) -> Stage[..., str, str]:
    @app.stage(flights_of(app))
    def carrier(flight: Flight, suffix: str = "") -> str:
        """Return the carrier."""
        return flight.carrier + suffix

    return carrier


def test_a_stage_has_the_signature_and_docstring_of_its_function(
    carrier: Stage[..., str, str],
) -> None:
    shown = inspect.signature(carrier)
    assert str(shown) == "(flight: 'Flight', suffix: 'str' = '') -> 'str'"
    assert typing.get_type_hints(carrier) == {"flight": Flight, "suffix": str, "return": str}
    assert inspect.getdoc(carrier) == "Return the carrier."
    assert carrier.__module__ == __name__
    assert getattr(carrier, "__name__", "") == "carrier"
    assert inspect.unwrap(carrier).__code__.co_filename == __file__


def test_a_stage_can_be_called_like_its_function(carrier: Stage[..., str, str]) -> None:
    assert carrier(Flight("UA", 1, None)) == "UA"
    assert carrier(flight=Flight("UA", 1, None), suffix="!") == "UA!"


def test_a_sink_has_the_signature_and_docstring_of_its_function(app: App) -> None:
    @app.sink(flights_of(app), to="late")
    def late(flight: Flight) -> Late:
        """Convert it."""
        return Late(flight.carrier, 1.0)

    assert isinstance(late, Sink)
    assert str(inspect.signature(late)) == "(flight: 'Flight') -> 'Late'"
    assert inspect.getdoc(late) == "Convert it."
    assert late(Flight("UA", 1, None)) == Late("UA", 1.0)


# --- twins ------------------------------------------------------------------------

APP = """
from streamkit import App

app = App("twins", include=["pkg.flights"])

if __name__ == "__main__":
    app.run(embedded=True)
"""
FLIGHTS = """
from pkg.app import app

app.stream("flights", bytes).to("copies")
"""


@pytest.mark.parametrize("arguments", [["-m", "pkg.app"], ["pkg/app.py"]])
@pytest.mark.parametrize("own", ["", 'app.stream("planes", bytes).to("kept")\n'])
def test_a_file_that_is_run_and_imported_is_refused(
    tmp_path: Path, arguments: list[str], own: str
) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "app.py").write_text(APP.replace("\nif", f"{own}\nif"))
    (package / "flights.py").write_text(FLIGHTS)
    path = f"{tmp_path}:{HERE.parent.parent.parent}"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "the app 'twins' exists twice, in __main__ and in pkg.app" in done.stderr
    assert "hint: run it by its module name: streamkit run pkg.app" in done.stderr


def test_two_apps_with_the_same_name_in_one_file_are_accepted() -> None:
    one, two = App("pair"), App("pair")
    for app in (one, two):
        flights_of(app).to("copies")
        app.check()


def test_an_app_without_stages_reports_that_it_has_none() -> None:
    with pytest.raises(TopologyError, match=r"(?m)the app has no stages$"):
        App("lonely").check()
