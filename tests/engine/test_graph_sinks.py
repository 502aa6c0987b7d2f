"""A sink that cannot write, or would overwrite another one, is refused at its line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit import App
from streamkit.connectors.files import JsonLines
from streamkit.dataflow.contracts import ConnectorEnv, Sink
from streamkit.dataflow.stream import Stream
from streamkit.errors import TopologyError, UsageError
from streamkit.policies import dead_letter

HERE = Path(__file__)


def numbers_of(app: App) -> Stream[Any]:
    return app.stream("numbers", int)


def plus_ten(number: int) -> int:
    return number + 10


class Table:
    def open(self) -> None: ...

    def write(self, rows: list[Any]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class HalfATable:
    def open(self) -> None: ...

    def write(self, rows: list[Any]) -> None: ...


class Connector(Sink[Any]):
    def __init__(self, resource: str | None) -> None:
        self._resource = resource

    def writer(self, env: ConnectorEnv) -> Any: ...

    def resource(self) -> str | None:
        return self._resource


def same_object() -> tuple[Any, Any]:
    table = Table()
    return table, table


def relative_and_absolute(folder: Path) -> tuple[Any, Any]:
    return JsonLines("rows.jsonl"), JsonLines(folder / "rows.jsonl")


def by_a_link(folder: Path) -> tuple[Any, Any]:
    (folder / "link").symlink_to(folder)
    return JsonLines(folder / "link" / "rows.jsonl"), JsonLines(str(folder / "rows.jsonl"))


@pytest.mark.parametrize(
    "targets",
    [
        lambda folder: same_object(),
        relative_and_absolute,
        by_a_link,
        lambda folder: (Connector("table rows"), Connector("table rows")),
        lambda folder: (JsonLines(folder / "a" / ".." / "x"), JsonLines(folder / "x")),
    ],
)
def test_two_sinks_with_the_same_resource_are_refused(
    targets: Callable[[Path], tuple[Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = targets(tmp_path)
    app = App("app")
    numbers = numbers_of(app)
    numbers.to(one, name="one")
    numbers.to(two, name="two")
    with pytest.raises(TopologyError, match=r"'two' writes to .* and so does 'one' at") as caught:
        app.check()
    assert caught.value.at.startswith(f"{HERE}:")
    assert str(caught.value).count(str(HERE)) == 2


def test_sinks_with_different_resources_are_accepted(tmp_path: Path) -> None:
    app = App("app")
    numbers = numbers_of(app)
    for target in (
        Table(),
        Table(),
        JsonLines(tmp_path / "a"),
        JsonLines(tmp_path / "b"),
        "t",
        "t",
    ):
        numbers.to(target)
    shared = Connector(None)
    numbers.to(shared)
    numbers.to(shared)
    app.sink(numbers, name="f1")(print)
    app.sink(numbers, name="f2")(print)
    app.check()


@pytest.mark.parametrize("target", [42, None, Table, JsonLines, HalfATable(), print, [], b"out"])
def test_an_invalid_sink_target_is_refused(target: Any) -> None:
    numbers = numbers_of(App("app"))
    with pytest.raises(TopologyError, match="not a sink") as caught:
        numbers.to(target)
    assert caught.value.at.startswith(f"{HERE}:")


class WritesNothing(Table):
    def write(self) -> None: ...  # type: ignore[override]


class FlushesNever(Table):
    def flush(self) -> Iterator[None]:  # type: ignore[override]
        yield


class OpensWithAPath(Table):
    def open(self, path: str) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (WritesNothing(), "write of .* cannot be called with a list of values"),
        (FlushesNever(), "flush of .* it is a generator"),
        (OpensWithAPath(), "open of .* cannot be called with nothing: missing"),
    ],
)
def test_an_object_whose_methods_cannot_be_called_is_refused(target: Any, words: str) -> None:
    numbers = numbers_of(App("app"))
    with pytest.raises(TopologyError, match=words) as caught:
        numbers.to(target)
    assert caught.value.at.startswith(f"{HERE}:")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"colour": "red"}, "'colour' is not a valid option"),
        ({"max_request_size": 0}, "max_request_size=0"),
        ({"batch_size": "5"}, "batch_size='5'"),
        ({"compression": "lzma"}, "'lzma'"),
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any], word: str) -> None:
    app = App("app")
    numbers = numbers_of(app)
    with pytest.raises(UsageError, match=word):
        numbers.to("out", **options)
    with pytest.raises(UsageError, match=word):
        app.sink(numbers, to="out", **options)(plus_ten)


def test_topic_options_without_a_topic_are_refused() -> None:
    app = App("app")
    numbers = numbers_of(app)
    with pytest.raises(UsageError, match="linger: only a topic has this option"):
        app.sink(numbers, linger=1)(print)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="linger: only a topic has this option"):
        numbers.to(Table(), linger=1)
    with pytest.raises(UsageError, match="'colour' is not a valid option"):
        app.stream("rows", int, colour="red")  # type: ignore[call-overload]


def test_a_stage_that_reads_its_own_dead_letters_is_refused() -> None:
    app = App("loop")
    numbers_of(app).map(plus_ten).map(plus_ten, on_error=dead_letter("numbers")).to("sums")
    with pytest.raises(
        TopologyError, match="'plus-ten-2' reads topic 'numbers', and also"
    ) as found:
        app.check()
    assert found.value.at is not None
    assert found.value.at.startswith(str(HERE))


def test_a_source_whose_dead_letters_go_to_its_own_topic_is_refused() -> None:
    app = App("loop")
    app.stream("numbers", int, on_error=dead_letter("numbers")).to("sums")
    with pytest.raises(TopologyError, match="'numbers' reads topic 'numbers'"):
        app.check()


def test_another_stage_of_the_app_may_read_the_dead_letters() -> None:
    app = App("alerts")
    numbers_of(app).map(plus_ten, on_error=dead_letter("dead-numbers")).to("sums")
    app.stream("dead-numbers", bytes).map(len).to("sizes")
    app.check()
