"""A function that the graph cannot call is refused when the graph is built."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest

from streamkit import App, Context
from streamkit.dataflow.stream import Stream
from streamkit.errors import TopologyError

HERE = Path(__file__)
T = TypeVar("T")


async def slow(number: int) -> str:
    return str(number)


async def slow_stream(number: int) -> AsyncIterator[str]:
    yield str(number)


def several(number: int) -> Iterator[str]:
    yield str(number)


class SlowObject:
    async def __call__(self, number: int) -> str:
        return str(number)


def numbers_of(app: App) -> Stream[Any]:
    return app.stream("numbers", int)


NO_VALUE: dict[str, Any] = {
    "async": slow,
    "async partial": functools.partial(slow),
    "async object": SlowObject(),
    "async generator": slow_stream,
    "generator": several,
    "no parameter": lambda: 1,
    "two parameters": lambda one, two: 1,
    "keyword-only": lambda one, *, two: 1,
    "a number": 5,
    "a text": "id",
}
USES: dict[str, Callable[[Stream[Any], Any], object]] = {
    "map": lambda stream, given: stream.map(given),
    "filter": lambda stream, given: stream.filter(given),
    "key": lambda stream, given: stream.to("out", key=given),
    "key of a sink": lambda stream, given: stream_sink(stream, given),
    "partitioner": lambda stream, given: stream.to("out", partitioner=given),
}


def stream_sink(stream: Stream[Any], key: Any) -> object:
    app = App("twin")
    app.topology = stream._topology
    return app.sink(stream, to="out", key=key, name="out")(plus_ten)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("given", NO_VALUE)
def test_a_method_refuses_a_function_that_cannot_be_called_with_a_value(
    use: str, given: str
) -> None:
    if use == "partitioner" and given == "two parameters":
        return  # a partitioner has two parameters
    numbers = numbers_of(App("app"))
    with pytest.raises(TopologyError, match=f"{use.split()[0]}=? got") as caught:
        USES[use](numbers, NO_VALUE[given])
    assert caught.value.at.startswith(f"{HERE}:")


@pytest.mark.parametrize("given", [each for each in NO_VALUE if each != "generator"])
def test_flat_map_refuses_a_function_that_cannot_be_called_with_a_value(given: str) -> None:
    numbers = numbers_of(App("app"))
    with pytest.raises(TopologyError, match="flat_map got"):
        numbers.flat_map(NO_VALUE[given])


def first_partition(keys: Sequence[bytes | None], count: int) -> list[int]:
    return [0] * len(keys)


def test_methods_accept_every_callable_with_one_value() -> None:
    numbers = numbers_of(App("app"))
    for function in (str, float, repr, lambda *each: each, lambda one, two=2: one, attrgetter("x")):
        numbers.map(function)
    numbers.map(functools.partial(pow, 2)).map(app_stage(numbers)).filter(bool)
    numbers.flat_map(several).flat_map(list).flat_map(str.split)
    numbers.to("out", key=str, partitioner=first_partition)


def app_stage(numbers: Stream[Any]) -> Any:
    app = App("app")
    app.topology = numbers._topology

    @app.stage(numbers)
    def shown(number: int) -> str:
        return str(number)

    return shown


# --- parameters of decorated functions -----------------------------------------------


def second_without_annotation(value: int, context) -> int:  # type: ignore[no-untyped-def]
    return value


def second_of_another_type(value: int, context: int) -> int:
    return value


def three(value: int, context: Context[str], third: int) -> int:
    return value


def keyword_only(value: int, *, option: int) -> int:
    return value


def keyword_context(value: int, *, context: Context[str]) -> int:
    return value


def context_first(context: Context[str], value: int) -> int:
    return value


def context_third(value: int, option: int = 1, context: Context[str] | None = None) -> int:
    return value


def nothing() -> int:
    return 1


def only_keywords(**options: int) -> int:
    return 1


BAD_PARAMETERS = {
    second_without_annotation: (
        "'context', which is not a Context",
        "annotate it as context: Context",
    ),
    second_of_another_type: (
        "'context', which is not a Context",
        "annotate it as context: Context",
    ),
    three: ("missing a required argument: 'third'", "defaults"),
    keyword_only: ("argument: 'option'", "defaults"),
    keyword_context: ("has the Context in the parameter 'context'", "the value, then a State"),
    context_first: ("has the Context in the parameter 'context'", "the value, then a State"),
    context_third: ("has the Context in the parameter 'context'", "the value, then a State"),
    nothing: ("has no parameters", ""),
    only_keywords: ("has no parameters", ""),
}


@pytest.mark.parametrize("what", ["stage", "source", "sink", "own sink"])
@pytest.mark.parametrize("function", BAD_PARAMETERS, ids=lambda each: each.__name__)
def test_a_function_with_wrong_parameters_is_refused_with_its_line(
    function: Callable[..., Any], what: str
) -> None:
    app = App("app")
    words, hint = BAD_PARAMETERS[function]
    decorators: dict[str, Callable[[], Any]] = {
        "stage": lambda: app.stage(numbers_of(app)),
        "source": lambda: app.source("rows"),
        "sink": lambda: app.sink(numbers_of(app), to="out"),
        "own sink": lambda: app.sink(numbers_of(app)),
    }
    with pytest.raises(TopologyError) as caught:
        decorators[what]()(function)
    assert words in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.at == f"{HERE}:{inspect.getsourcelines(function)[1]}"


def optional_context(value: int, context: Context[str] | None = None) -> str:
    return "none" if context is None else context.topic


def noted_context(value: int, context: Annotated[Context[str], "a note"]) -> str:
    return context.topic


def anything(*values: Any) -> str:
    return str(len(values))


@pytest.mark.parametrize(
    ("function", "expected"),
    [(optional_context, "numbers"), (noted_context, "numbers"), (anything, "1")],
)
def test_optional_and_annotated_contexts_are_passed(
    function: Callable[..., str], expected: str
) -> None:
    app = App("app")
    stage = app.stage(numbers_of(app))(function)
    with app.test() as job:
        job.send("numbers", 1)
        assert job.output(stage) == [expected]


# --- functions that are decorated twice -------------------------------------------------


def plus_ten(number: int) -> int:
    return number + 10


def logged(function: Callable[[int], T]) -> Callable[[int], T]:
    @functools.wraps(function)
    def calling(number: int) -> T:
        return function(number)

    return calling


@pytest.mark.parametrize(
    "wrap", [lambda stage: stage, logged, functools.partial], ids=["as-it-is", "wrapped", "partial"]
)
def test_a_stage_that_is_decorated_again_becomes_a_second_stage(wrap: Any) -> None:
    app = App("twice")
    one, two = app.stream("one", int), app.stream("two", int)
    first = app.stage(one)(plus_ten)
    second = app.stage(two, name="second")(wrap(first))
    own: list[int] = []
    app.sink(two, name="own")(wrap(app.stage(one, name="noting")(lambda row: own.append(row))))
    shaped = app.sink(two, to="shaped", name="shaped")(wrap(first))
    app.sink(one, to="again", name="again")(wrap(shaped))
    first.to("out-one")
    second.to("out-two")
    app.topology.get("noting")
    assert (first.name, second.name) == ("plus-ten", "second")
    assert first(1) == second(1) == shaped(1) == 11
    with app.test() as job:
        job.send("one", 1)
        job.send("two", 2)
        assert job.output("out-one") == [b"11"]
        assert job.output("out-two") == [b"12"]
        assert job.output("shaped") == [b"12"]
        assert job.output("again") == [b"11"]


def test_a_source_that_is_decorated_again_becomes_a_second_source() -> None:
    app = App("twice")

    @app.source
    def numbers() -> Iterator[int]:
        yield 1

    @app.source("topic")
    def rows(row: int) -> int:
        return row

    app.source("other", name="other")(rows).to("out")
    rows.to("out-2")
    numbers.to("out-3")
    other = App("other")
    other.source(numbers).to("out")
    app.check()
    other.check()


@pytest.mark.parametrize("given", [5, "f", None, int, App])
def test_decorating_anything_but_a_function_is_refused(given: Any) -> None:
    app = App("app")
    numbers = numbers_of(app)
    for decorate in (
        app.stage(numbers),
        app.sink(numbers),
        app.sink(numbers, to="out"),
        app.source("t"),
    ):
        with pytest.raises(TopologyError, match="a decorator needs a function") as caught:
            decorate(given)
        assert caught.value.at.startswith(f"{HERE}:")


def test_a_function_of_batches_that_takes_one_value_is_refused() -> None:
    def one(number: int) -> list[int]:
        return [number]

    app = App("app")
    line = inspect.getsourcelines(one)[1]
    given: Any = (numbers_of(app),)
    decorators: list[Any] = [app.stage(*given, batch=3), app.sink(*given, batch=3)]
    for decorator in decorators:
        with pytest.raises(TopologyError, match="is annotated as int") as caught:
            decorator(one)
        assert caught.value.at == f"{HERE}:{line}"
        assert caught.value.hint == "annotate list[int], or leave out batch="


LISTS: list[Any] = [
    Any, object, list, list[int], Sequence[int], Iterable[int], Annotated[list[int], "rows"], T,
]  # fmt: skip


@pytest.mark.parametrize("annotation", LISTS)
def test_a_function_of_batches_may_name_a_list_in_many_ways(annotation: Any) -> None:
    def rows(numbers: Any) -> list[int]:
        return list(numbers)

    rows.__annotations__["numbers"] = annotation
    app = App("app")
    decorate: Any = app.stage
    decorate(numbers_of(app), batch=3)(rows).to("out")
    decorate = app.sink
    decorate(numbers_of(app), batch=3, name="written")(rows)
    app.check()


@pytest.mark.parametrize("text", ["int +", "Path.nowhere", "Nowhere", "list[int", "5()"])
def test_an_invalid_annotation_is_refused_with_its_line(text: str) -> None:
    def rows(row: Any) -> Any:
        return row

    rows.__annotations__["row"] = text
    app = App("app")
    line = inspect.getsourcelines(rows)[1]
    for decorate in (app.source("rows"), app.stage(numbers_of(app))):
        with pytest.raises(TopologyError, match="the annotations of 'rows'") as caught:
            decorate(rows)
        assert caught.value.at == f"{HERE}:{line}"
    numbers_of(App("other")).map(rows)
