"""A test continues after a call has failed; a restart tries the failed record again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from streamkit import App
from streamkit.errors import StageError
from streamkit.policies import retry
from streamkit.testing.job import TestJob

AGAIN: Final = retry(attempts=2, delay=0.1)

REFUSES: Final = [True]


@pytest.fixture(autouse=True)
def refuses() -> Iterator[None]:
    yield
    REFUSES[:] = [True]


def refused_seven(number: int) -> int:
    if number == 7 and REFUSES:
        raise ValueError("seven")
    return number


def received(app: App, stage: Any) -> list[int]:
    """Add a sink; return the list of what it receives."""
    found: list[int] = []

    @app.sink(stage)
    def out(number: int) -> None:
        found.append(number)

    return found


def send_with_failure(job: TestJob) -> None:
    job.send("in", 1)
    with pytest.raises(StageError, match="seven"):
        job.send("in", 2, 7, 3)


@pytest.mark.parametrize("ordered", [True, False, "key"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_async_calls_go_on(ordered: Any, concurrency: int) -> None:
    app = App("app")

    @app.stage(app.stream("in", int), concurrency=concurrency, ordered=ordered)
    async def checked(number: int) -> int:
        return refused_seven(number)

    found = received(app, checked)
    with app.test() as job:
        send_with_failure(job)
        job.send("in", 4)
        assert sorted(job.output(checked)) == [1, 2, 3, 4]
        assert sorted(found) == [1, 2, 3, 4]
        with pytest.raises(StageError, match="seven"):
            job.restart()
        REFUSES.clear()
        job.restart()
        job.send("in", 5)
        assert sorted(found) == [1, 2, 3, 4, 5, 7]


def test_a_batch_that_failed_is_left_out() -> None:
    app = App("app")

    @app.stage(app.stream("in", int), batch=3)
    async def checked(numbers: list[int]) -> list[int]:
        return list(map(refused_seven, numbers))

    found = received(app, checked)
    with app.test() as job:
        send_with_failure(job)
        job.send("in", 4)
        assert found == [1, 4]


def test_retries_that_are_used_up_go_on() -> None:
    app = App("app")
    checked = app.stream("in", int).map(refused_seven, name="checked", on_error=AGAIN)
    found = received(app, checked)
    with app.test() as job:
        job.send("in", 1, 7, 2)
        assert found == [1]
        with pytest.raises(StageError, match="seven"):
            job.advance(seconds=1)
        job.send("in", 3)
        assert found == [1, 2, 3]


def test_a_later_stage_that_fails_gets_the_other_results_once() -> None:
    app = App("app")

    @app.stage(app.stream("in", int), concurrency=5)
    async def same(number: int) -> int:
        return number

    tens = same.map(lambda number: number * 10, name="tens")
    checked = same.map(refused_seven, name="checked")
    found = received(app, checked)
    with app.test() as job:
        send_with_failure(job)
        job.send("in", 4)
        assert (sorted(found), sorted(job.output(checked))) == ([1, 2, 3, 4], [1, 2, 3, 4])
        assert sorted(job.output(tens)) == [10, 20, 30, 40]


def test_a_sink_that_fails_after_a_call_gets_the_other_results_once() -> None:
    app = App("app")

    @app.stage(app.stream("in", int), concurrency=5)
    async def same(number: int) -> int:
        return number

    found: list[int] = []

    @app.sink(same)
    def out(number: int) -> None:
        found.append(refused_seven(number))

    with app.test() as job:
        send_with_failure(job)
        job.send("in", 4)
    assert sorted(found) == [1, 2, 3, 4]


def test_sums_after_a_call_are_those_of_the_other_records() -> None:
    app = App("app")

    @app.stage(app.stream("in", int), concurrency=5)
    async def same(number: int) -> int:
        return number

    keyed = same.map(refused_seven).key_by(lambda number: number % 1)
    sums = keyed.reduce(lambda total, number: total + number, name="sums")
    with app.test() as job:
        send_with_failure(job)
        job.send("in", 4)
        assert job.output(sums)[-1] == 10
