"""Calls of a user's function in threads."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import partial

import pytest

from streamkit.runtime.call_threads import CallThreads, listed
from streamkit.testing.loop import Loop
from tests.calls.outcomes import Answer, Outcomes, run_all, until

LABEL: ContextVar[str] = ContextVar("LABEL", default="none")


def run(
    function: Callable[..., object],
    scenario: Callable[[CallThreads, Outcomes], Awaitable[None]],
    threads: int = 4,
) -> None:
    async def main() -> None:
        outcomes = Outcomes()
        pool = CallThreads(function, "score", threads, outcomes.on_done)
        try:
            await scenario(pool, outcomes)
        finally:
            await pool.close()

    asyncio.run(main())


def test_a_result_arrives_in_the_event_loop() -> None:
    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(7, (2, 3))
        assert outcomes.by_number == {}
        assert await outcomes.wait_for(7) == (8, None)

    run(pow, scenario)


def test_1000_calls_in_order_each_return_their_own_result() -> None:
    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        answers = await run_all(pool, outcomes, [(each,) for each in range(1000)], at_once=1)
        assert answers == [(each + 1, None) for each in range(1000)]
        assert outcomes.order == list(range(1000))

    run(lambda value: value + 1, scenario)


def test_calls_run_at_the_same_time_in_reused_threads() -> None:
    barrier = threading.Barrier(4)
    names: set[str] = set()

    def meet() -> None:
        names.add(threading.current_thread().name)
        barrier.wait(20)

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        for first in range(0, 80, 4):
            for number in range(first, first + 4):
                pool.start(number, ())
            for number in range(first, first + 4):
                assert await outcomes.wait_for(number) == (None, None)
        assert len(names) == 4
        assert all(name.startswith("streamkit-call-score-") for name in names)

    run(meet, scenario)


def test_threads_start_only_when_they_are_needed() -> None:
    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        before = threading.active_count()
        await run_all(pool, outcomes, [()] * 50, at_once=1)
        assert threading.active_count() == before + 1

    run(lambda: None, scenario, threads=16)


class OwnBaseError(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(5),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        OwnBaseError(),
        ExceptionGroup("two", [ValueError(), TypeError()]),
    ],
    ids=repr,
)
def test_whatever_the_function_raises_is_the_error_of_its_call(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(0, ())
        assert await outcomes.wait_for(0) == (None, error)
        pool.start(1, ())
        assert await outcomes.wait_for(1) == (None, error)

    run(fail, scenario, threads=1)


def test_wrong_arguments_are_the_error_of_the_call() -> None:
    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(0, (1, 2, 3))
        _, error = await outcomes.wait_for(0)
        assert isinstance(error, TypeError)

    run(len, scenario)


def test_the_values_of_a_generator_are_collected_in_the_thread() -> None:
    def threads_of(count: int) -> Iterator[int]:
        for _ in range(count):
            yield threading.get_ident()

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(0, (3,))
        result, _ = await outcomes.wait_for(0)
        assert isinstance(result, list)
        assert len(result) == 3
        assert threading.get_ident() not in result

    run(partial(listed, threads_of), scenario)


def test_an_error_of_a_generator_is_the_error_of_its_call() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("after one")

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(0, ())
        result, error = await outcomes.wait_for(0)
        assert result is None
        assert isinstance(error, ValueError)

    run(partial(listed, fail), scenario)


def test_calls_see_the_context_variables_of_the_creating_context() -> None:
    async def main() -> None:
        LABEL.set("job")
        outcomes = Outcomes()
        pool = CallThreads(LABEL.get, "score", 2, outcomes.on_done)
        LABEL.set("changed later")
        assert await run_all(pool, outcomes, [()] * 4, at_once=2) == [("job", None)] * 4
        await pool.close()

    asyncio.run(main())


def test_many_results_wake_the_event_loop_once() -> None:
    release = threading.Event()
    finished: list[int] = []

    def wait(number: int) -> None:
        release.wait(20)
        finished.append(number)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakes = 0
        original = loop.call_soon_threadsafe

        def counted(*arguments: object, **options: object) -> object:
            nonlocal wakes
            wakes += 1
            return original(*arguments, **options)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[assignment,method-assign]
        outcomes = Outcomes()
        pool = CallThreads(wait, "score", 16, outcomes.on_done)
        for number in range(16):
            pool.start(number, (number,))
        release.set()
        while len(finished) < 16:
            time.sleep(0.01)  # noqa: ASYNC251  the loop must not run in the meantime
        time.sleep(0.05)  # noqa: ASYNC251
        assert outcomes.order == []
        await outcomes.wait_for(15)
        assert len(outcomes.order) == 16
        assert wakes == 1
        await pool.close()

    asyncio.run(main())


def test_an_abandoned_call_gives_its_place_to_another_thread() -> None:
    release = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            release.wait(60)
        return number

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(0, (0,))
        await asyncio.sleep(0.05)
        pool.abandon(0)
        pool.start(1, (1,))
        assert await outcomes.wait_for(1) == (1, None)
        before = threading.active_count()
        release.set()
        await until(lambda: threading.active_count() == before - 1)
        pool.start(2, (2,))
        assert await outcomes.wait_for(2) == (2, None)
        assert outcomes.order == [1, 2]

    run(work, scenario, threads=1)


def test_the_late_result_of_an_abandoned_call_is_not_that_of_a_new_one_with_its_number() -> None:
    release = threading.Event()

    def work(text: str) -> str:
        if text == "slow":
            release.wait(60)
        return text

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(0, ("slow",))
        await asyncio.sleep(0.05)
        pool.abandon(0)
        release.set()
        pool.start(0, ("fast",))
        assert await outcomes.wait_for(0) == ("fast", None)

    run(work, scenario, threads=1)


def test_a_result_that_is_ready_is_dropped_when_its_call_is_abandoned() -> None:
    ended = threading.Event()

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.start(0, ())
        assert ended.wait(20)
        time.sleep(0.05)  # noqa: ASYNC251  the thread has queued its result, the loop has not seen it
        pool.abandon(0)
        await asyncio.sleep(0.05)
        assert outcomes.order == []
        for number in range(1, 20):
            pool.start(number, ())
            await outcomes.wait_for(number)

    run(ended.set, scenario, threads=1)


def test_calls_abandoned_at_any_time_leave_the_pool_usable() -> None:
    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        for number in range(0, 2000, 4):
            for each in range(number, number + 4):
                pool.start(each, (0.0001 * (each % 3),))
            pool.abandon(number + 1)
            if number % 8:
                await asyncio.sleep(0)
            pool.abandon(number + 3)
            await outcomes.wait_for(number)
            await outcomes.wait_for(number + 2)
        # The last one of four may have been done before it was abandoned.
        assert not [number for number in outcomes.order if number % 4 == 1]

    run(time.sleep, scenario)


def test_an_unknown_or_finished_call_can_be_abandoned() -> None:
    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        pool.abandon(99)
        pool.start(0, ())
        await outcomes.wait_for(0)
        pool.abandon(0)
        pool.start(1, ())
        await outcomes.wait_for(1)

    run(lambda: None, scenario, threads=1)


def test_closing_ends_idle_threads() -> None:
    async def main() -> None:
        before = threading.active_count()
        outcomes = Outcomes()
        pool = CallThreads(time.sleep, "score", 8, outcomes.on_done)
        await run_all(pool, outcomes, [(0.01,)] * 16, at_once=8)
        await pool.close()
        assert threading.active_count() == before
        await pool.close()

    asyncio.run(main())


def test_closing_does_not_wait_for_calls_that_run() -> None:
    release = threading.Event()

    async def main() -> None:
        outcomes = Outcomes()
        pool = CallThreads(release.wait, "score", 8, outcomes.on_done)
        for number in range(8):
            pool.start(number, (60,))
        began_s = time.monotonic()
        await pool.close()
        assert time.monotonic() - began_s < 0.5
        release.set()
        await asyncio.sleep(0.1)
        assert outcomes.order == []

    asyncio.run(main())


def test_a_call_that_ends_after_the_loop_was_closed_is_dropped() -> None:
    release = threading.Event()

    async def main() -> None:
        pool = CallThreads(release.wait, "score", 1, Outcomes().on_done)
        pool.start(0, (60,))
        await asyncio.sleep(0.01)

    asyncio.run(main())
    release.set()


def test_an_idle_thread_keeps_no_argument_and_no_result() -> None:
    class Value:
        pass

    def fail_or_return(value: Value, fails: bool) -> Value:
        if fails:
            raise ValueError
        return value

    async def scenario(pool: CallThreads, outcomes: Outcomes) -> None:
        for number, fails in enumerate((False, True)):
            value = Value()
            alive = weakref.ref(value)
            pool.start(number, (value, fails))
            await outcomes.wait_for(number)
            outcomes.by_number[number] = (None, None)
            del value
            gc.disable()
            try:
                await until(lambda alive=alive: alive() is None)  # type: ignore[misc]
            finally:
                gc.enable()

    run(fail_or_return, scenario, threads=1)


def test_several_pools_run_at_once() -> None:
    async def main() -> None:
        async def use(offset: int) -> None:
            outcomes = Outcomes()
            pool = CallThreads(lambda value: value + offset, str(offset), 3, outcomes.on_done)
            answers = await run_all(pool, outcomes, [(each,) for each in range(300)], at_once=3)
            assert answers == [(each + offset, None) for each in range(300)]
            await pool.close()

        await asyncio.gather(*(use(offset) for offset in range(0, 5000, 1000)))

    asyncio.run(main())


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_pool_runs_in_the_loop_of_a_test(is_nested: bool) -> None:
    async def use() -> list[Answer]:
        outcomes = Outcomes()
        pool = CallThreads(abs, "score", 2, outcomes.on_done)
        answers = await run_all(pool, outcomes, [(-1,), (-2,)], at_once=2)
        await pool.close()
        return answers

    def run_in_loop_of_test() -> list[Answer]:
        loop = Loop()
        try:
            return loop.run(use())
        finally:
            loop.close()

    async def nested() -> list[Answer]:
        return run_in_loop_of_test()

    answers = asyncio.run(nested()) if is_nested else run_in_loop_of_test()
    assert answers == [(1, None), (2, None)]


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_call_that_hangs_does_not_keep_the_interpreter_running() -> None:
    began_s = time.monotonic()
    done = ran(
        """
        import asyncio, time
        from streamkit.runtime.call_threads import CallThreads

        async def main():
            pool = CallThreads(time.sleep, "slow", 4, print)
            for number in range(4):
                pool.start(number, (600,))
            await asyncio.sleep(0.05)
            await pool.close()

        asyncio.run(main())
        print("ended")
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)
    assert time.monotonic() - began_s < 20


def test_a_forked_child_that_returns_from_a_call_exits() -> None:
    done = ran(
        """
        import asyncio, os
        from streamkit.runtime.call_threads import CallThreads

        async def main():
            loop = asyncio.get_running_loop()
            answer = loop.create_future()
            pool = CallThreads(os.fork, "fork", 1, lambda *found: answer.set_result(found))
            pool.start(0, ())
            number, pid, error = await answer
            print(number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), error)
            await pool.close()

        asyncio.run(main())
        """
    )
    assert (done.stdout, done.returncode) == ("0 70 None\n", 0)
