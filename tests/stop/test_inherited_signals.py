"""Jobs that start with ignored signals, as with `nohup` and with `&` in a script."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamkit.sync import Client
from tests.stop.job_environment import Place
from tests.stop.running import PATIENCE_S, PROJECT, Job

ROWS = 1_000
READY = re.compile(r"ready sc=(\S+)")


@contextmanager
def inherited_as_ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals while the block runs; processes started in it inherit this."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def produce_and_wait(place: Place, job: Job, *, first: int) -> None:
    place.produce_rows("numbers", lanes=1, first=first, count=ROWS)
    job.wait_for_records(first + ROWS)


def test_a_job_that_starts_with_sigint_ignored_keeps_ignoring_it(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=ROWS)
    with inherited_as_ignored(signal.SIGINT):
        job = place.job("copying.py")
    with job:
        job.wait_for_records(ROWS)
        job.signal(signal.SIGINT)
        produce_and_wait(place, job, first=ROWS)
        assert job.phases == []
        job.signal(signal.SIGTERM)
        assert job.wait() == 0, job.words
    assert job.ended["unacknowledged"] == {}
    assert place.run("copying.py", "--once").ended["records_in"] == 0


def test_an_ignored_sigint_does_not_count_as_a_first_signal(place: Place) -> None:
    place.produce_rows("numbers", lanes=1, count=2 * ROWS)
    with inherited_as_ignored(signal.SIGINT):
        job = place.job("hanging.py", HANG="two signals")
    with job:
        assert job.wait() == 0, job.words
    assert job.ended["unacknowledged"] == {}


@pytest.mark.parametrize("ignored", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_a_job_that_starts_with_sigterm_ignored_still_stops_at_it(
    place: Place, ignored: tuple[signal.Signals, ...]
) -> None:
    place.produce_rows("numbers", lanes=1, count=ROWS)
    with inherited_as_ignored(*ignored):
        job = place.job("copying.py")
    with job:
        job.wait_for_records(ROWS)
        job.signal(signal.SIGTERM)
        assert job.wait() == 0, job.words
    assert job.ended["unacknowledged"] == {}


def test_a_broker_that_starts_with_sigint_ignored_stops_only_at_sigterm(tmp_path: Path) -> None:
    command = ["broker", "start", "--data-dir", str(tmp_path), "--sc-port", "0", "--spu-port", "0"]
    with inherited_as_ignored(signal.SIGINT):
        broker = subprocess.Popen(
            [sys.executable, "-m", "streamkit", *command],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
    with broker:
        try:
            assert broker.stdout is not None
            found = READY.match(broker.stdout.readline())
            assert found is not None
            broker.send_signal(signal.SIGINT)
            for topic in ("one", "two"):
                with Client.connect(found[1]) as client:
                    client.admin.create_topic(topic)
            broker.send_signal(signal.SIGTERM)
            assert broker.wait(PATIENCE_S) == 0
        finally:
            broker.kill()
