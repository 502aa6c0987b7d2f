"""The parameters and the results of a benchmark. Times are in seconds, rates in records/s."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamkit.errors import StreamKitError


class WrongOutput(StreamKitError):
    """The output of a benchmark is wrong, so its time is meaningless."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a benchmark.

    Args:
        records: Number of records.
        rounds: How many times each side runs; the best run counts.
        folder: Folder for the data of the benchmark; by default a temporary folder.
    """

    records: int = 1_000_000
    rounds: int = 3
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """The time for a number of records. ``cpu_s`` is the CPU time of this side's process."""

    seconds: float
    records: int = 1
    cpu_s: float | None = None

    @property
    def per_record_s(self) -> float:
        return self.seconds / self.records

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds

    def as_dict(self) -> dict[str, float]:
        """Return the timing for JSON; a single event has no rate."""
        facts: dict[str, float] = {"seconds": self.seconds}
        if self.records > 1:
            facts |= {"records": self.records, "records_per_s": self.records_per_s}
            if self.cpu_s is not None:
                facts["cpu_s_per_million"] = self.cpu_s / self.records * 1e6
        return facts


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """The largest resident size of a process."""

    size_bytes: int

    def as_dict(self) -> dict[str, float]:
        """Return the size for JSON."""
        return {"bytes": self.size_bytes}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measurement of ours, with that of a baseline that does the same work.

    Args:
        what: Name of the measurement.
        ours: Our time or memory.
        baseline: That of the baseline; None if it could not be measured here.
        against: Name of the baseline.
        at_least: The ratio to reach; None if there is no goal.
    """

    what: str
    ours: Timing | PeakMemory
    baseline: Timing | PeakMemory | None
    against: str
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """Baseline divided by ours, times per record; larger is better."""
        if self.baseline is None:
            return None
        return _cost(self.baseline) / _cost(self.ours)

    @property
    def cpu_ratio(self) -> float | None:
        """The same ratio for the CPU time of the two processes that do the work."""
        if not isinstance(self.ours, Timing) or not isinstance(self.baseline, Timing):
            return None
        if not self.ours.cpu_s or self.baseline.cpu_s is None:
            return None
        return (self.baseline.cpu_s / self.baseline.records) / (self.ours.cpu_s / self.ours.records)

    @property
    def is_reached(self) -> bool | None:
        """Whether the ratio reaches the goal; None if there is no ratio or no goal."""
        if self.ratio is None or self.at_least is None:
            return None
        return self.ratio >= self.at_least


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a benchmark whose output was checked.

    Args:
        name: Name of the benchmark.
        work: Description of its work.
        comparisons: The measurements; the first one is the main one.
        notes: Lines to print after them.
        missing: Which baseline is missing and how to get it; empty if none is.
    """

    name: str
    work: str
    comparisons: list[Comparison]
    notes: list[str] = field(default_factory=list)
    missing: str = ""

    @property
    def ratio(self) -> float | None:
        return self.comparisons[0].ratio

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        baseline: dict[str, Any] = {
            each.what: {"against": each.against, **each.baseline.as_dict()}
            for each in self.comparisons
            if each.baseline is not None
        }
        if self.missing:
            baseline["missing"] = self.missing
        return {
            "name": self.name,
            "checked": True,
            "work": self.work,
            "ours": {each.what: each.ours.as_dict() for each in self.comparisons},
            "baseline": baseline,
            "ratio": self.ratio,
            "ratios": {each.what: each.ratio for each in self.comparisons},
            "cpu_ratios": {each.what: each.cpu_ratio for each in self.comparisons},
            "at_least": {each.what: each.at_least for each in self.comparisons},
            "notes": self.notes,
        }


def as_text(result: Result) -> str:
    """Format a result as a table with its notes."""
    lines = [f"{result.name}: {result.work} (output checked)"]
    rows = [("", "ours", "baseline", "ratio", "needed", "CPU", "against")]
    for each in result.comparisons:
        needed = "-" if each.at_least is None else f">= {each.at_least:.2f}x{_verdict(each)}"
        rows.append(
            (
                each.what,
                _shown(each.ours),
                _shown(each.baseline),
                _times(each.ratio),
                needed,
                _times(each.cpu_ratio),
                each.against,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(("  " + "  ".join(cells)).rstrip())
    lines += [f"  {note}" for note in result.notes]
    if result.missing:
        lines.append(f"  {result.missing}")
    return "\n".join(lines)


def _cost(measured: Timing | PeakMemory) -> float:
    return measured.per_record_s if isinstance(measured, Timing) else measured.size_bytes


def _shown(timing: Timing | PeakMemory | None) -> str:
    if timing is None:
        return "not measured"
    if isinstance(timing, PeakMemory):
        return f"{timing.size_bytes / 1e6:,.1f} MB"
    if timing.records == 1:
        return f"{timing.seconds * 1e3:,.2f} ms"
    text = f"{timing.records_per_s:,.0f}/s"
    if timing.cpu_s is not None:
        text += f" ({timing.cpu_s / timing.records * 1e6:.2f} CPU s/M)"
    return text


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _verdict(comparison: Comparison) -> str:
    return {None: "", True: " ok", False: " BELOW"}[comparison.is_reached]
