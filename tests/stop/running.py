"""Runs `streamkit run` in its own process and collects its output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Event = dict[str, Any]
PROJECT = Path(__file__).parents[2]
JOBS = Path(__file__).parent / "jobs"
# Longer than any step of these tests; a test that waits longer has failed.
PATIENCE_S = 60.0


class Job:
    """One run of an app with ``--json``. ``events`` and ``errors`` grow while it runs."""

    def __init__(self, app: str | Path, folder: Path, *options: str, **variables: str) -> None:
        self.events: list[Event] = []
        self.errors: list[str] = []
        self.ended_s = 0.0
        self._changed = threading.Condition()
        self._open_pipes = 2
        target = str(JOBS / app) if isinstance(app, str) else str(app)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamkit", "run", target, "--json", *options],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pipe, take in (
            (self.process.stdout, self._take_event),
            (self.process.stderr, self.errors.append),
        ):
            threading.Thread(target=self._listen, args=(pipe, take), daemon=True).start()

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def wait_for(self, matches: Callable[[Event], object]) -> Event:
        """Wait for an event; earlier events count too."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: any(map(matches, self.events)) or not self._open_pipes, PATIENCE_S
            )
            for event in self.events:
                if matches(event):
                    return event
        assert found, f"no such event in {PATIENCE_S} s: {self.words}"
        raise AssertionError(f"it ended without such an event: {self.words}")

    def wait_for_phase(self, phase: str) -> Event:
        return self.wait_for(lambda event: event.get("phase") == phase)

    def wait_for_note(self, words: str) -> Event:
        return self.wait_for(lambda event: words in event.get("text", ""))

    def wait_until(self, is_so: Callable[[], object]) -> None:
        """Wait until a condition is true; it is checked whenever the job has written something."""
        with self._changed:
            self._changed.wait_for(lambda: is_so() or not self._open_pipes, PATIENCE_S)
        assert is_so(), self.words

    def wait_for_error(self, words: str) -> None:
        """Wait for words on standard error."""
        self.wait_until(lambda: words in self.error_text)

    def wait_for_records(self, count: int) -> None:
        """Wait until ``count`` records have been read."""
        self.wait_for(lambda event: event.get("records_in") == count)

    @property
    def commits(self) -> int:
        """The reported number of commits so far."""
        return max([event.get("commits", 0) for event in self.events], default=0)

    def signal(self, number: int = signal.SIGTERM) -> float:
        """Send a signal; return its time on the monotonic clock, which all processes share."""
        now_s = time.monotonic()
        self.process.send_signal(number)
        return now_s

    def wait(self) -> int:
        """Wait for the end and for all output; return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self.ended_s = time.monotonic()
        with self._changed:
            assert self._changed.wait_for(lambda: not self._open_pipes, PATIENCE_S)
        return code

    @property
    def ended(self) -> Event:
        """The end report."""
        return self.wait_for(lambda event: event["event"] == "ended")

    @property
    def notes(self) -> list[str]:
        return [event["text"] for event in self.events if event["event"] == "note"]

    @property
    def phases(self) -> list[str]:
        return [event["phase"] for event in self.events if event["event"] == "phase"]

    @property
    def error_text(self) -> str:
        return "".join(self.errors)

    @property
    def words(self) -> str:
        """All output, to explain a failing test."""
        return "\n".join([*map(str, self.events), self.error_text])

    def _listen(self, pipe: Any, take: Callable[[str], None]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    take(line)
                    self._changed.notify_all()
        with self._changed:
            self._open_pipes -= 1
            self._changed.notify_all()

    def _take_event(self, line: str) -> None:
        self.events.append(json.loads(line))


def run_to_end(app: str | Path, folder: Path, *options: str, **variables: str) -> Job:
    """Run an app until it ends."""
    with Job(app, folder, *options, **variables) as job:
        job.wait()
    return job
