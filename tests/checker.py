"""Compares the outcomes reported to producers with the records in the topics.

    python -m tests.checker LEDGER LOG [--may-repeat]

Both files have one JSON list per line. The test writes the ledger while it runs:

    ["sent", topic, partition, sequence, crc]     before the record is sent
    ["ok", topic, partition, sequence, offset]    it was acknowledged with this offset
    ["failed", topic, partition, sequence]        it was certainly not stored

A record that is sent and neither ok nor failed is unknown. The log has lines of ``[topic,
partition, offset, value]`` with the value in hexadecimal digits. It may be read during the test or
afterwards, and any number of times. A lane is one partition of one topic.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Lane = tuple[str, int]
Row = tuple[str, int, int, bytes]
_HEAD = struct.Struct(">qI")


def value_of(sequence: int, payload: bytes) -> bytes:
    """Return a record value with its sequence number and a checksum."""
    return _HEAD.pack(sequence, zlib.crc32(payload)) + payload


@dataclass(slots=True)
class LaneLedger:
    """The records of one lane: sent, acknowledged and failed."""

    sent: dict[int, int] = field(default_factory=dict)
    ok: dict[int, int] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)


class Ledger:
    """The records that were sent, and their outcomes as reported to the sender."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, LaneLedger] = {}

    def send(self, lane: Lane, sequence: int, payload: bytes) -> bytes:
        """Add a record to the ledger before it is sent; return its value."""
        self._lane(lane).sent[sequence] = zlib.crc32(payload)
        return value_of(sequence, payload)

    def ok(self, lane: Lane, sequence: int, offset: int) -> None:
        self._lane(lane).ok[sequence] = offset

    def failed(self, lane: Lane, sequence: int) -> None:
        self._lane(lane).failed.add(sequence)

    def read(self, lines: Iterable[str]) -> Ledger:
        """Add the lines of a ledger file."""
        for line in lines:
            word, topic, partition, sequence, *more = json.loads(line)
            lane = self._lane((topic, partition))
            match word:
                case "sent":
                    lane.sent[sequence] = more[0]
                case "ok":
                    lane.ok[sequence] = more[0]
                case "failed":
                    lane.failed.add(sequence)
        return self

    def _lane(self, lane: Lane) -> LaneLedger:
        return self.lanes.setdefault(lane, LaneLedger())


@dataclass(slots=True)
class Verdict:
    """The problems found, and the counts that the result is based on."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        return "\n".join([f"{len(self.problems)} problems ({counts})", *self.problems[:20]])


def check(ledger: Ledger, rows: Iterable[Row], *, may_repeat: bool) -> Verdict:
    """Compare a ledger with the log.

    Args:
        ledger: The records that were sent.
        rows: The rows that were read, in any order and possibly several times.
        may_repeat: Whether the log may have a record more than once.
    """
    verdict = Verdict()
    logs: dict[Lane, dict[int, bytes]] = {}
    for topic, partition, offset, value in rows:
        known_value = logs.setdefault((topic, partition), {}).setdefault(offset, value)
        verdict.counts["rows read"] += 1
        if known_value != value:
            verdict.problems.append(f"{topic}-{partition}: offset {offset} had two contents")
    for lane in sorted({*ledger.lanes, *logs}):
        name = f"{lane[0]}-{lane[1]}"
        known = ledger.lanes.get(lane, LaneLedger())
        problems = _check_lane(known, logs.get(lane, {}), may_repeat, verdict.counts)
        verdict.problems += [f"{name}: {problem}" for problem in problems]
    return verdict


def _check_lane(
    known: LaneLedger, log: dict[int, bytes], may_repeat: bool, counts: Counter[str]
) -> Iterator[str]:
    if sorted(log) != list(range(len(log))):
        yield f"offsets are not dense: {len(log)} of them, the last is {max(log)}"
    places: dict[int, list[int]] = {}
    for offset in sorted(log):
        sequence, problem = _sequence(known, log[offset])
        if problem:
            yield f"offset {offset}: {problem}"
        places.setdefault(sequence, []).append(offset)
    unknown = set(known.sent) - set(known.ok) - known.failed
    counts["acknowledged"] += len(known.ok)
    counts["refused"] += len(known.failed)
    counts["unknown"] += len(unknown)
    counts["unknown but stored"] += len(unknown & set(places))
    counts["stored again"] += sum(len(found) - 1 for found in places.values())
    for sequence, offset in known.ok.items():
        if offset not in places.get(sequence, ()):
            yield f"{sequence} was acknowledged at {offset}, it is at {places.get(sequence)}"
    yield from (f"{each} was refused, and is there" for each in known.failed & set(places))
    if not may_repeat:
        yield from (f"{n} is there at {found}" for n, found in places.items() if len(found) > 1)
    firsts = [sequence for sequence, _ in sorted(places.items(), key=lambda item: item[1][0])]
    if firsts != sorted(firsts):
        at = next(i for i in range(1, len(firsts)) if firsts[i] < firsts[i - 1])
        yield f"{firsts[at]} came behind {firsts[at - 1]}"


def _sequence(known: LaneLedger, value: bytes) -> tuple[int, str]:
    if len(value) < _HEAD.size:
        return -1, "a value that nobody sent"
    sequence, crc = _HEAD.unpack_from(value)
    if zlib.crc32(value[_HEAD.size :]) != crc:
        return sequence, "the value is damaged"
    if known.sent.get(sequence) != crc:
        return sequence, "a value that nobody sent"
    return sequence, ""


def read_rows(lines: Iterable[str]) -> Iterator[Row]:
    """Read the rows of a log file."""
    for line in lines:
        topic, partition, offset, value = json.loads(line)
        yield topic, partition, offset, bytes.fromhex(value)


def main() -> None:
    ledger_path, log_path, *options = sys.argv[1:]
    with Path(ledger_path).open() as ledger, Path(log_path).open() as log:
        found = check(Ledger().read(ledger), read_rows(log), may_repeat=options == ["--may-repeat"])
    sys.stdout.write(f"{found}\n")
    sys.exit(bool(found.problems))


if __name__ == "__main__":
    main()
