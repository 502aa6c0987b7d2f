"""One, two and three signals, in every phase; stages that hang; a terminal's Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.broker.data_folder import DataFolder
from streamkit.runtime.shutdown import Phase
from tests.cli.processes import wait_for_end_of_broker
from tests.stop.job_environment import Place, next_offsets
from tests.stop.running import JOBS, PATIENCE_S, PROJECT, Job

HANG_AT = 1_000
# A second signal ends a job within a second. A busy machine may need longer, but a job that takes
# as long as the deadline of 25 s was not ended by the signal.
FORCED_S_MAX = 10.0
# Makes the terminal on standard input the controlling one, so that Ctrl-C reaches the process.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
HANGING_PHASES = {"draining": "write", "flushing": "flush", "closing": "close"}


def started_with_a_commit(place: Place, hang: str, *options: str) -> Job:
    """Start a job that commits the first rows and hangs at the next ones."""
    place.produce_rows("numbers", lanes=1, count=HANG_AT)
    job = place.job("hanging.py", "--commit-interval", "50ms", *options, HANG=hang)
    job.wait_for(lambda event: event["event"] == "progress" and event["commits"])
    place.produce_rows("numbers", lanes=1, first=HANG_AT, count=1_000)
    return job


def assert_last_commit_was_kept(place: Place) -> None:
    rest = place.run("hanging.py", "--once")
    assert rest.process.returncode == 0, rest.words
    assert next_offsets(rest) == {0: HANG_AT}
    assert rest.ended["records_in"] == 1_000


@pytest.mark.parametrize("phase", HANGING_PHASES)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_phase_that_hangs(
    place: Place, phase: str, second: signal.Signals
) -> None:
    with started_with_a_commit(place, HANGING_PHASES[phase]) as job:
        if phase != "closing":
            job.wait_for_error("it hangs")
        job.signal(signal.SIGTERM)
        job.wait_for_phase(phase)
        sent_s = job.signal(second)
        assert job.wait() == 128 + second, job.words
        assert job.ended_s - sent_s < FORCED_S_MAX
    assert f"abandoned {phase}" in " ".join(job.notes)
    if phase != "closing":  # before closing, the last commit is done
        assert_last_commit_was_kept(place)


def test_two_immediate_signals_end_a_job_by_force(place: Place) -> None:
    # No commit is due while the signals arrive.
    with started_with_a_commit(place, "two signals", "--commit-interval", "3s") as job:
        code = job.wait()
    assert code in (128 + signal.SIGTERM, 128 + signal.SIGINT), job.words
    assert any(note.startswith("abandoned") for note in job.notes)
    assert_last_commit_was_kept(place)


def test_a_second_signal_ends_a_commit_that_waits_for_the_store(place: Place) -> None:
    with started_with_a_commit(place, "") as job:
        job.wait_for(lambda event: event["event"] == "progress" and event["records_in"] > HANG_AT)
        with sqlite3.connect(place.folder / "data/state/hanging/main.sqlite") as store:
            store.execute("BEGIN IMMEDIATE")  # blocks every other writer
            place.produce_rows("numbers", lanes=1, first=2 * HANG_AT, count=1_000)
            written = place.folder / "copies.jsonl"
            job.wait_for(
                lambda event: (
                    event["event"] == "progress"
                    and event["records_in"] == 3 * HANG_AT
                    and written.stat().st_size
                )
            )
            job.signal(signal.SIGTERM)
            job.wait_for_phase("flushing")  # waits for the commit in progress first
            sent_s = job.signal(signal.SIGTERM)
            assert job.wait() == 128 + signal.SIGTERM, job.words
            assert job.ended_s - sent_s < FORCED_S_MAX
            store.rollback()
        store.close()
    rest = place.run("hanging.py", "--once")
    assert next_offsets(rest) == {0: 2 * HANG_AT}
    assert rest.ended["records_in"] == 1_000


def test_a_third_signal_exits_immediately(place: Place) -> None:
    with started_with_a_commit(place, "compute") as job:
        job.wait_for_error("it hangs")
        job.signal(signal.SIGTERM)
        while job.process.poll() is None:  # signals sent too fast may become one
            job.signal(signal.SIGINT)
        # The system may deliver pending signals in any order, so each one may be the third.
        assert job.wait() in (128 + signal.SIGTERM, 128 + signal.SIGINT), job.words
        assert "did not stop in time" not in job.error_text  # the watchdog did not end the job
    assert_last_commit_was_kept(place)


@pytest.mark.parametrize("hang", ["compute", "sleep"])
def test_a_second_signal_ends_a_stage_that_hangs(place: Place, hang: str) -> None:
    with started_with_a_commit(place, hang) as job:
        job.wait_for_error("it hangs")
        job.signal(signal.SIGTERM)
        sent_s = job.signal(signal.SIGINT)
        assert job.wait() in (128 + signal.SIGTERM, 128 + signal.SIGINT), job.words
        assert job.ended_s - sent_s < FORCED_S_MAX
    assert_last_commit_was_kept(place)


@pytest.mark.parametrize(("hang", "line"), [("compute", "pass"), ("sleep", "# sleeping")])
def test_a_stage_that_hangs_is_abandoned_at_the_deadline_and_reported(
    place: Place, hang: str, line: str
) -> None:
    with started_with_a_commit(place, hang, "--stop-deadline", "500ms") as job:
        job.wait_for_error("it hangs")
        sent_s = job.signal(signal.SIGTERM)
        assert job.wait() == 3, job.words
        assert job.ended_s - sent_s < FORCED_S_MAX
    (note,) = [each for each in job.notes if "hangs at" in each]
    assert f"{JOBS / 'hanging.py'}:" in note
    assert "in passed" in note
    assert line in note or hang == "compute"  # it may be at any line of the loop
    assert job.ended["exit_code"] == 3
    assert job.ended["reason"] == "stopped at the deadline"
    assert_last_commit_was_kept(place)


def test_unflushed_records_at_the_deadline_are_reported_and_not_committed(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=2 * HANG_AT)
    freeze = {"HANG": "freeze the broker", "BROKER_PID": str(place.broker.pid)}
    with place.job("hanging.py", "--stop-deadline", "1s", **freeze) as job:
        job.wait_for_error("it hangs")
        sent_s = job.signal(signal.SIGTERM)
        code = job.wait()
        place.broker.signal(signal.SIGCONT)
    assert code == 3, job.words
    assert job.ended_s - sent_s < FORCED_S_MAX
    held = job.ended["unacknowledged"]["copies"]
    assert HANG_AT <= held <= 2 * HANG_AT  # slices before the freeze may be acknowledged
    assert f"abandoned flushing: unacknowledged records: {held} for copies" in job.notes
    rest = place.run("hanging.py", "--once")
    assert next_offsets(rest) == {0: 0}
    assert rest.ended["records_in"] == 2 * HANG_AT


@pytest.mark.parametrize("target", ["stage:500", "flush:1", "close:1"])
def test_a_signal_to_an_ending_job_changes_nothing(place: Place, target: str) -> None:
    place.produce_rows("numbers", lanes=3, count=1_000)
    aim = f"{target}:{int(signal.SIGTERM)}"
    job = place.run("copying.py", "--once", "--commit-interval", "60s", AIM=aim)
    assert job.process.returncode == 0, job.words
    assert (place.folder / "signalled-at").exists()
    rest = place.run("copying.py", "--once")
    assert job.ended["records_in"] + rest.ended["records_in"] == 3_000


def test_ctrl_c_on_a_terminal_ends_a_job_and_then_its_broker_cleanly(tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = tmp_path / "ticking.py"
    source.write_text((JOBS / "ticking.py").read_text())
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "streamkit", "run", str(source), "--data-dir", str(data)]
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command, "--embedded", "--commit-interval", "50ms"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "TERM": "dumb"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        said = _read_until(master, b" commits")
        os.write(master, b"\x03")
        said += _read_until(master, b"look at the result")
        assert process.wait(PATIENCE_S) == 0, said
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert b"stopped after" in said
    assert b"NOT FLUSHED" not in said
    wait_for_end_of_broker(data)


def _read_until(fd: int, words: bytes) -> bytes:
    said = b""
    while words not in said:
        said += os.read(fd, 4_096)
    return said


def test_a_signal_while_the_broker_is_absent_ends_the_job_with_exit_code_0(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Job("copying.py", tmp_path, "--cluster", address) as job:
            job.wait_for_note("waiting for the broker")
            sent_s = job.signal(signal.SIGTERM)
            assert job.wait() == 0, job.words
            assert job.ended_s - sent_s < FORCED_S_MAX
    assert "nothing was read" in " ".join(job.notes)


def test_a_signal_while_the_embedded_broker_starts_ends_the_job_with_exit_code_0(
    tmp_path: Path,
) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    lock = folder.try_lock()
    assert lock is not None
    listener = socket.socket(socket.AF_UNIX)
    attach = folder.attach_socket
    assert attach is not None
    with listener:
        listener.bind(os.fspath(attach))
        listener.listen()
        with Job("copying.py", tmp_path, "--embedded", "--data-dir", str(folder.path)) as job:
            greeted, _ = listener.accept()  # the job waits for a greeting that never arrives
            with greeted:
                sent_s = job.signal(signal.SIGTERM)
                assert job.wait() == 0, job.words
                assert job.ended_s - sent_s < FORCED_S_MAX
    os.close(lock)
    assert "nothing was read" in " ".join(job.notes)


def test_the_tests_send_a_second_signal_in_every_phase() -> None:
    hit = {*HANGING_PHASES, "stopping sources", "committing"}
    assert hit == {phase.label for phase in Phase} - {"running", "stopped"}
