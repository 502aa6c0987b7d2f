"""Reports of a job inside another program: each line has the name of the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from streamkit.observe.facts import Ended, Snapshot, Started
from streamkit.observe.report import JsonReporter, Reporter, TextReporter

_NOTHING_YET: Final = Snapshot(0, 0, 0.0, None, 0)


class EmbeddedReporter:
    """Writes the reports of one job of a program, and keeps its latest progress.

    The program may have a terminal and other jobs, so no line is updated in place. Progress is
    written only if it has changed.
    """

    progress_every_s = 1.0

    def __init__(self, app: str, *, is_json: bool) -> None:
        self._reporter: Reporter = (
            JsonReporter(app=app) if is_json else TextReporter(app=app, is_terminal=False)
        )
        self._written = _NOTHING_YET
        self.latest = _NOTHING_YET

    @property
    def hide(self) -> Callable[[str], str]:
        """Removes secrets from a text."""
        return self._reporter.hide

    @hide.setter
    def hide(self, hide: Callable[[str], str]) -> None:
        self._reporter.hide = hide

    def started(self, started: Started) -> None:
        self._reporter.started(started)

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None:
        self.latest = snapshot
        has_changed = _counts(snapshot) != _counts(self._written)
        elapsed_s = snapshot.elapsed_s - self._written.elapsed_s
        if has_changed and elapsed_s >= self._reporter.progress_every_s:
            self._written = snapshot
            self._reporter.progress(snapshot, total=total)

    def phase(self, name: str, detail: str) -> None:
        self._reporter.phase(name, detail)

    def note(self, text: str) -> None:
        self._reporter.note(text)

    def ended(self, ended: Ended) -> None:
        self.latest = Snapshot(
            ended.records_in,
            ended.records_out,
            ended.elapsed_s,
            ended.lag,
            ended.commits,
            ended.time,
        )
        self._reporter.ended(ended)


def _counts(snapshot: Snapshot) -> tuple[int, int, int]:
    return snapshot.records_in, snapshot.records_out, snapshot.commits
