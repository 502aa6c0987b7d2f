"""Calls of a user's function in processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from streamkit.errors import (
    NotPicklable,
    ProcessDied,
    RemoteError,
    RowError,
    StreamKitError,
    TopologyError,
)
from streamkit.runtime.call_messages import RemoteTraceback
from streamkit.runtime.call_processes import CallProcesses
from streamkit.runtime.call_threads import listed
from streamkit.testing.loop import Loop
from tests.calls import called
from tests.calls.outcomes import Answer, Outcomes, run_all, until

Scenario = Callable[[CallProcesses, Outcomes], Awaitable[None]]


def run(function: Callable[..., object], scenario: Scenario, processes: int = 1) -> None:
    async def main() -> None:
        outcomes = Outcomes()
        pool = CallProcesses(function, "score", processes, outcomes.on_done)
        try:
            await scenario(pool, outcomes)
        finally:
            await pool.close()
        assert children() == before

    before = children()
    asyncio.run(main())


def answers_of(function: Callable[..., object], *arguments: tuple[object, ...]) -> list[Answer]:
    """Carry out calls one after another."""
    found: list[Answer] = []

    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        found.extend(await run_all(pool, outcomes, list(arguments), at_once=1))

    run(function, scenario)
    return found


def children() -> set[str]:
    """Return the child processes of this one, zombies included."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {each for task in tasks for each in task.read_text().split()}


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def written(path: Path) -> str:
    def text() -> str:
        return path.read_text() if path.exists() else ""

    await until(text)
    return text()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (called.decorated.function, 8),
        (called.wrapped_inside.function, 80),
        (called.wrapped_outside, 80),
        (called.Scorer.halve, 3),
        (called.SCORER.score, 21),
        (called.SCORER, 21),
        (partial(called.add, 5), 12),
        (partial(called.decorated), 8),
        (partial(listed, called.count_to), [0, 1, 2, 3, 4, 5, 6]),
        (abs, 7),
    ],
)
def test_functions_that_a_process_can_find(
    function: Callable[..., object], expected: object
) -> None:
    assert answers_of(function, (7,)) == [(expected, None)]


def test_1000_calls_in_order_each_return_their_own_result() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        arguments: list[tuple[object, ...]] = [(each, 1) for each in range(1000)]
        answers = await run_all(pool, outcomes, arguments, at_once=1)
        assert answers == [(each + 1, None) for each in range(1000)]
        assert outcomes.order == list(range(1000))

    run(called.add, scenario)


def test_processes_are_reused_and_are_not_this_one() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        answers = await run_all(pool, outcomes, [(0.01,)] * 40, at_once=2)
        pids = {result for result, _ in answers}
        assert len(pids) == 2
        assert os.getpid() not in pids

    run(called.pid, scenario, processes=2)


def test_a_process_starts_only_when_it_is_needed() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        before = children()
        await run_all(pool, outcomes, [()] * 20, at_once=1)
        assert len(children()) == len(before) + 1

    run(called.pid, scenario, processes=8)


@pytest.mark.parametrize("name", ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_an_error_of_the_function_arrives_as_it_is(name: str) -> None:
    (_, error), (_, again) = answers_of(called.fail, (name,), (name,))
    assert type(error).__name__ == type(again).__name__ == name
    assert error is not None
    assert error.args == called.RAISED[name]().args


def test_stop_iteration_and_base_errors_are_passed_on() -> None:
    names = ["StopIteration", "OwnBaseError", "MemoryError"]
    answers = answers_of(called.fail, *((name,) for name in names))
    assert [type(error).__name__ for _, error in answers] == names


def test_an_error_keeps_its_attributes_and_its_traceback() -> None:
    ((_, error),) = answers_of(called.fail, ("NotedError",))
    assert isinstance(error, called.NotedError)
    assert error.attempts == 4
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in error.__cause__.text
    assert error.__cause__.users_line.startswith(f"{called.__file__}:")


def test_the_traceback_of_an_error_has_the_cause_of_the_error() -> None:
    ((_, error),) = answers_of(called.fail_from_cause, ())
    assert isinstance(error, ValueError)
    assert "KeyError: 'first'" in str(error.__cause__)


@pytest.mark.parametrize("name", ["TwoArgumentsError", "LockError", "local"])
def test_an_error_that_cannot_be_pickled_keeps_its_type_text_and_traceback(name: str) -> None:
    (_, error), after = answers_of(called.fail, (name,), ("ValueError",))
    assert isinstance(error, RemoteError)
    assert error.type_name == ("LocalError" if name == "local" else name)
    assert str(error).startswith(f"{error.type_name}: ")
    assert "in fail" in str(error.__cause__)
    assert isinstance(after[1], ValueError)


def test_a_recursion_without_end_is_an_error_of_the_call() -> None:
    ((_, error),) = answers_of(called.recurse, (0,))
    assert isinstance(error, RecursionError)


def test_an_argument_that_cannot_be_pickled_is_an_error_that_names_it() -> None:
    answers = answers_of(
        called.add, (1, threading.Lock()), (called.CannotBeSent(), 1), (lambda: 1,), (1, 2)
    )
    errors = [error for _, error in answers[:3]]
    assert all(isinstance(error, NotPicklable) for error in errors)
    assert str(errors[0]).startswith("argument 2 of 2 cannot be sent between processes: TypeError")
    assert str(errors[1]).startswith("argument 1 of 2 cannot")
    assert str(errors[2]).startswith("the argument cannot")
    assert answers[3] == (3, None)


def test_an_argument_that_cannot_be_unpickled_is_an_error_of_its_call() -> None:
    small, large, after = answers_of(
        called.same, (called.CannotBeRead(),), ([called.CannotBeRead(1 << 22), b"x" * 9999],), (1,)
    )
    for _, error in (small, large):
        assert isinstance(error, NotPicklable)
        assert str(error).startswith("an argument cannot be sent")
        assert "refused to be unpickled" in str(error)
    assert after == (1, None)


@pytest.mark.parametrize("kind", ["lock", "lambda", "unreadable", "large and unreadable", "exits"])
def test_a_result_that_cannot_be_sent_is_an_error_of_its_call(kind: str) -> None:
    (_, error), again = answers_of(called.result, (kind,), (kind,))
    assert isinstance(error, NotPicklable)
    assert str(error).startswith("the result cannot be sent")
    assert isinstance(again[1], NotPicklable)


def test_large_values_do_not_block_the_loop() -> None:
    value = os.urandom(100 << 20)
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            before_s = time.perf_counter()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.perf_counter() - before_s)

    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        pool.start(0, (1,))
        await outcomes.wait_for(0)
        watching = asyncio.create_task(watch())
        pool.start(1, (value,))
        assert await outcomes.wait_for(1) == (value, None)
        watching.cancel()
        assert longest_s < 0.5

    run(called.same, scenario)


def test_several_processes_get_large_values_at_once() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        value = os.urandom(5 << 20)
        answers = await run_all(pool, outcomes, [(value,)] * 8, at_once=3)
        assert answers == [(value, None)] * 8

    run(called.same, scenario, processes=3)


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("_exit", 7, "exited with code 7"),
        ("abort", -signal.SIGABRT, "was killed by SIGABRT"),
        ("segfault", -signal.SIGSEGV, "was killed by SIGSEGV"),
        ("kill", -signal.SIGKILL, "was killed by SIGKILL"),
    ],
)
def test_a_process_that_dies_fails_only_its_own_call(how: str, code: int, text: str) -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        pool.start(0, ("live",))
        await outcomes.wait_for(0)
        pool.start(1, (how,))
        pool.start(2, ("live",))
        _, error = await outcomes.wait_for(1)
        assert isinstance(error, ProcessDied)
        assert error.code == code
        assert f"the process of 'score' {text} during the call" in str(error)
        assert (await outcomes.wait_for(2))[1] is None
        pool.start(3, ("live",))
        assert (await outcomes.wait_for(3))[1] is None

    run(called.die, scenario, processes=2)


def test_a_process_that_died_while_it_was_idle_fails_no_call() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        for number in range(0, 6, 2):
            pool.start(number, ())
            pid, _ = await outcomes.wait_for(number)
            assert isinstance(pid, int)
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
            pool.start(number + 1, ())
            other, error = await outcomes.wait_for(number + 1)
            assert error is None
            assert other != pid

    run(called.pid, scenario)


def test_an_abandoned_call_is_killed_and_its_process_replaced(tmp_path: Path) -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        started = tmp_path / "started"
        pool.start(0, (str(started), 600))
        pid = int(await written(started))
        pool.abandon(0)
        pool.start(1, (str(started), 0))
        other, error = await outcomes.wait_for(1)
        assert error is None
        assert other != pid
        await until(lambda: not is_alive(pid))
        assert outcomes.order == [1]

    run(called.touch_and_sleep, scenario)


def test_a_call_in_c_code_that_blocks_all_python_threads_is_killed(tmp_path: Path) -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        started = tmp_path / "started"
        pool.start(0, (str(started),))
        pid = int(await written(started))
        pool.abandon(0)
        await until(lambda: not is_alive(pid))

    run(called.hold_the_lock, scenario)


def test_calls_abandoned_at_any_time_leave_the_pool_usable() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        for number in range(12):
            pool.start(number, (0.001,))
            await asyncio.sleep(0.06 * number)  # also while the process starts
            pool.abandon(number)
        pool.start(99, (0,))
        assert (await outcomes.wait_for(99))[1] is None

    run(called.pid, scenario)


def test_a_call_has_begun_when_its_process_has_started() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        pool.start(0, (0.3,))
        assert pool.began_s(0) is None
        await until(lambda: pool.began_s(0))
        began_s = pool.began_s(0)
        assert began_s is not None
        assert began_s <= asyncio.get_running_loop().time()
        await outcomes.wait_for(0)
        assert pool.began_s(0) is None

    run(called.pid, scenario)


def test_a_process_ignores_ctrl_c_and_a_signal_to_its_group() -> None:
    assert answers_of(called.interrupt_group, ()) == [("still here", None)]


def test_a_process_inherits_no_files_and_locks_of_the_job(tmp_path: Path) -> None:
    opened = tmp_path / "lock"
    with opened.open("w") as file, socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(file.fileno(), True)
        os.set_inheritable(server.fileno(), True)
        ((found, _),) = answers_of(called.open_files, ())
    assert isinstance(found, list)
    assert str(opened) not in found
    assert len([each for each in found if each.startswith("socket:")]) == 1


def test_a_function_cannot_read_the_input_of_the_job() -> None:
    assert answers_of(called.read_input, ()) == [("", None)]


def test_a_function_that_closes_all_files_fails_only_its_own_call() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        pool.start(0, ())
        _, error = await outcomes.wait_for(0)
        assert isinstance(error, ProcessDied)

    run(called.close_all_files, scenario)


def test_a_process_left_behind_by_the_function_does_not_keep_the_call_open() -> None:
    began_s = time.monotonic()
    ((_, error),) = answers_of(called.fork_and_die, ())
    assert isinstance(error, ProcessDied)
    assert error.code == 9
    assert time.monotonic() - began_s < 2
    time.sleep(max(0.0, began_s + 3 - time.monotonic()))


def test_a_process_that_the_function_forks_and_that_returns_exits() -> None:
    assert answers_of(called.fork_and_return, (), ()) == [(70, None), (70, None)]


def test_a_forked_child_ends_at_sigterm() -> None:
    """Otherwise, the workers of a pool may wait for a lock when the pool ends, and for ever."""
    assert answers_of(called.sigterm_in_a_forked_child, ()) == [(repr(signal.SIG_DFL), None)]


def test_a_function_can_use_multiprocessing_and_subprocesses() -> None:
    assert answers_of(called.use_multiprocessing, ()) == [([0, 1, 4, 9, 16], None)]
    ((pid, error),) = answers_of(called.start_daemon, ())
    assert error is None
    assert isinstance(pid, int)
    deadline_s = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)


def test_closing_lets_a_call_that_hangs_clean_up(tmp_path: Path) -> None:
    state = tmp_path / "state"

    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        pool.start(0, (str(state),))
        await written(state)
        began_s = time.monotonic()
        await pool.close()
        assert time.monotonic() - began_s < 4
        assert outcomes.order == []

    run(called.clean_up_when_stopped, scenario)
    assert state.read_text() == "cleaned up"


@pytest.mark.parametrize("function", [called.ignore_everything, called.hold_the_lock])
def test_closing_kills_a_call_that_does_not_end(
    function: Callable[..., object], tmp_path: Path
) -> None:
    state = tmp_path / "state"

    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        pool.start(0, (str(state),))
        pid = int(await written(state))
        began_s = time.monotonic()
        await pool.close()
        assert time.monotonic() - began_s < 4
        assert not is_alive(pid)

    run(function, scenario)


def test_closing_while_processes_start_leaves_none_behind() -> None:
    for pause_s in (0.0, 0.002, 0.02, 0.2, 0.4):

        async def scenario(
            pool: CallProcesses, outcomes: Outcomes, pause_s: float = pause_s
        ) -> None:
            for number in range(4):
                pool.start(number, (0.0,))
            await asyncio.sleep(pause_s)
            await pool.close()

        run(called.pid, scenario, processes=4)


def test_a_close_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    started = tmp_path / "started"

    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        pool.start(0, (str(started),))
        await written(started)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.close()
        await until(
            lambda: not any("streamkit-call" in each.name for each in threading.enumerate())
        )

    run(called.ignore_everything, scenario)


def test_closing_ends_a_process_with_a_thread_that_never_ends() -> None:
    began_s = time.monotonic()
    assert answers_of(called.start_thread_that_never_ends, ()) == [(None, None)]
    assert time.monotonic() - began_s < 10


def test_a_pool_that_was_never_used_closes_at_once() -> None:
    async def scenario(pool: CallProcesses, outcomes: Outcomes) -> None:
        began_s = time.monotonic()
        await pool.close()
        assert time.monotonic() - began_s < 0.1

    run(called.pid, scenario)


def test_several_pools_run_at_once() -> None:
    async def use(amount: int) -> None:
        outcomes = Outcomes()
        pool = CallProcesses(partial(called.add, amount), "add", 2, outcomes.on_done)
        answers = await run_all(pool, outcomes, [(each,) for each in range(100)], at_once=2)
        assert answers == [(each + amount, None) for each in range(100)]
        await pool.close()

    async def main() -> None:
        await asyncio.gather(*(use(amount) for amount in (1000, 2000, 3000)))

    asyncio.run(main())


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_pool_runs_in_the_loop_of_a_test(is_nested: bool) -> None:
    async def use() -> list[Answer]:
        outcomes = Outcomes()
        pool = CallProcesses(called.add, "add", 2, outcomes.on_done)
        answers = await run_all(pool, outcomes, [(1, 2), (3, 4)], at_once=2)
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
    assert answers == [(3, None), (7, None)]


def test_no_file_is_left_open() -> None:
    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    answers_of(called.pid, ())
    before = open_now()
    for _ in range(3):
        answers_of(called.die, ("kill",), ("live",))
    assert open_now() == before


@pytest.mark.parametrize(
    "error",
    [
        NotPicklable("the result", "it has a lock"),
        ProcessDied("it exited", code=3, hint="look at it"),
        TopologyError("not valid", at="app.py:1", hint="fix it"),
        RowError(3, "bad"),
    ],
    ids=repr,
)
def test_errors_of_streamkit_can_be_pickled(error: StreamKitError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.args, copy.__dict__) == (error.args, error.__dict__)
