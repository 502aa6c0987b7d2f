"""Stages that are called outside of slices: async, in threads, in batches, as sinks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamkit import App, Context, Record
from streamkit.dataflow.stream import Stream
from streamkit.errors import RowError, StageError, TopologyError, UsageError
from streamkit.policies import retry
from streamkit.record import Topic

NUMBERS = list(range(20))


def app_of(name: str = "calls") -> tuple[App, Stream[int]]:
    app = App(name)
    return app, app.stream("numbers", int)


def results(app: App, source: Stream[int], stage: Stream[Any], values: Iterable[int]) -> list[Any]:
    with app.test() as job:
        job.send(source, *values)
        return job.output(stage)


class Gauge:
    """How many calls are in progress, and how many were at most."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *error: object) -> None:
        self.now -= 1


# --- async ------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_results_come_in_the_order_of_the_input(concurrency: int) -> None:
    app, numbers = app_of()
    gauge = Gauge()

    @app.stage(numbers, concurrency=concurrency)
    async def slow(number: int) -> str:
        with gauge:
            await asyncio.sleep(0.001 * (5 - number % 5))
        return f"<{number}>"

    assert results(app, numbers, slow, NUMBERS) == [f"<{number}>" for number in NUMBERS]
    assert gauge.most == concurrency


def test_without_order_results_come_as_they_are_ready() -> None:
    app, numbers = app_of()
    first = asyncio.Event()

    @app.stage(numbers, concurrency=4, ordered=False)
    async def swapped(number: int) -> int:
        if number == 0:
            await first.wait()
        if number == 3:
            first.set()
        return number

    with app.test() as job:
        job.send(numbers, 0, 1, 2, 3)
        assert sorted(job.output(swapped)) == [0, 1, 2, 3]
        assert job.output(swapped)[-1] == 0


def test_by_key_no_two_calls_of_a_key_are_in_progress() -> None:
    app, numbers = app_of()
    gauges: dict[str, Gauge] = {}
    most = Gauge()
    order: dict[str, list[int]] = {}

    @app.stage(numbers, concurrency=8, ordered="key")
    async def called(number: int, context: Context[str]) -> int:
        with most, gauges.setdefault(context.key, Gauge()):
            await asyncio.sleep(0.001 * (number % 3))
            order.setdefault(context.key, []).append(number)
        return number

    with app.test() as job:
        job.send(numbers, *(Record(number, b"%d" % (number % 4)) for number in NUMBERS))
        assert sorted(job.output(called)) == NUMBERS
    assert {gauge.most for gauge in gauges.values()} == {1}
    assert most.most > 1
    assert order == {str(key): [n for n in NUMBERS if n % 4 == key] for key in range(4)}


def test_none_drops_a_record_and_an_async_generator_gives_several() -> None:
    app, numbers = app_of()

    @app.stage(numbers)
    async def odd(number: int) -> int | None:
        return number if number % 2 else None

    @app.stage(odd)
    async def twice(number: int) -> AsyncIterator[int]:
        for _ in range(0 if number == 3 else 2):
            yield number

    with app.test() as job:
        job.send(numbers, *range(6))
        assert job.output(twice) == [1, 1, 5, 5]
        counts = job._task.counts
        assert (counts[odd.node].dropped, counts[odd.node].handled) == (3, 3)
        assert (counts[twice.node].dropped, counts[twice.node].handled) == (1, 2)


def test_a_context_has_the_place_of_the_record_and_the_lifespan() -> None:
    app, numbers = app_of()
    steps: list[str] = []

    @app.lifespan
    async def opened() -> AsyncIterator[dict[str, int]]:
        steps.append("opened")
        yield {"base": 100}
        steps.append("closed")

    @app.stage(numbers, concurrency=2)
    async def placed(number: int, context: Context[str]) -> tuple[str, int, int]:
        return context.topic, context.offset, context.lifespan["base"] + number

    @app.stage(numbers)
    def plain(number: int, context: Context[str]) -> int:
        base: int = context.lifespan["base"]
        return base

    with app.test() as job:
        job.send(numbers, 7, 8)
        assert job.output(placed) == [("numbers", 0, 107), ("numbers", 1, 108)]
        assert job.output(plain) == [100, 100]
        assert steps == ["opened"]
    assert steps == ["opened", "closed"]


def test_a_lifespan_may_be_a_context_manager() -> None:
    app, numbers = app_of()

    @app.lifespan
    @asynccontextmanager
    async def opened() -> AsyncIterator[int]:
        yield 5

    @app.stage(numbers)
    async def added(number: int, context: Context[str]) -> int:
        base: int = context.lifespan
        return base + number

    assert results(app, numbers, added, [1]) == [6]


def test_a_lifespan_that_is_not_async_is_refused() -> None:
    app, _ = app_of()
    with pytest.raises(TopologyError, match="not an async generator"):

        @app.lifespan
        def opened() -> Iterator[int]:
            yield 5


def test_a_second_lifespan_is_refused() -> None:
    app, _ = app_of()

    async def opened() -> AsyncIterator[int]:
        yield 5

    app.lifespan(opened)
    with pytest.raises(TopologyError, match="has a lifespan already"):
        app.lifespan(opened)


def test_a_call_that_takes_too_long_fails_and_others_go_on() -> None:
    app, numbers = app_of()

    @app.stage(numbers, concurrency=4, timeout=0.5, on_error="skip")
    async def called(number: int) -> int:
        await asyncio.sleep(10 if number == 2 else 0)
        return number

    assert results(app, numbers, called, range(5)) == [0, 1, 3, 4]


def test_the_error_of_a_late_call_names_the_line_that_it_waited_at() -> None:
    app, numbers = app_of()

    @app.stage(numbers, timeout=0.02)
    async def called(number: int) -> int:
        await asyncio.sleep(10)
        return number

    with app.test() as job, pytest.raises(StageError) as caught:
        job.send(numbers, 1)
    assert "TimeoutError: the call took longer than 0.02 s" in str(caught.value)
    assert "await asyncio.sleep(10)" in str(caught.value)


def test_a_call_that_ignores_its_cancellation_is_given_up() -> None:
    app, numbers = app_of()

    @app.stage(numbers, concurrency=1, timeout=0.5, on_error="skip")
    async def stubborn(number: int) -> int:
        for _ in range(400 if number == 0 else 1):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass  # as code does that catches everything
        return number

    assert results(app, numbers, stubborn, [0, 1]) == [1]


def test_a_function_that_returns_a_coroutine_instead_of_a_value_fails() -> None:
    app, numbers = app_of()

    async def later() -> int:
        return 1

    @app.stage(numbers)
    async def wrong(number: int) -> Any:
        return later()

    with app.test() as job, pytest.raises(StageError, match="returned 'coroutine'"):
        job.send(numbers, 1)


def test_calls_that_do_not_wait_leave_turns_to_others() -> None:
    app, numbers = app_of()
    turns = 0

    @app.stage(numbers, concurrency=1)
    async def busy(number: int) -> int:
        time.sleep(0.002)  # noqa: ASYNC251  # it is busy on purpose
        return number

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    @app.lifespan
    async def opened() -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(count_turns())
        yield
        task.cancel()

    assert results(app, numbers, busy, range(60)) == list(range(60))
    assert turns >= 4


def test_a_stage_after_a_stage_and_a_merge() -> None:
    app, numbers = app_of()

    @app.stage(numbers, concurrency=4)
    async def doubled(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    @app.stage(numbers, concurrency=4)
    async def negated(number: int) -> int:
        return -number

    @app.stage(doubled, negated, concurrency=2)
    async def both(number: int) -> str:
        await asyncio.sleep(0)
        return str(number)

    found = results(app, numbers, both, [1, 2, 3])
    assert sorted(found) == sorted(["2", "4", "6", "-1", "-2", "-3"])


# --- threads and batches ----------------------------------------------------------


def test_blocking_functions_run_in_threads() -> None:
    app, numbers = app_of()
    together = threading.Barrier(3, timeout=5)
    names: set[str] = set()

    @app.stage(numbers, blocking=True, concurrency=3)
    def met(number: int) -> int:
        names.add(threading.current_thread().name)
        together.wait()
        return number

    assert results(app, numbers, met, range(6)) == list(range(6))
    assert threading.current_thread().name not in names


def test_a_generator_in_a_thread_is_read_there() -> None:
    app, numbers = app_of()
    threads: set[int] = set()

    @app.stage(numbers, blocking=True)
    def twice(number: int) -> Iterator[int]:
        threads.add(threading.get_ident())
        yield number
        yield number

    assert results(app, numbers, twice, [1, 2]) == [1, 1, 2, 2]
    assert threading.get_ident() not in threads


def test_a_batch_with_one_result_for_each_record_keeps_their_keys() -> None:
    app, numbers = app_of()
    sizes: list[int] = []

    @app.stage(numbers, batch=4)
    def doubled(rows: list[int]) -> list[int | None]:
        sizes.append(len(rows))
        return [2 * row if row != 5 else None for row in rows]

    with app.test() as job:
        job.send(numbers, *(Record(number, b"k%d" % number) for number in range(10)))
        found = [(each.value, each.key) for each in job.records(doubled)]
    assert found == [(2 * n, f"k{n}".encode()) for n in range(10) if n != 5]
    assert sizes == [4, 4, 2]


def test_a_batch_with_any_number_of_results() -> None:
    app, numbers = app_of()

    @app.stage(numbers, batch=4)
    def total(rows: list[int]) -> Iterator[int]:
        yield sum(rows)

    @app.stage(numbers, batch=3)
    async def largest(rows: list[int]) -> Iterable[int]:
        await asyncio.sleep(0)
        return [max(rows)]

    with app.test() as job:
        job.send(numbers, *range(10))
        assert job.output(total) == [6, 22, 17]
        assert job.output(largest) == [2, 5, 8, 9]
        counts = job._task.counts[total.node]
        assert (counts.taken, counts.handled, counts.dropped, counts.given) == (10, 10, 0, 3)


def test_a_batch_with_too_few_results_fails_and_says_what_to_do() -> None:
    app, numbers = app_of()

    @app.stage(numbers, batch=4)
    def odd(rows: list[int]) -> list[int]:
        return [row for row in rows if row % 2]

    with app.test() as job, pytest.raises(StageError, match="annotate Iterator"):
        job.send(numbers, 1, 2, 3)


def test_a_batch_says_which_record_is_wrong() -> None:
    app, numbers = app_of()
    calls: list[list[int]] = []

    @app.stage(numbers, batch=4, on_error="skip")
    def checked(rows: list[int]) -> list[int]:
        calls.append(list(rows))
        if 2 in rows:
            raise RowError(rows.index(2), "two is not allowed")
        return rows

    assert results(app, numbers, checked, range(4)) == [0, 1, 3]
    assert calls == [[0, 1, 2, 3], [0, 1, 3]]


def test_a_batch_that_fails_is_called_record_by_record() -> None:
    app, numbers = app_of()
    calls: list[list[int]] = []

    @app.stage(numbers, batch=4, on_error="skip")
    def checked(rows: list[int]) -> list[int]:
        calls.append(list(rows))
        if 2 in rows:
            raise ValueError("something is wrong")
        return rows

    assert results(app, numbers, checked, range(6)) == [0, 1, 3, 4, 5]
    assert calls == [[0, 1, 2, 3], [0], [1], [2], [3], [4, 5]]


def test_a_batch_that_fails_is_retried_whole_first() -> None:
    app, numbers = app_of()
    calls: list[list[int]] = []

    @app.stage(numbers, batch=3, on_error=retry(attempts=2, delay=1).then("skip"))
    def checked(rows: list[int]) -> list[int]:
        calls.append(list(rows))
        if 1 in rows:
            raise OSError("not now")
        return rows

    with app.test() as job:
        job.send(numbers, 0, 1, 2)
        assert calls == [[0, 1, 2]]
        job.advance(seconds=2)
        assert job.output(checked) == [0, 2]
    assert calls == [[0, 1, 2], [0, 1, 2], [0], [1], [2]]


# --- sinks ------------------------------------------------------------------------


def test_a_sink_of_ones_own_may_have_calls_at_the_same_time() -> None:
    app, numbers = app_of()
    gauge = Gauge()
    written: list[int] = []

    @app.sink(numbers, concurrency=5)
    async def write(number: int) -> None:
        with gauge:
            await asyncio.sleep(0.001)
            written.append(number)

    with app.test() as job:
        job.send(numbers, *(Record(number, b"%d" % number) for number in NUMBERS))
        counts = job._task.counts[write.node]
        assert (counts.taken, counts.given, counts.pending) == (20, 20, 0)
    assert sorted(written) == NUMBERS
    assert gauge.most == 5


def test_a_topic_sink_may_have_an_async_function() -> None:
    app, numbers = app_of()

    @app.sink(numbers, to=Topic("texts", str), key=str, concurrency=4)
    async def text(number: int) -> str | None:
        await asyncio.sleep(0.001 * (3 - number))
        return None if number == 1 else f"<{number}>"

    with app.test() as job:
        job.send(numbers, 0, 1, 2)
        found = [(each.value, each.key) for each in job.records("texts")]
    assert found == [(b"<0>", b"0"), (b"<2>", b"2")]


# --- refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"concurrency": 0, "blocking": True}, "concurrency=0"),
        ({"concurrency": 2}, "for calls that take time"),
        ({"timeout": 1}, "for calls that take time"),
        ({"blocking": True, "process": True}, "both blocking= and process="),
        ({"blocking": True, "ordered": "partition"}, "ordered='partition'"),
        ({"blocking": True, "rate_limit": 0}, "rate_limit=0"),
        ({"blocking": True, "max_wait": 1}, "for batches"),
        ({"batch": 0}, "batch=0"),
        ({"batch": 2, "timeout": 1}, "a plain function"),
        ({"blocking": "yes"}, "must be True or False"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str) -> None:
    app, numbers = app_of()
    with pytest.raises(UsageError, match=problem):
        app.stage(numbers, **options)(abs)
