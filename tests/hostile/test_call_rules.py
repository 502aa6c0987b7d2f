"""The rules of calls outside of slices, each with a case that has failed before."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from streamkit import App, Context
from streamkit.policies import retry
from streamkit.run import RunOptions
from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_FAILED
from streamkit.sync import Client
from streamkit.windows import Tumbling
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


def stopped_run(
    place: Place, app: App, stop: list[Callable[[], None]], data_dir: Path | None = None
) -> Outcome:
    """Run an app without --once; a call of ``stop[0]`` stops it in order."""
    options = replace(ONCE, once=False, data_dir=data_dir)
    prepared, reports = place.run(app, options=options)
    stop.append(lambda: prepared.signal_from_anywhere(15))
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

    @app.stage(app.stream(TOPIC, int), timeout=0.5, on_error="skip")
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


def test_later_records_of_a_key_are_not_called_before_a_retry(place: Place) -> None:
    app, begun = new_app(), list[int]()

    @app.stage(app.stream(TOPIC, int), concurrency=1, on_error=retry(3, delay=0.05))
    async def busy(value: int) -> int:
        begun.append(value)
        if value == 5 and begun.count(5) < 3:
            raise OSError("busy")
        return value

    app.sink(busy, name="recorder")(lambda value: None)
    assert run(place, app).code == EXIT_CLEAN
    assert begun == [*range(5), 5, 5, *range(5, COUNT)]


# --- the end of a job -------------------------------------------------------------------


def test_a_stop_does_not_begin_the_calls_that_wait(place: Place) -> None:
    app, stop, recorded = new_app(), list[Callable[[], None]](), list[int]()
    begun = list[int]()

    @app.stage(app.stream(TOPIC, int), concurrency=2)
    async def slow(value: int) -> int:
        begun.append(value)
        if value == 2 and stop:
            stop.pop()()
        await asyncio.sleep(0.02)
        return value

    app.sink(slow, name="recorder")(recorded.append)
    outcome = stopped_run(place, app, stop)
    assert outcome.code == EXIT_CLEAN, outcome.error
    assert len(begun) < COUNT
    assert recorded == begun
    assert run(place, app).code == EXIT_CLEAN
    assert recorded == begun == NUMBERS


@pytest.mark.parametrize("ordered", [True, "key", False])
def test_a_failure_repeats_no_write_of_a_sink_with_calls(
    place: Place, ordered: bool | Literal["key"]
) -> None:
    app, written, bad = new_app(), list[int](), [20]

    @app.sink(app.stream(TOPIC, int).key_by(lambda value: value), concurrency=4, ordered=ordered)
    async def insert(value: int) -> None:
        if value in bad:
            raise ValueError("bad row")
        await asyncio.sleep(0.01 * (1 + value % 4))  # so that others are in progress at the failure
        written.append(value)

    outcome = run(place, app)
    assert outcome.code == EXIT_FAILED
    assert "numbers-0 offset 20: ValueError: bad row" in outcome.error
    assert set(range(20)) <= set(written)
    bad.clear()
    assert run(place, app).code == EXIT_CLEAN
    assert sorted(written) == NUMBERS


def test_a_failure_begins_no_more_calls(place: Place) -> None:
    app, begun = new_app(), list[int]()

    @app.sink(app.stream(TOPIC, int), concurrency=2, ordered=False)
    async def insert(value: int) -> None:
        begun.append(value)
        await asyncio.sleep(0.01)
        if value == 5:
            raise ValueError("bad row")

    assert run(place, app).code == EXIT_FAILED
    assert len(begun) < 10


def test_a_stop_repeats_no_write_that_waits_behind_a_retry(place: Place) -> None:
    app, stop, written = new_app(), list[Callable[[], None]](), list[int]()
    policy = retry(5, delay=30)

    @app.sink(app.stream(TOPIC, int), concurrency=4, ordered=True, on_error=policy)
    async def insert(value: int) -> None:
        await asyncio.sleep(0.02 if value < 6 else 0.1)
        if value == 5 and stop:
            raise OSError("down")
        if value == 6 and stop:  # it has begun before 5 failed, and its result waits for that of 5
            stop.pop()()
        written.append(value)

    outcome = stopped_run(place, app, stop)
    assert outcome.code == EXIT_CLEAN, outcome.error
    assert 5 not in written
    assert 6 in written
    assert run(place, app).code == EXIT_CLEAN
    assert sorted(written) == NUMBERS


def test_records_that_wait_since_the_last_run_are_pending_in_the_report(
    place: Place, tmp_path: Path
) -> None:
    app, stop = new_app(), list[Callable[[], None]]()

    @app.stage(app.stream(TOPIC, int), on_error=retry(9, delay=30, open_circuit_after=1))
    async def down(value: int) -> int:
        stop.pop()()
        raise OSError("down")

    app.sink(down, name="recorder")(lambda value: None)
    for _ in range(2):
        outcome = stopped_run(place, app, stop, tmp_path)
        assert outcome.code == EXIT_CLEAN
        counts = outcome.counts("down")
        assert (counts.taken, counts.pending, counts.handled) == (COUNT, COUNT, 0)


def test_results_of_windows_that_are_drained_are_called_too(place: Place) -> None:
    app, recorded = new_app(), list[int]()

    def ticks(resume: int | None) -> Iterator[tuple[int, int]]:
        yield from ((number, number) for number in range(resume or 0, 20))

    stream = app.source(event_time=lambda value: value * 1_000)(ticks)
    sums = (
        stream.key_by(lambda value: b"all")
        .window(Tumbling(seconds=5))
        .reduce(lambda a, b: a + b, name="sums")
    )

    @app.stage(sums)
    async def passed(value: int) -> int:
        await asyncio.sleep(0.01)
        return value

    app.sink(passed, name="recorder")(recorded.append)
    outcome = run(place, app)
    assert outcome.code == EXIT_CLEAN, outcome.error
    assert recorded == [10, 35, 60, 85]


@pytest.mark.parametrize("has_call", [False, True])
def test_windows_of_a_source_that_ends_late_keep_the_watermark_of_its_records(
    place: Place, tmp_path: Path, has_call: bool
) -> None:
    count, recorded = [10], list[int]()

    def ticks(resume: int | None) -> Iterator[tuple[int, int]]:
        first = 0 if resume is None else resume + 1
        yield from ((number, number) for number in range(first, count[0]))
        time.sleep(0.3)  # the end is noticed after the last record has been processed

    async def passed(value: int) -> int:
        return value

    app = new_app()
    stream = app.source(event_time=lambda value: value * 1_000)(ticks)
    if has_call:
        app.sink(app.stage(stream)(passed), name="others")(lambda value: None)
    keyed = stream.key_by(lambda value: b"all")
    sums = keyed.window(Tumbling(seconds=5)).reduce(lambda a, b: a + b, name="sums")
    app.sink(sums, name="recorder")(recorded.append)
    for records in (10, 20):
        count[0] = records
        outcome = run(place, app, replace(ONCE, data_dir=tmp_path))
        assert outcome.code == EXIT_CLEAN, outcome.error
        assert outcome.reports.end is not None
        marks = outcome.reports.end.time.watermarks
        assert marks == {"sums": f"1970-01-01T00:00:{records - 1:02}+00:00"}
        assert outcome.counts("sums").late == 0
    assert recorded == [10, 35, 60, 85]
