"""Jobs of a program with an event loop: `app.start_async` and `app.run_async`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from streamkit import App
from streamkit.errors import NotFlushed, StageError, StateInUse, TopicNotFound, UsageError
from streamkit.run import RunningJob
from tests.embedding.running import COUNT, NUMBERS, Place
from tests.stop.running import PATIENCE_S

Main = Callable[[], Coroutine[Any, Any, None]]


def run(main: Main) -> None:
    """Run a program with an event loop; fail it if it hangs."""

    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main()

    asyncio.run(limited())


async def until(is_so: Callable[[], object]) -> None:
    """Wait until a condition is true; another thread changes it, so there is no event."""
    while not is_so():  # noqa: ASYNC110
        await anyio.sleep(0.01)


def out_of(job: RunningJob) -> int:
    return job.progress.records_out


# --- start_async ----------------------------------------------------------------------------


def test_an_async_block_runs_a_job_and_stops_it_in_order(place: Place) -> None:
    app = place.app()

    async def main() -> None:
        async with app.start_async(**place.options) as job:
            await until(lambda: out_of(job) == COUNT)
        assert not job.is_running
        assert job.wait() == 0

    run(main)
    assert place.values(app) == NUMBERS
    assert place.rest(app) == 0


def test_a_job_that_blocks_does_not_block_the_event_loop(place: Place) -> None:
    def slow(number: int) -> int:
        time.sleep(0.02)
        return number

    app = place.app(slow)
    delays: list[float] = []

    async def main() -> None:
        async with app.start_async(**place.options) as job:
            while out_of(job) < COUNT:
                began_s = time.monotonic()
                await asyncio.sleep(0.001)
                delays.append(time.monotonic() - began_s)

    run(main)
    assert sorted(delays)[len(delays) // 2] < 0.02


def test_an_async_block_raises_the_error_of_a_job_that_cannot_start(place: Place) -> None:
    app = place.app()
    app.stream("missing", int, name="missing").to("elsewhere", name="elsewhere")

    async def main() -> None:
        with pytest.raises(TopicNotFound, match="missing"):
            async with app.start_async(**place.options):
                pytest.fail("it is not running")

    run(main)


def test_the_end_of_an_async_block_raises_the_failure_of_the_job(place: Place) -> None:
    app = place.app(lambda number: number // 0)

    async def main() -> None:
        with pytest.raises(StageError, match="stage 'change' failed"):
            async with app.start_async(**place.options) as job:
                await until(lambda: not job.is_running)

    run(main)


def test_cancelling_an_async_block_stops_the_job_in_order(place: Place) -> None:
    app = place.app()
    jobs: list[RunningJob] = []

    async def serve() -> None:
        async with app.start_async(**place.options) as job:
            jobs.append(job)
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(serve())
        await until(lambda: jobs and out_of(jobs[0]) == COUNT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert jobs[0].wait() == 0
    assert place.rest(app) == 0


def test_a_cancelled_scope_of_anyio_stops_the_job_in_order(place: Place) -> None:
    apps = [place.app(), place.app()]

    async def serve() -> None:
        async with apps[0].start_async(**place.options) as job:
            await until(lambda: out_of(job) == COUNT)
            has_begun.set()
            await anyio.sleep_forever()

    async def run_it() -> None:
        await apps[1].run_async(**place.options)

    has_begun = asyncio.Event()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            tasks.start_soon(run_it)
            await has_begun.wait()
            await until(lambda: place.values(apps[1]) == NUMBERS)
            tasks.cancel_scope.cancel()

    run(main)
    assert [place.rest(app) for app in apps] == [0, 0]


def test_a_second_cancellation_abandons_a_stop_that_hangs(place: Place) -> None:
    has_blocked, release = threading.Event(), threading.Event()

    def block(number: int) -> int:
        has_blocked.set()
        release.wait()
        return number

    app = place.app(block)

    async def serve() -> None:
        async with app.start_async(**(place.options | {"stop_deadline": 60})) as job:
            jobs.append(job)
            await asyncio.Event().wait()

    jobs: list[RunningJob] = []

    async def main() -> None:
        task = asyncio.create_task(serve())
        await until(has_blocked.is_set)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.1)
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(NotFlushed):
            jobs[0].wait()

    run(main)
    release.set()
    while jobs[0].is_running:
        time.sleep(0.01)


def test_a_start_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    app = App("waits")
    app.stream("numbers", int).to("copies")

    async def enter(stack: contextlib.AsyncExitStack) -> None:
        started = app.start_async(cluster="127.0.0.1:1", data_dir=tmp_path)
        await stack.enter_async_context(started)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(enter(stack), 0.5)
        assert not [each for each in threading.enumerate() if "job-waits" in each.name]

    run(main)


# --- run_async ------------------------------------------------------------------------------


def test_two_jobs_share_a_loop_and_one_fails_alone(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = place.app(), place.app(lambda number: number // 0)

    async def main() -> None:
        tasks = [asyncio.create_task(app.run_async(**place.options)) for app in (good, bad)]
        assert await tasks[1] == 1
        await until(lambda: place.values(good) == NUMBERS)
        assert not tasks[0].done()
        with pytest.raises(StateInUse, match=f"another run of '{good.name}'"):
            await good.run_async(**place.options)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    run(main)
    assert place.rest(good) == 0
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith((f"{good.name}: ", f"{bad.name}: ")) for line in lines)


def test_cancelling_while_the_broker_starts_ends_the_broker(tmp_path: Path) -> None:
    app = App("early")
    app.stream("numbers", int).to("copies")

    async def main() -> None:
        task = asyncio.create_task(app.run_async(embedded=True, data_dir=tmp_path / "data"))
        await asyncio.sleep(0)  # the task begins, and the broker starts in a thread
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    ends = [each for each in threading.enumerate() if each.name == "streamkit-broker-end"]
    for each in ends:
        each.join(PATIENCE_S)
        assert not each.is_alive(), "the broker still runs"


def test_a_loop_that_ends_before_its_job_unlocks_the_state(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    app = place.app()
    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(app.run_async(**place.options)))
        await until(lambda: place.values(app) == NUMBERS)

    run(main)
    errors = capsys.readouterr().err
    assert f"{app.name}: the event loop ended before the job was stopped" in errors
    assert "Traceback" not in errors
    assert place.rest(app) == COUNT


def test_a_lifespan_starts_and_stops_a_job(place: Place) -> None:
    app = place.app()

    @contextlib.asynccontextmanager
    async def lifespan(service: object) -> AsyncIterator[dict[str, RunningJob]]:
        async with app.start_async(**place.options) as job:
            yield {"job": job}

    async def main() -> None:
        async with lifespan(object()) as state:
            await until(lambda: out_of(state["job"]) == COUNT)

    run(main)
    assert place.rest(app) == 0


def test_run_async_refuses_a_loop_of_another_library(place: Place) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="needs an event loop of asyncio"):
            await place.app().run_async(**place.options)

    trio.run(main)
