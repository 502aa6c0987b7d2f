"""The rules of calls outside of slices, each with a case that has failed before."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from streamkit import App, Context
from streamkit.policies import retry
from streamkit.run import RunOptions
from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_FAILED
from streamkit.sync import Client
from tests.hostile.graphs import COUNT, TOPIC
from tests.hostile.running import DEADLINE_S, Outcome, Place

NUMBERS = list(range(COUNT))
ONCE = RunOptions(once=True, create_topics=True, commit_interval_s=0.05, stop_deadline_s=DEADLINE_S)
_names = itertools.count()


def new_app() -> App:
    return App(f"call-rules-{next(_names)}")


def run(place: Place, app: App, options: RunOptions = ONCE) -> Outcome:
    prepared, reports = place.run(app, options=options)
    return place.finish(prepared, reports)


# --- tasks that the user's code cancels -------------------------------------------------


def test_a_call_that_cancels_its_own_task_does_not_fail_the_next_call(place: Place) -> None:
    app, recorded = new_app(), list[int]()
    numbers = app.stream(TOPIC, int)

    @app.stage(numbers, concurrency=2)
    async def cancels(value: int) -> int:
        if value == 5:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        elif value > 6:
            await asyncio.sleep(0)
        return value

    app.sink(cancels, name="recorder")(recorded.append)
    outcome = run(place, app)
    assert outcome.code == EXIT_CLEAN, outcome.error
    assert recorded == NUMBERS


def test_cancelling_the_tasks_that_wait_for_calls_does_not_stop_the_calls(place: Place) -> None:
    app, recorded = new_app(), list[int]()

    def ticks(resume: int | None) -> Iterator[tuple[int, int]]:
        for number in range(20):
            time.sleep(0.01)
            yield number, number

    @app.stage(app.source(ticks), concurrency=4)
    async def cancels(value: int) -> int:
        if value < 4:
            await asyncio.sleep(0.05)  # so that four tasks make calls
        if value == 10:
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task() and "_work" in repr(task.get_coro()):
                    task.cancel()
        return value

    app.sink(cancels, name="recorder")(recorded.append)
    outcome = run(place, app)
    assert outcome.code == EXIT_CLEAN, outcome.error
    assert recorded == list(range(20))


# --- results ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_an_iterator_of_a_batch_that_raises_any_error_fails_its_batch(
    place: Place, is_async: bool
) -> None:
    app = new_app()
    numbers = app.stream(TOPIC, int)

    def leave(value: int) -> int:
        if value == 7:
            raise SystemExit(0)
        return value

    if is_async:

        @app.stage(numbers, batch=5, name="batches")
        async def awaited(values: list[int]) -> list[int]:
            return map(leave, values)  # type: ignore[return-value]

    else:

        @app.stage(numbers, batch=5, name="batches")
        def called(values: list[int]) -> Iterator[int]:
            return map(leave, values)

    stage = awaited if is_async else called
    app.sink(stage, name="recorder")(lambda value: None)
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "stage 'batches' failed on numbers-0 offset 5" in outcome.error
    assert "SystemExit" in outcome.error


def test_a_sink_with_retries_awaits_what_its_function_returns(place: Place) -> None:
    app, posted = new_app(), list[int]()

    async def post(value: int) -> None:
        await asyncio.sleep(0)
        posted.append(value)

    policy = retry(2, delay=0.01)
    app.sink(app.stream(TOPIC, int), name="posts", on_error=policy)(lambda value: post(value))
    outcome = run(place, app)
    assert outcome.code == EXIT_CLEAN, outcome.error
    assert posted == NUMBERS


def test_a_sink_in_threads_that_returns_a_coroutine_is_refused(place: Place) -> None:
    app = new_app()

    async def post(value: int) -> None: ...

    app.sink(app.stream(TOPIC, int), name="posts", blocking=True)(lambda value: post(value))
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "stage 'posts' failed on numbers-0 offset 0: TypeError" in outcome.error


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "threads"])
def test_a_key_that_the_context_cannot_show_fails_its_record(place: Place, blocking: bool) -> None:
    app = new_app()
    with Client.connect(place.address) as client:
        client.admin.create_topic(app.name)
        with client.producer(app.name) as producer:
            producer.send_many([b"1"], keys=[b"\xff\xfe"])
    values = app.stream(app.name, int)
    if blocking:

        @app.stage(values, name="hostile", blocking=True)
        def called(value: int, context: Context[str]) -> int:
            return value

    else:

        @app.stage(values, name="hostile")
        async def awaited(value: int, context: Context[str]) -> int:
            return value

    app.sink(called if blocking else awaited, name="recorder")(lambda value: None)
    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert f"stage 'hostile' failed on {app.name}-0 offset 0:" in outcome.error


def test_an_async_generator_that_never_waits_has_a_timeout(place: Place) -> None:
    app, recorded = new_app(), list[int]()

    @app.stage(app.stream(TOPIC, int), timeout=0.05, on_error="skip")
    async def endless(value: int) -> AsyncIterator[int]:
        until_s = time.monotonic() + 5
        while value == 5 and time.monotonic() < until_s:
            yield value
        yield value

    app.sink(endless, name="recorder")(recorded.append)
    outcome = run(place, app)
    assert outcome.code == EXIT_CLEAN, outcome.error
    assert "TimeoutError" in "".join(outcome.reports.notes)
    assert recorded == [number for number in NUMBERS if number != 5]
