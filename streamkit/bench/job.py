"""Runs a job of a benchmark, and checks the offsets that it or a loop by hand has committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from streamkit.app import App
from streamkit.bench.environment import Environment
from streamkit.bench.result import WrongOutput
from streamkit.bench.timing import Stopwatch, measured
from streamkit.env import SystemClock
from streamkit.observe.facts import Ended, Snapshot, Started
from streamkit.run import Run, RunOptions
from streamkit.run.heap import frozen_heap
from streamkit.settings import Settings
from streamkit.target import BrokerLease, Target

COMMIT_S: Final = 1.0


def run_job(app: App, environment: Environment, *, drain: bool = False) -> Stopwatch:
    """Run a job as `streamkit run --once` does.

    Raises:
        WrongOutput: The job failed.
    """
    target = Target("cluster", environment.address, "the benchmark's broker", environment.folder)
    # Ignore the state and the offsets of the previous round, in the folder and on the broker.
    options = RunOptions(once=True, drain=drain, fresh_state=True, commit_interval_s=COMMIT_S)
    job = Run(app, options, Settings(), target, BrokerLease(target), Silent(), SystemClock())
    with frozen_heap() as job.on_running, measured() as watch:
        code = anyio.run(job.main)
    if code:
        raise WrongOutput(f"the job ended with exit code {code}")
    return watch


class Silent:
    """Discards all reports."""

    progress_every_s = 5.0
    hide: Callable[[str], str] = str

    def started(self, started: Started) -> None:
        pass  # discarded

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None:
        pass  # discarded

    def phase(self, name: str, detail: str) -> None:
        pass  # discarded

    def note(self, text: str) -> None:
        pass  # discarded

    def ended(self, ended: Ended) -> None:
        pass  # discarded


def check_committed(
    environment: Environment, consumer_id: str, source: str, records: int, side: str
) -> None:
    """Check that the last offset of a topic is committed, and forget it for the next run.

    Raises:
        WrongOutput: Another offset is committed, or none.
    """
    committed = [
        each.offset
        for each in environment.client.admin.list_consumers()
        if each.consumer_id == consumer_id and each.topic == source
    ]
    if committed != [records - 1]:
        raise WrongOutput(f"{side}: committed offsets are {committed}, not [{records - 1}]")
    environment.client.admin.delete_consumer(consumer_id, source)
