"""Whole programs: how their end, their signals and their children affect a job."""

from __future__ import annotations

import signal
import time

import pytest

from tests.embedding.running import NUMBERS, Place
from tests.stop.running import PATIENCE_S

# How long a program may take to end if its job has nothing to wait for.
_PROMPT_S = PATIENCE_S / 3


@pytest.mark.parametrize(("end", "code"), [("no stop", 0), ("error", 1)])
def test_a_program_that_forgets_to_stop_its_job_loses_nothing(
    place: Place, end: str, code: int
) -> None:
    with place.program("script.py", END=end) as program:
        assert program.wait() == code, program.errors
    assert "committing" in program.errors
    assert "1 commit" in program.errors
    assert "Exception ignored" not in program.errors
    name = f"script-{end.replace(' ', '-')}"
    assert place.values(name) == NUMBERS


@pytest.mark.parametrize("end", ["hangs", "loops"])
def test_a_program_ends_although_its_job_hangs(place: Place, end: str) -> None:
    with place.program("script.py", END=end) as program:
        program.wait_for("ready")
        began_s = time.monotonic()
        assert program.wait() == 0, program.errors
    assert time.monotonic() - began_s < _PROMPT_S
    assert f"the job 'script-{end}' did not stop within 0.5 s; it hangs at" in program.errors
    assert "in change" in program.errors


def test_a_job_outlives_the_main_thread_while_other_threads_run(place: Place) -> None:
    with place.program("script.py", END="thread") as program:
        assert program.wait() == 0, program.errors
    assert program.printed == "is running: True\n"
    assert "committing" in program.errors


def test_a_job_is_stopped_after_the_last_thread_of_a_program(place: Place) -> None:
    with place.program("script.py", END="thread without stop") as program:
        assert program.wait() == 0, program.errors
    assert program.printed == "is running: True\n"
    assert "1 commit" in program.errors


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_job_of_a_child_process_is_stopped_at_its_end(place: Place, method: str) -> None:
    with place.program("script.py", END=method) as program:
        assert program.wait() == 0, program.errors
    assert "1 commit" in program.errors
    assert place.values(f"script-{method}") == NUMBERS


def test_a_child_process_does_not_stop_the_job_of_its_parent(place: Place) -> None:
    with place.program("script.py", END="fork while it runs") as program:
        assert program.wait() == 0, program.errors
    assert program.printed == "is running: True 0\n"
    assert program.errors.count("stopping sources") == 1


def test_ctrl_c_in_a_block_stops_the_job_in_order(place: Place) -> None:
    with place.program("script.py", END="interrupt") as program:
        program.wait_for("ready")
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == 0, program.errors
    assert "interrupted, running: False" in program.printed
    assert "1 commit" in program.errors


def test_a_sigterm_that_the_program_handles_stops_the_job_in_order(place: Place) -> None:
    with place.program("script.py", END="sigterm") as program:
        program.wait_for("ready")
        program.process.send_signal(signal.SIGTERM)
        assert program.wait() == 7, program.errors
    assert "1 commit" in program.errors


def test_ctrl_c_ends_the_wait_for_a_broker(place: Place) -> None:
    with place.program("script.py", END="no broker") as program:
        program.wait_for("ready")
        time.sleep(1)
        program.process.send_signal(signal.SIGINT)
        assert program.wait() != 0
    assert "waiting for the broker at 127.0.0.1:1" in program.errors
    assert "KeyboardInterrupt" in program.errors
