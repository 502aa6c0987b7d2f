"""Runs a hostile job in this process, on a real broker, and collects its reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from streamkit import App
from streamkit.env import SystemClock
from streamkit.errors import StreamKitError
from streamkit.observe.facts import Ended, Snapshot, Started
from streamkit.run import Run, RunOptions
from streamkit.settings import Settings
from streamkit.sync import Client
from streamkit.target import BrokerLease, Target
from tests.hostile.graphs import COUNT, TOPIC

DEADLINE_S = 5.0
# A run that takes longer hangs; its own deadline is much shorter.
PATIENCE_S = 20.0


@dataclass
class RecordingReporter:
    """A reporter that keeps all reports."""

    notes: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    end: Ended | None = None
    progress_every_s = 10.0

    def __post_init__(self) -> None:
        self.hide: Callable[[str], str] = str

    def started(self, started: Started) -> None:
        pass

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None:
        pass

    def phase(self, name: str, detail: str) -> None:
        self.phases.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ended(self, ended: Ended) -> None:
        self.end = ended


@dataclass
class Outcome:
    """How a run ended: its exit code and reports, or the error at its start."""

    code: int
    reports: RecordingReporter
    error: str

    def counts(self, stage: str) -> Any:
        assert self.reports.end is not None
        return next(each for each in self.reports.end.stages if each.name == stage)


class Place:
    """A folder and a broker with the numbers in a topic."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        with Client.connect(address) as client:
            client.admin.create_topic(TOPIC)
            with client.producer(TOPIC) as producer:
                producer.send_many([b"%d" % number for number in range(COUNT)])

    def run(self, app: App, *, options: RunOptions | None = None) -> tuple[Run, RecordingReporter]:
        """Prepare a run; the caller may send signals to it."""
        app.check()
        reports = RecordingReporter()
        target = Target("cluster", self.address, "the test's broker", self.folder)
        chosen = options or RunOptions(
            once=True, create_topics=True, commit_interval_s=0.05, stop_deadline_s=DEADLINE_S
        )
        return Run(
            app, chosen, Settings(), target, BrokerLease(target), reports, SystemClock()
        ), reports

    def finish(self, run: Run, reports: RecordingReporter) -> Outcome:
        async def main() -> int:
            with anyio.fail_after(PATIENCE_S):
                return await run.main()

        try:
            code = anyio.run(main)
        except StreamKitError as error:
            return Outcome(error.exit_code, reports, str(error))
        assert reports.end is not None, reports.notes
        assert reports.end.exit_code == code
        return Outcome(code, reports, reports.end.error)

    def values(self, topic: str) -> list[int]:
        with Client.connect(self.address) as client:
            consumer = client.consumer(topic, start="beginning", until_end=True)
            return [int(value) for chunk in consumer.chunks() for value in chunk.values]
