"""`app.start`: a job in a thread, its errors, its stop, and jobs beside each other."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import pytest

from streamkit.errors import NotFlushed, StageError, StateInUse, TopicNotFound, UsageError
from streamkit.run import RunningJob
from tests.embedding.running import COUNT, NUMBERS, Place, wait_until
from tests.stop.broker import BrokerProcess
from tests.stop.running import PATIENCE_S
from tests.unseen_signal import LATE_S, Interrupted, unseen_signal


def test_a_block_runs_a_job_and_stops_it_in_order(place: Place) -> None:
    app = place.app()
    with app.start(**place.options) as job:
        assert job.is_running
        wait_until(lambda: job.progress.records_out == COUNT)
    assert not job.is_running
    assert job.wait() == 0
    assert job.progress.commits == 1
    assert place.values(app) == NUMBERS
    assert place.rest(app) == 0


def test_a_job_without_a_block_is_stopped_by_its_method(place: Place) -> None:
    job = place.app().start(**place.options)
    assert job.stop() == 0
    assert job.stop() == 0  # a second call finds it stopped


def test_a_job_that_ends_by_itself_needs_no_stop(place: Place) -> None:
    app = place.app()
    job = app.start(**(place.options | {"once": True}))
    assert job.wait(PATIENCE_S) == 0
    assert job.progress.records_out == COUNT
    assert place.values(app) == NUMBERS


def test_waiting_with_a_timeout_leaves_the_job_running(place: Place) -> None:
    with place.app().start(**place.options) as job:
        with pytest.raises(TimeoutError, match=f"'{job.name}' has not ended within 0.01 s"):
            job.wait(0.01)
        assert job.is_running


def test_a_signal_that_does_not_wake_the_wait_is_handled(place: Place) -> None:
    with place.app().start(**place.options) as job, unseen_signal(), pytest.raises(Interrupted):
        job.wait(2 * LATE_S)


def test_start_raises_the_error_of_a_job_that_cannot_start(place: Place) -> None:
    app = place.app()
    app.stream("missing", int, name="missing").to("elsewhere", name="elsewhere")
    with pytest.raises(TopicNotFound, match="missing"):
        app.start(**place.options)
    with pytest.raises(UsageError, match="not a valid duration"):
        app.start(stop_deadline=0)


def test_the_end_of_a_block_raises_the_failure_of_the_job(place: Place) -> None:
    app = place.app(lambda number: number // (number - 5))
    failure = pytest.raises(StageError, match="stage 'change' failed on numbers-0 offset 5")
    with failure as caught, app.start(**place.options) as job:
        wait_until(lambda: not job.is_running)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(StageError, match="offset 5"):
        job.wait()
    assert len(place.values(app)) == 5


def test_an_error_of_the_block_stays_and_mentions_that_of_the_job(place: Place) -> None:
    app = place.app(lambda number: number // 0)

    def use(job: RunningJob) -> None:
        wait_until(lambda: not job.is_running)
        raise KeyError("of the block")

    with pytest.raises(KeyError) as caught, app.start(**place.options) as job:
        use(job)
    (note,) = caught.value.__notes__
    assert note.startswith(f"the job {job.name!r} failed too: stage 'change' failed")


def test_an_error_of_the_block_stops_the_job_in_order(place: Place) -> None:
    app = place.app()

    def use(job: RunningJob) -> None:
        wait_until(lambda: job.progress.records_out == COUNT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), app.start(**place.options) as job:
        use(job)
    assert job.wait() == 0
    assert place.rest(app) == 0


def test_a_system_exit_in_a_stage_does_not_end_the_program(place: Place) -> None:
    def leave(number: int) -> int:
        raise SystemExit(7)

    job = place.app(leave).start(**place.options)
    with pytest.raises(StageError, match="SystemExit: 7"):
        job.wait(PATIENCE_S)


def test_the_same_app_cannot_be_started_twice(place: Place) -> None:
    app = place.app()
    with app.start(**place.options) as job:
        with pytest.raises(StateInUse, match=f"another run of '{app.name}' is in progress"):
            app.start(**place.options)
        assert job.is_running
    with app.start(**place.options):
        pass  # after the stop it can


def test_a_failing_job_does_not_disturb_another(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = place.app(), place.app(lambda number: number // 0)
    with good.start(**place.options) as running:
        with pytest.raises(StageError), bad.start(**place.options) as failing:
            failing.wait(PATIENCE_S)
        assert running.is_running
        wait_until(lambda: running.progress.records_out == COUNT)
    assert place.values(good) == NUMBERS
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith((f"{good.name}: ", f"{bad.name}: ")) for line in lines)
    assert any(line.startswith(f"{bad.name}: error: stage 'change' failed") for line in lines)
    assert any(line.startswith(f"{good.name}: stopped after") for line in lines)


def test_json_reports_have_the_name_of_the_job(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with place.app().start(**(place.options | {"json": True, "once": True})) as job:
        job.wait(PATIENCE_S)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["app"] for each in events} == {job.name}
    assert {"started", "phase", "ended"} <= {each["event"] for each in events}


def test_two_threads_each_have_a_job(place: Place) -> None:
    apps = [place.app() for _ in range(2)]
    codes: list[int] = []

    def work(index: int) -> None:
        with apps[index].start(**(place.options | {"once": True})) as job:
            codes.append(job.wait(PATIENCE_S))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert codes == [0, 0]
    assert [place.values(app) for app in apps] == [NUMBERS, NUMBERS]


def test_several_threads_can_stop_a_job_at_the_same_time(place: Place) -> None:
    app = place.app()
    job = app.start(**place.options)
    wait_until(lambda: job.progress.records_out == COUNT)
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(job.stop())) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert codes == [0] * 5
    assert place.rest(app) == 0


def test_a_stage_cannot_wait_for_its_own_job(place: Place) -> None:
    jobs: list[RunningJob] = []

    def stop(number: int) -> int:
        wait_until(lambda: jobs)
        return jobs[0].stop()

    jobs.append(place.app(stop).start(**place.options))
    with pytest.raises(StageError, match="would wait for itself"):
        jobs[0].wait(PATIENCE_S)


def test_signals_and_logging_of_the_program_stay_as_they_are(place: Place) -> None:
    def state() -> list[object]:
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        return [handlers, wakeup, list(logging.root.handlers), logging.root.level]

    before = state()
    with place.app().start(**place.options):
        assert state() == before
    assert state() == before


def test_repeated_jobs_leave_no_thread_and_no_descriptor(place: Place) -> None:
    app = place.app()
    app.start(**place.options).stop()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        app.start(**place.options).stop()
    wait_until(lambda: threading.active_count() <= threads)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


# --- jobs that do not stop ------------------------------------------------------------------


def test_a_stage_that_blocks_is_named_after_the_deadline(place: Place) -> None:
    has_blocked, release = threading.Event(), threading.Event()

    def block(number: int) -> int:
        if number == 3:
            has_blocked.set()
            release.wait()  # blocking
        return number

    app = place.app(block)
    job = app.start(**(place.options | {"stop_deadline": 0.2}))
    assert has_blocked.wait(PATIENCE_S)
    started_s = time.monotonic()
    with pytest.raises(NotFlushed, match=r"did not stop within 0.2 s; it hangs at .*# blocking"):
        job.stop()
    assert time.monotonic() - started_s < PATIENCE_S / 2
    assert job.is_running
    with pytest.raises(StateInUse):
        app.start(**place.options)
    release.set()
    wait_until(lambda: not job.is_running)
    assert place.rest(app) > 0


def test_a_sink_that_waits_forever_is_named_after_the_deadline(place: Place) -> None:
    class Stuck:
        def open(self) -> None: ...

        def write(self, rows: list[int]) -> None: ...

        async def flush(self) -> None:
            await asyncio.Event().wait()  # waiting

        def close(self) -> None: ...

    app = place.app()
    app.stream("numbers", int, name="again").to(Stuck(), name="stuck")
    options = place.options | {"stop_deadline": 0.5}
    with pytest.raises(NotFlushed) as caught, app.start(**options) as job:
        wait_until(lambda: job.progress.records_out == 2 * COUNT)
    assert "did not stop within 0.5 s; it hangs at" in str(caught.value)
    assert "# waiting" in str(caught.value)
    assert not job.is_running


def test_records_that_the_broker_does_not_acknowledge_are_counted(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as broker:
        place = Place(tmp_path, broker.address)

        def freeze(number: int) -> int:
            if number == COUNT - 1:
                broker.signal(signal.SIGSTOP)
            return number

        options = place.options | {"stop_deadline": 1}
        with pytest.raises(NotFlushed) as caught, place.app(freeze).start(**options) as job:
            wait_until(lambda: job.progress.records_out == COUNT)
        assert str(caught.value) == (
            f"the job {job.name!r} did not stop within 1 s; not flushed: 40 records for copies"
        )


# --- forked children ------------------------------------------------------------------------


def test_a_forked_child_does_not_touch_the_job_of_its_parent(place: Place) -> None:
    app = place.app()
    with app.start(**place.options) as job:
        wait_until(lambda: job.progress.records_out == COUNT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the process has threads
            child = os.fork()
        if child == 0:
            code = 1
            try:
                job.__exit__(None, None, None)
                assert not job.is_running
                with pytest.raises(UsageError, match="runs in the parent process"):
                    job.stop()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert job.is_running
    assert job.wait() == 0
    assert place.rest(app) == 0
