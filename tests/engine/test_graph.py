"""A graph that cannot run is refused before anything starts, with the user's file and line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from streamkit import App, Context, Topic
from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.errors import ConfigError, TopologyError, UsageError
from streamkit.run import with_settings
from streamkit.settings import load_settings

if TYPE_CHECKING:
    from decimal import Decimal


class A(msgspec.Struct):
    x: int


class B(msgspec.Struct):
    y: int


def two_stages_with_one_name(app: App) -> None:
    numbers = app.stream("numbers", int)
    numbers.map(str, name="text")
    numbers.map(repr, name="text")  # HERE


def nothing_reads_it(app: App) -> None:
    app.stream("numbers", int)  # HERE
    app.check()


def a_sink_as_an_input(app: App) -> None:
    numbers = app.stream("numbers", int)

    @app.sink(numbers)
    def shown(number: int) -> None: ...

    app.stage(shown)  # type: ignore[call-overload]  # HERE


def a_stream_of_another_app(app: App) -> None:
    numbers = App("other").stream("numbers", int)

    @app.stage(numbers)  # HERE
    def text(number: int) -> str:
        return str(number)


def a_type_mismatch(app: App) -> None:
    numbers = app.stream("numbers", A)

    @app.stage(numbers)  # type: ignore[arg-type]  # HERE
    def text(b: B) -> str:
        return str(b)

    text.to("out")
    app.check()


def an_unbound_method(app: App) -> None:
    numbers = app.stream("numbers", int)

    class Stages:
        @app.stage(numbers)  # type: ignore[arg-type]  # HERE
        def text(self, number: int) -> str:
            return str(number)


def an_async_source(app: App) -> None:
    @app.source("numbers")  # HERE
    async def text(number: int) -> str:
        return str(number)


def a_generator_annotated_iterable(app: App) -> None:
    numbers = app.stream("numbers", int)

    @app.stage(numbers)  # HERE
    def text(number: int) -> Iterable[str]:
        yield str(number)


def an_untyped_source(app: App) -> None:
    @app.source("numbers")  # HERE
    def numbers(number):  # type: ignore[no-untyped-def]
        return number


def an_untyped_stream(app: App) -> None:
    app.stream("numbers")  # type: ignore[call-overload]  # HERE


def a_union_without_tags(app: App) -> None:
    @app.source("rows")  # HERE
    def rows(row: A | B) -> A | B:
        return row


def an_import_for_type_checkers_only(app: App) -> None:
    @app.source("prices")  # HERE
    def prices(price: Decimal) -> Decimal:
        return price


def a_stage_without_parameters(app: App) -> None:
    numbers = app.stream("numbers", int)

    @app.stage(numbers)  # type: ignore[arg-type]  # HERE
    def nothing() -> int:
        return 1


def a_topic_sink_that_returns_nothing(app: App) -> None:
    numbers = app.stream("numbers", int)

    @app.sink(numbers, to="out")  # HERE
    def out(number: int) -> None: ...


def a_source_that_is_not_a_generator(app: App) -> None:
    @app.source  # type: ignore[arg-type]  # HERE
    def numbers() -> int:
        return 1


def an_invalid_stage_name(app: App) -> None:
    app.stream("numbers", int, name="No Name")  # HERE


PROBLEMS: dict[Callable[[App], None], tuple[str, str]] = {
    two_stages_with_one_name: ("two stages have the name 'text'", "another name"),
    nothing_reads_it: ("nothing reads 'numbers'", "add a sink for it"),
    a_sink_as_an_input: ("a sink, which nothing can read", "source or stage"),
    a_stream_of_another_app: ("which belongs to another App", ""),
    a_type_mismatch: ("'text' expects B, but 'numbers' produces A", ""),
    an_unbound_method: ("'text' is an unbound method", "plain function"),
    an_async_source: ("'text' is an async function", "plain function"),
    a_generator_annotated_iterable: ("the generator 'text' is annotated as", "Iterator"),
    an_untyped_source: ("the parameter of the source 'numbers' has no type", "annotate"),
    an_untyped_stream: ("have no type", "give their type"),
    a_union_without_tags: ("cannot be decoded", "tag=True"),
    an_import_for_type_checkers_only: ("use 'Decimal', which does not exist", "TYPE_CHECKING"),
    a_stage_without_parameters: ("'nothing' has no parameters", ""),
    a_topic_sink_that_returns_nothing: ("returns nothing, so nothing would be", "leave out to="),
    a_source_that_is_not_a_generator: ("needs a generator, but 'numbers' is not one", "yield"),
    an_invalid_stage_name: ("'No Name' is not a valid stage name", "name="),
}


@pytest.mark.parametrize("build", PROBLEMS, ids=lambda build: build.__name__)
def test_an_invalid_graph_is_refused_with_the_line_of_the_user_code(
    build: Callable[[App], None],
) -> None:
    words, hint = PROBLEMS[build]
    lines, first = inspect.getsourcelines(build)
    (line,) = [at for at, text in enumerate(lines, first) if "# HERE" in text]
    with pytest.raises(TopologyError) as caught:
        build(App("graph"))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{__file__}:{line}: ")
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_an_app_without_stages_is_refused() -> None:
    with pytest.raises(TopologyError, match="the app has no stages"):
        App("empty").check()


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-", "x" * 64])
def test_an_invalid_app_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        App(name)


def test_functions_and_generators_may_have_a_context() -> None:
    app = App("fine")
    numbers = app.stream("numbers", int)

    @app.stage(numbers)
    def once(number: int, context: Context[str]) -> int:
        return number

    @app.stage(once)
    def twice(number: int, context: Context[str]) -> Iterator[int]:
        yield number
        yield number

    twice.to("out")
    app.check()


def test_an_invalid_on_error_is_refused() -> None:
    with pytest.raises(UsageError, match="on_error='ignore'"):
        App("app").stream("numbers", int, on_error="ignore")  # type: ignore[call-overload]


def test_an_included_module_that_is_missing_is_named() -> None:
    with pytest.raises(TopologyError, match="module 'no_such_module' does not exist"):
        App("app", include=["no_such_module"]).check()


def topics_of(app: App, folder: Path, environment: dict[str, str], **given: str) -> list[str]:
    assignments = {name.replace("__", "."): value for name, value in given.items()}
    settings = load_settings(folder, environment, assignments)
    return [
        node.endpoint.topic
        for node in with_settings(app.topology, settings).nodes
        if isinstance(node.endpoint, TopicSource | TopicSink)
    ]


def test_the_setting_of_a_topic_name_with_the_highest_priority_is_used(tmp_path: Path) -> None:
    app = App("app")
    app.stream(Topic("a", int)).to("b")
    assert topics_of(app, tmp_path, {}) == ["a", "b"]
    (tmp_path / "pyproject.toml").write_text('[tool.streamkit.topics]\na = "1"\nb = "1"\n')
    assert topics_of(app, tmp_path, {}) == ["1", "1"]
    (tmp_path / "streamkit.toml").write_text('[topics]\na = "2"\n')
    assert topics_of(app, tmp_path, {}) == ["2", "1"]
    environment = {"STREAMKIT_TOPICS_A": "3"}
    assert topics_of(app, tmp_path, environment) == ["3", "1"]
    assert topics_of(app, tmp_path, environment, topics__a="4") == ["4", "1"]


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'color' is not a valid setting"):
        load_settings(tmp_path, {}, {"color": "red"})


@pytest.mark.parametrize("text", ["[topics", 'topics = "a"', "cluster = 5", "[topics]\na = 5"])
def test_an_invalid_settings_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "streamkit.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"streamkit\.toml"):
        load_settings(tmp_path, {}, {})
