"""A report to a broken stream never raises."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import IO, Any

import pytest

from streamkit.observe.facts import Snapshot, Started
from streamkit.observe.report import JsonReporter, TextReporter
from streamkit.observe.streams import ReportStream, escaped

SNAPSHOT = Snapshot(1, 1, 1.0, 5, 1)
STARTED = Started("app", "here", "state", ["source"], ["sink"], 3)


class Bare:
    """An object that a program may use instead of a standard stream."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Raising(Bare):
    def write(self, text: str) -> None:
        raise RuntimeError("no")


def closed() -> IO[str]:
    stream = io.StringIO()
    stream.close()
    return stream


def detached() -> IO[str]:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.detach()
    return stream


def closed_pipe() -> IO[str]:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def full() -> IO[str]:
    return Path("/dev/full").open("w")


BROKEN: dict[str, Any] = {
    "missing": lambda: None,
    "closed": closed,
    "detached": detached,
    "closed pipe": closed_pipe,
    "full disk": full,
    "raising": Raising,
    "not a stream": object,
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("reporter", [TextReporter, JsonReporter])
def test_a_report_to_a_broken_stream_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, reporter: Any, make: Any
) -> None:
    stream = make()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("sys.stdout", stream)
    reports = reporter()
    for _ in range(3):
        reports.started(STARTED)
        reports.progress(SNAPSHOT, total=3)
        reports.phase("draining", "")
        reports.note("a note")
    monkeypatch.undo()
    if hasattr(stream, "close") and make is not detached:
        stream.close()  # this would fail if the stream had buffered text


def test_a_stream_needs_only_a_write_method() -> None:
    stream: Any = Bare()
    reports = TextReporter(stream)
    reports.note("one")
    reports.progress(SNAPSHOT, total=None)
    assert stream.text.startswith("one\n1 in, 1 out, ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-16"])
def test_characters_that_an_encoding_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "report"
    with path.open("w", encoding=encoding) as stream:
        reports = TextReporter(stream)
        reports.note("naïve → 飛 \ud800")
        reports.note("next")
    shown = path.read_text(encoding=encoding)
    assert "next\n" in shown
    assert "\\ud800" in shown


def test_a_text_that_does_not_fit_into_a_full_pipe_is_dropped() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as reader:
        reports = ReportStream(stream)
        reports.write("x" * 300_000)
        written = len(os.read(reader.fileno(), 1 << 20))
        reports.line("later")
        assert 0 < written < 300_000
        assert os.read(reader.fileno(), 1 << 20).endswith(b"later\n")


def test_earlier_buffered_text_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "report"
    with path.open("w") as stream:
        stream.write("before\n")
        ReportStream(stream).line("after")
    assert path.read_text() == "before\nafter\n"


def test_a_report_has_no_terminal_escapes() -> None:
    stream = io.StringIO()
    reports = TextReporter(stream, is_terminal=False)
    reports.note("\x1b[2Jred\x07\r\x9b31m\x7f\ttab\nline")
    assert stream.getvalue() == "\\x1b[2Jred\\x07\\r\\x9b31m\\x7f\\ttab\nline\n"


def test_only_newlines_are_not_escaped() -> None:
    shown = escaped("".join(map(chr, range(0x100))))
    assert [each for each in shown if not each.isprintable()] == ["\n", "\xa0", "\xad"]


def test_json_reports_are_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "report"
    with path.open("w", encoding="ascii") as stream:
        JsonReporter(stream).note("→ \x1b")
    assert json.loads(path.read_text())["text"] == "→ \x1b"
