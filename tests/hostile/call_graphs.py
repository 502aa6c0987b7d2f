"""Jobs whose hostile callable is called outside of slices, or again after it has failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import polars

from streamkit import App, Record
from streamkit.dataflow.stream import Stream
from tests.hostile.graphs import TOPIC, Ledger, Slot, Table, Trick, add_sinks, numbers, result_of

KEYS = 7
Build = Callable[[App, Trick, Ledger, dict[str, Any]], None]


def keyed(app: App) -> Stream[int]:
    return numbers(app).key_by(lambda value: b"%d" % (value % KEYS))


async def wait_unevenly(value: int) -> None:
    """Let calls end in another order than they began."""
    await asyncio.sleep(0.001 * (2 - value % 3))


def awaiting(**options: Any) -> Build:
    def build(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
        async def hostile(value: int) -> int:
            await wait_unevenly(value)
            found: Any = result_of(trick, value, value)
            if hasattr(found, "begin"):  # see `Awaited` of the matrix
                found = await found.begin()
            return value if found is None else found

        add_sinks(app, app.stage(keyed(app), name="hostile", **options, **policy)(hostile), ledger)

    return build


def async_generator(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    async def hostile(value: int) -> AsyncIterator[int]:
        await wait_unevenly(value)
        yield value
        result_of(trick, value, None)

    add_sinks(app, app.stage(keyed(app), name="hostile", **policy)(hostile), ledger)


def threads(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(value: int) -> int:
        time.sleep(0.001 * (2 - value % 3))
        found: int = result_of(trick, value, value)
        return found

    stage = app.stage(keyed(app), name="hostile", blocking=True, **policy)(hostile)
    add_sinks(app, stage, ledger)


def thread_generator(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(value: int) -> Iterator[int]:
        yield value
        result_of(trick, value, None)

    stage = app.stage(keyed(app), name="hostile", blocking=True, **policy)(hostile)
    add_sinks(app, stage, ledger)


def batches(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(values: list[int]) -> list[int]:
        return [result_of(trick, value, value) for value in values]

    add_sinks(app, app.stage(keyed(app), name="hostile", batch=5, **policy)(hostile), ledger)


def async_batches(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    async def hostile(values: list[int]) -> list[int]:
        return [result_of(trick, value, value) for value in values]

    options = {"batch": 5, "concurrency": 3, "name": "hostile", **policy}
    add_sinks(app, app.stage(keyed(app), **options)(hostile), ledger)


def iterated_batches(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(values: list[int]) -> Iterator[int]:
        for value in values:
            result_of(trick, value, None)
            yield value

    add_sinks(app, app.stage(keyed(app), name="hostile", batch=5, **policy)(hostile), ledger)


def records(app: App) -> Stream[Record[int]]:
    """Return the numbers with a type that has columns."""
    return app.stream(TOPIC, Record[int]).key_by(lambda record: b"%d" % (record.value % KEYS))


def frames(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(frame: polars.DataFrame) -> list[int]:
        return [result_of(trick, value, value) for value in frame["value"]]

    add_sinks(app, app.stage(records(app), name="hostile", batch=5, **policy)(hostile), ledger)


def called_frames(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(frame: polars.DataFrame) -> Iterator[int]:
        for value in frame["value"]:
            result_of(trick, value, None)
            yield value

    add_sinks(app, app.stage(records(app), name="hostile", batch=5, **policy)(hostile), ledger)


def async_frames(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    async def hostile(frame: polars.DataFrame) -> list[int]:
        return [result_of(trick, value, value) for value in frame["value"]]

    options = {"batch": 5, "concurrency": 3, "name": "hostile", **policy}
    add_sinks(app, app.stage(records(app), **options)(hostile), ledger)


def frame_sink(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = records(app)

    @app.sink(source, batch=5, name="hostile", **policy)
    def hostile(frame: polars.DataFrame) -> Any:
        answers = [result_of(trick, value, None) for value in frame["value"]]
        ledger.written.extend(frame["value"])
        return next((each for each in answers if each is not None), None)

    add_sinks(app, source.map(lambda record: record.value), ledger)


def async_shaping(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = keyed(app)

    @app.sink(source, to=f"out-{app.name}", name="hostile", **policy)
    async def hostile(value: int) -> Any:
        await wait_unevenly(value)
        return result_of(trick, value, value)

    app.sink(source, name="recorder")(lambda value: ledger.recorded.append(value))


def plain(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    def hostile(value: int) -> int:
        found: int = result_of(trick, value, value)
        return found

    add_sinks(app, app.stage(keyed(app), name="hostile", **policy)(hostile), ledger)


def async_sink(**options: Any) -> Build:
    def build(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
        source = keyed(app)

        async def hostile(value: int) -> Any:
            await wait_unevenly(value)
            answer = result_of(trick, value, None)
            ledger.written.append(value)
            return answer

        app.sink(source, name="hostile", **options, **policy)(hostile)
        add_sinks(app, source, ledger)

    return build


def thread_sink(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = keyed(app)

    def hostile(value: int) -> Any:
        answer = result_of(trick, value, None)
        time.sleep(0.0005)  # so that several threads work at a time
        ledger.written.append(value)
        return answer

    app.sink(source, name="hostile", blocking=True, **policy)(hostile)
    add_sinks(app, source, ledger)


def plain_sink(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = keyed(app)

    def hostile(value: int) -> Any:
        answer = result_of(trick, value, None)
        ledger.written.append(value)
        return answer

    app.sink(source, name="hostile", **policy)(hostile)
    add_sinks(app, source, ledger)


def list_sink(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = keyed(app)

    @app.sink(source, batch=5, name="hostile", **policy)
    def hostile(values: list[int]) -> Any:
        answers = [result_of(trick, value, None) for value in values]
        ledger.written.extend(values)
        return next((each for each in answers if each is not None), None)

    add_sinks(app, source, ledger)


def class_sink(app: App, trick: Trick, ledger: Ledger, policy: dict[str, Any]) -> None:
    source = keyed(app)
    source.to(Table(trick, ledger, "write"), name="hostile", **policy)
    add_sinks(app, source, ledger)


IN_ORDER = [
    Slot("async", awaiting(), "hostile"),
    Slot("async-generator", async_generator, "hostile"),
    Slot("threads", threads, "hostile"),
    Slot("thread-generator", thread_generator, "hostile"),
    Slot("batches", batches, "hostile", is_list=True),
    Slot("async-batches", async_batches, "hostile", is_list=True),
    Slot("iterated-batches", iterated_batches, "hostile", is_list=True),
    Slot("frames", frames, "hostile", is_list=True),
    Slot("called-frames", called_frames, "hostile", is_list=True),
    Slot("async-frames", async_frames, "hostile", is_list=True),
]
BY_KEY = [
    Slot("async-by-key", awaiting(ordered="key"), "hostile"),
    Slot("async-as-they-come", awaiting(ordered=False), "hostile"),
    Slot("async-shaping", async_shaping, "hostile"),
]
# Without retries the task calls these itself: the matrix of plain callables has them.
RETRIED = [Slot("plain", plain, "hostile")]
CALLED_SINKS = [
    Slot("async-sink", async_sink(concurrency=4), "hostile", is_sink=True),
    Slot("async-sink-in-order", async_sink(concurrency=4, ordered=True), "hostile", is_sink=True),
    Slot("thread-sink", thread_sink, "hostile", is_sink=True),
    Slot("frame-sink", frame_sink, "hostile", is_sink=True, is_list=True),
]
RETRIED_SINKS = [
    Slot("plain-sink", plain_sink, "hostile", is_sink=True),
    Slot("list-sink", list_sink, "hostile", is_sink=True, is_list=True),
    Slot("class-sink", class_sink, "hostile", is_sink=True, is_list=True),
]
