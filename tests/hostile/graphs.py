"""Jobs with one hostile callable, for every place where a graph has callables.

Every graph reads the numbers 0 to COUNT - 1. It ends in a topic and in a recorder, which is a
function that records each value. Records reach the recorder after the hostile callable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from streamkit import App
from streamkit.dataflow.stream import Stream

COUNT = 40
TOPIC = "numbers"

# The hostile action for a value; it may return a `Replacement` for the usual result.
Trick = Callable[[int], Any]


@dataclass
class Ledger:
    """What the sink functions and classes received, over all runs."""

    recorded: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    flushed: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    overlaps: int = 0


class Replacement:
    """The value that a callable returns instead of its usual result."""

    def __init__(self, result: Any) -> None:
        self.result = result


def result_of(trick: Trick, value: int, usual: Any) -> Any:
    answer = trick(value)
    return answer.result if isinstance(answer, Replacement) else usual


@dataclass(frozen=True)
class Slot:
    """A place for a callable.

    ``stage`` is the name of the stage in its error. ``skips``: ``on_error="skip"`` skips its
    failures. ``is_list``: it gets lists of records.
    """

    name: str
    build: Callable[[App, Trick, Ledger, dict[str, Any]], None]
    stage: str
    skips: bool = True
    is_sink: bool = False
    is_list: bool = False


def numbers(app: App, **options: Any) -> Stream[int]:
    return app.stream(TOPIC, int, **options)


def add_sinks(app: App, stream: Stream[Any], ledger: Ledger) -> None:
    def recorder(value: object) -> None:
        assert isinstance(value, int), "the recorder expects numbers"
        ledger.recorded.append(value)

    app.sink(stream, name="recorder")(recorder)
    stream.to(f"out-{app.name}", name="copies")


class Format:
    """A custom format for values of a topic."""

    def __init__(self, trick: Trick) -> None:
        self._trick = trick

    def loads(self, data: bytes) -> Any:
        return result_of(self._trick, int(data), int(data))

    def dumps(self, value: Any) -> bytes:
        return b"%d" % value


def decode(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    add_sinks(app, numbers(app, value=Format(trick), name="hostile", **policy), ledger)


def decorated(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(value: int) -> int:
        found: int = result_of(trick, value, value)
        return found

    add_sinks(app, app.stage(numbers(app), name="hostile", **policy)(hostile), ledger)


def mapped(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    stream = numbers(app).map(
        lambda value: result_of(trick, value, value), name="hostile", **policy
    )
    add_sinks(app, stream, ledger)


def filtered(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    stream = numbers(app).filter(
        lambda value: result_of(trick, value, True), name="hostile", **policy
    )
    add_sinks(app, stream, ledger)


def expanded(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def several(value: int) -> Iterator[int]:
        result_of(trick, value, None)
        yield value

    add_sinks(app, numbers(app).flat_map(several, name="hostile", **policy), ledger)


def generator_stage(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(value: int) -> Iterator[int]:
        yield value
        result_of(trick, value, None)

    add_sinks(app, app.stage(numbers(app), name="hostile", **policy)(hostile), ledger)


def key(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = numbers(app)
    source.to(
        f"out-{app.name}",
        key=lambda value: result_of(trick, value, b"%d" % value),
        name="hostile",
        **policy,
    )
    app.sink(source, name="recorder")(lambda value: ledger.recorded.append(value))


def partitioner(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def choose(keys: list[bytes | None], count: int) -> list[int]:
        return [result_of(trick, int(each or b"0"), 0) for each in keys]

    source = numbers(app)
    source.to(
        f"out-{app.name}",
        key=lambda value: b"%d" % value,
        partitioner=choose,
        name="hostile",
        **policy,
    )
    app.sink(source, name="recorder")(lambda value: ledger.recorded.append(value))


def shaping(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = numbers(app)

    @app.sink(source, to=f"out-{app.name}", name="hostile", **policy)
    def hostile(value: int) -> Any:
        return result_of(trick, value, value)

    app.sink(source, name="recorder")(lambda value: ledger.recorded.append(value))


def each(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = numbers(app)

    def hostile(value: int) -> Any:
        answer = result_of(trick, value, None)
        ledger.written.append(value)
        return answer

    app.sink(source, name="hostile", **policy)(hostile)
    add_sinks(app, source, ledger)


def awaited(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = numbers(app)

    async def hostile(value: int) -> None:
        result_of(trick, value, None)
        ledger.written.append(value)

    app.sink(source, name="hostile", **policy)(hostile)
    add_sinks(app, source, ledger)


def lists(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = numbers(app)

    @app.sink(source, batch=5, name="hostile", **policy)
    def hostile(values: list[int]) -> Any:
        answers = [result_of(trick, value, None) for value in values]
        ledger.written.extend(values)
        return next((each for each in answers if each is not None), None)

    add_sinks(app, source, ledger)


class Table:
    """A sink class that buffers rows until they are flushed."""

    def __init__(self, trick: Trick, ledger: Ledger, hostile_call: str) -> None:
        self._trick = trick
        self._ledger = ledger
        self._hostile_call = hostile_call
        self._held: list[int] = []
        self._is_called = False

    def open(self) -> None:
        self._called("open", [])

    def write(self, rows: list[int]) -> Any:
        answer = self._called("write", rows)
        self._held.extend(rows)
        self._ledger.written.extend(rows)
        return answer

    async def flush(self) -> None:
        answer = self._called("flush", self._held)
        rows, self._held = self._held, []
        if hasattr(answer, "__await__"):
            await answer
        self._ledger.flushed.extend(rows)

    def close(self) -> None:
        self._called("close", [])

    def _called(self, what: str, rows: list[int]) -> Any:
        self._ledger.overlaps += self._is_called
        self._ledger.calls.append(what)
        if what != self._hostile_call:
            return None
        answers = [result_of(self._trick, row, None) for row in rows or [0]]
        return next((each for each in answers if each is not None), None)


def table(what: str) -> Callable[[App, Trick, Ledger, dict[str, Any]], None]:
    def build(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
        source = numbers(app)
        source.to(Table(trick, ledger, what), name="hostile", **policy)
        add_sinks(app, source, ledger)

    return build


def own_source(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(resume: int | None) -> Iterator[tuple[int, int]]:
        for value in range(0 if resume is None else resume + 1, COUNT):
            result_of(trick, value, None)
            yield value, value

    add_sinks(app, app.source(hostile), ledger)


def own_async_source(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    async def hostile(resume: int | None) -> AsyncIterator[tuple[int, int]]:
        for value in range(0 if resume is None else resume + 1, COUNT):
            result_of(trick, value, None)
            yield value, value

    add_sinks(app, app.source(hostile), ledger)


STAGES = [
    Slot("decode", decode, "hostile"),
    Slot("stage", decorated, "hostile"),
    Slot("map", mapped, "hostile"),
    Slot("filter", filtered, "hostile"),
    Slot("flat-map", expanded, "hostile"),
    Slot("generator-stage", generator_stage, "hostile"),
    Slot("key", key, "hostile"),
    Slot("partitioner", partitioner, "hostile"),
    Slot("shaping", shaping, "hostile"),
]
SINKS = [
    Slot("each", each, "hostile", is_sink=True),
    Slot("async-each", awaited, "hostile", is_sink=True),
    Slot("lists", lists, "hostile", is_sink=True, is_list=True),
    Slot("class-write", table("write"), "hostile", is_sink=True, is_list=True),
]
CALLS = [
    Slot("class-open", table("open"), "hostile", skips=False),
    Slot("class-flush", table("flush"), "hostile", skips=False),
    Slot("class-close", table("close"), "hostile", skips=False),
]
SOURCES = [
    Slot("source", own_source, "hostile", skips=False),
    Slot("async-source", own_async_source, "hostile", skips=False),
]
