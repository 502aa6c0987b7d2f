"""Reports of a running job: as lines for people, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, Any, Protocol

from streamkit.observe.facts import (
    Ended,
    Lookups,
    SettingReport,
    Snapshot,
    Started,
    TimeReport,
    Waits,
)
from streamkit.observe.streams import ReportStream, escaped
from streamkit.units import counted, shown_bytes

_LINE_WIDTH = 100


class Reporter(Protocol):
    """Writes the reports of a run. ``hide`` removes secrets from a text."""

    hide: Callable[[str], str]

    def started(self, started: Started) -> None: ...

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None: ...

    def phase(self, name: str, detail: str) -> None: ...

    def note(self, text: str) -> None: ...

    def ended(self, ended: Ended) -> None: ...

    @property
    def progress_every_s(self) -> float:
        """How often to call `progress`."""


class TextReporter:
    """Writes lines to standard error; on a terminal, the progress line is updated in place.

    ``app`` is added to each line if a process runs several jobs.
    """

    def __init__(
        self, out: IO[str] | None = None, *, is_terminal: bool | None = None, app: str = ""
    ) -> None:
        self._prefix = f"{app}: " if app else ""
        self.hide: Callable[[str], str] = str
        self._out = ReportStream(sys.stderr if out is None else out)
        self._is_terminal = self._out.is_terminal if is_terminal is None else is_terminal
        self._is_live = False

    @property
    def progress_every_s(self) -> float:
        return 0.25 if self._is_terminal else 5.0

    def started(self, started: Started) -> None:
        self._line(f"{started.app}: running {started.where}")
        for source in started.sources:
            self._line(f"  source  {source}")
        for sink in started.sinks:
            self._line(f"  sink    {sink}")
        for setting in started.settings:
            self._line(f"  {setting_line(setting)}")
        self._line(f"  state   {started.state}")
        if started.waiting is not None:
            self._line(f"  {counted(started.waiting, 'record')} waiting")

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None:
        text = (
            f"{snapshot.records_in:,} in, {snapshot.records_out:,} out, "
            f"{snapshot.rate:,.0f}/s, {counted(snapshot.commits, 'commit')}"
        )
        if snapshot.lag is not None:
            text += f", {snapshot.lag:,} left"
            if total and snapshot.rate > 0 and snapshot.lag:
                text += f" (about {snapshot.lag / snapshot.rate:,.0f} s)"
        elif snapshot.bytes_read is not None:
            text += _bytes_text(*snapshot.bytes_read, snapshot.elapsed_s)
        text += _waits_text(snapshot) + _kept_text(snapshot.time)
        if self._is_terminal:
            self._out.write(f"\r{escaped(text)[:_LINE_WIDTH]:<{_LINE_WIDTH}}")
            self._is_live = True
        else:
            self._line(text)

    def phase(self, name: str, detail: str) -> None:
        self._line(f"{name}{': ' if detail else ''}{detail}")

    def note(self, text: str) -> None:
        self._line(text)

    def ended(self, ended: Ended) -> None:
        if not self._prefix:
            self._line("")
        for line in ended_lines(ended):
            self._line(line)

    def _line(self, text: str) -> None:
        if self._is_live:
            self._out.write("\r" + " " * _LINE_WIDTH + "\r")
            self._is_live = False
        if self._prefix and text:  # the first line of a report has the name already
            text = self._prefix + text.removeprefix(self._prefix)
            text = text.replace("\n", f"\n{self._prefix}")
        self._out.line(self.hide(text))


class JsonReporter:
    """Writes one JSON object per line to standard output, each with its ``event``.

    ``app`` is added to each object if a process runs several jobs.
    """

    progress_every_s = 1.0

    def __init__(self, out: IO[str] | None = None, *, app: str = "") -> None:
        self._app = {"app": app} if app else {}
        self.hide: Callable[[str], str] = str
        self._out = ReportStream(sys.stdout if out is None else out)

    def started(self, started: Started) -> None:
        self._write("started", asdict(started))

    def progress(self, snapshot: Snapshot, *, total: int | None) -> None:
        self._write("progress", {**asdict(snapshot), "rate": snapshot.rate, "total": total})

    def phase(self, name: str, detail: str) -> None:
        self._write("phase", {"phase": name, "detail": detail})

    def note(self, text: str) -> None:
        self._write("note", {"text": text})

    def ended(self, ended: Ended) -> None:
        self._write("ended", asdict(ended))

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        shown = _with_texts({"event": event, **self._app, **fields}, self.hide)
        self._out.write(json.dumps(shown) + "\n")


def _with_texts(value: object, change: Callable[[str], str]) -> object:
    """Return a value of dicts, lists and texts with each text changed, except the keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _with_texts(each, change) for key, each in value.items()}
    return [_with_texts(each, change) for each in value] if isinstance(value, list) else value


def setting_line(setting: SettingReport) -> str:
    """Return the line of a setting, with its origin."""
    return f"setting {setting.name}: {setting.value} ({setting.origin})"


def ended_lines(ended: Ended) -> list[str]:
    """Return the lines of the end report; the last ones are commands to look at the result."""
    lines = [f"{ended.app}: {ended.reason} after {ended.elapsed_s:.1f} s"]
    lines += _stage_lines(ended)
    lines.append(
        f"  {ended.records_in:,} records in, {ended.records_out:,} out, {ended.dropped:,} dropped, "
        f"{ended.skipped:,} skipped"
        + (f", {counted(ended.dead_lettered, 'dead letter')}" if ended.dead_lettered else "")
    )
    if ended.replayed:
        lines.append(f"  {counted(ended.replayed, 'dead letter')} replayed")
    lines.append(
        f"  {ended.rate:,.0f} records/s, p99 {ended.p99_ms:.0f} ms from arrival to the sinks, "
        f"{counted(ended.commits, 'commit')}"
    )
    return [*lines, *_kept_lines(ended), *_problem_lines(ended), *_look_lines(ended)]


def _stage_lines(ended: Ended) -> list[str]:
    lines = []
    width = max([len(stage.name) for stage in ended.stages], default=0)
    for stage in ended.stages:
        parts = [f"{stage.taken:>12,} in", f"{stage.given:>12,} out"]
        if stage.dropped:
            late = f", {stage.late:,} of them late" if stage.late else ""
            parts.append(f"{stage.dropped:,} dropped{late}")
        if stage.skipped:
            parts.append(f"{stage.skipped:,} skipped")
        if stage.dead_lettered:
            parts.append(counted(stage.dead_lettered, "dead letter"))
        if stage.pending:
            parts.append(f"{stage.pending:,} pending")
        lines.append(f"  {stage.name:<{width}} {' '.join(parts)}")
        if stage.waits is not None and (text := _calls_text(stage.waits)):
            lines.append(f"  {'':<{width}} {text}")
        if stage.lookups is not None:
            lines.append(f"  {'':<{width}} {_lookups_text(stage.lookups)}")
    return lines


def _kept_lines(ended: Ended) -> list[str]:
    """Return what the next run begins with."""
    lines = []
    for state in ended.time.states:
        size = shown_bytes(state.bytes)
        lines.append(f"  state of {state.name}: {counted(state.keys, 'key')}, about {size}")
    for stage_name, watermark in ended.time.watermarks.items():
        lines.append(f"  watermark of {stage_name}: {watermark or 'none yet'}")
    if ended.time.waiting:
        lines.append(
            f"  {ended.time.waiting:,} open windows and waiting records go on with the next run; "
            "--drain completes them"
        )
    if ended.pending:
        them = "it" if ended.pending == 1 else "them"
        lines.append(
            f"  {counted(ended.pending, 'record')} pending: the next run begins with {them}"
        )
    return lines


def _problem_lines(ended: Ended) -> list[str]:
    lines = []
    for sink, count in ended.unacknowledged.items():
        lines.append(f"  NOT FLUSHED: {count:,} records for {sink}; the next run sends them again")
    if ended.error:
        lines.append(f"error: {ended.error}")
    if ended.hint:
        lines.append(f"hint: {ended.hint}")
    if ended.crash is not None and ended.crash.is_loop:
        lines.append(
            f"crash loop: {ended.crash.runs} runs in a row have failed at this record; another "
            "start fails again until the cause is fixed"
        )
        lines.append("hint: --on-crash-loop dead-letter puts the record aside")
    return lines


def _look_lines(ended: Ended) -> list[str]:
    lines = []
    if ended.look:
        lines.append(f"look at the result: {ended.look}")
    for command in ended.letter_looks if ended.dead_lettered else ():
        lines.append(f"look at the dead letters: {command}")
    return lines


def _calls_text(waits: Waits) -> str:
    """Return what the end report says of the calls of a stage."""
    parts = []
    if waits.p50_ms is not None and waits.p99_ms is not None:
        parts.append(f"calls p50 {waits.p50_ms:,.1f} ms, p99 {waits.p99_ms:,.1f} ms")
    if waits.retries or parts:
        parts.append("1 retry" if waits.retries == 1 else f"{waits.retries:,} retries")
    if waits.parked:
        parts.append(f"{waits.parked:,} wait for a retry")
    if waits.is_paused:
        parts.append("the circuit is open")
    return ", ".join(parts)


def _lookups_text(lookups: Lookups) -> str:
    queries = "1 query" if lookups.queries == 1 else f"{lookups.queries:,} queries"
    text = f"{queries} for {counted(lookups.keys, 'key')}"
    without = lookups.without_row
    return text + (f", {counted(without, 'record')} without a row" if without else "")


def _bytes_text(done: int, known: int, elapsed_s: float) -> str:
    """Return how much of the known bytes is read, such as ``, 38% of 84 MiB (about 20 s)``."""
    share = done / known if known else 1.0
    text = f", {share:.0%} of {shown_bytes(known)}"
    if 0 < share < 1:
        text += f" (about {elapsed_s * (1 - share) / share:,.0f} s)"
    return text


def _waits_text(snapshot: Snapshot) -> str:
    """Return what the progress line says of pending records."""
    text = f", {snapshot.pending:,} pending" if snapshot.pending else ""
    if snapshot.dead_lettered:
        text += f", {counted(snapshot.dead_lettered, 'dead letter')}"
    paused = [name for name, waits in snapshot.waits.items() if waits.is_paused]
    return text + (f", paused: {', '.join(paused)}" if paused else "")


def _kept_text(time: TimeReport) -> str:
    """Return what the progress line says of states and watermarks."""
    text = ""
    if time.states:
        text += f", {counted(sum(each.keys for each in time.states), 'key')} kept"
    known = [each for each in time.watermarks.values() if each]
    if known:
        text += f", watermark {min(known)}"
    return text


class RateLimited:
    """Forwards the first note about a topic, then at most one every 5 seconds."""

    def __init__(self, note: Callable[[str], None], now_s: Callable[[], float]) -> None:
        self._note = note
        self._now_s = now_s
        self._last_s: dict[str, float] = {}

    def __call__(self, topic: str, text: str) -> None:
        now_s = self._now_s()
        if now_s - self._last_s.get(topic, float("-inf")) >= 5.0:
            self._last_s[topic] = now_s
            self._note(text)
