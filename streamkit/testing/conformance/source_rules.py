"""The rules of sources about rows and positions: what is read, and where the next run resumes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import anyio

from streamkit.record import Chunk
from streamkit.testing.conformance.reading import (
    Part,
    Reading,
    Rows,
    SourceCase,
    after,
    counts_of,
    difference,
    kept,
    opened,
    read_all,
    rows_of,
)
from streamkit.testing.conformance.rules import (
    CANCEL,
    CRASH,
    DESCRIBED,
    READS,
    RESUME,
    STOP,
    Rule,
    listed,
    without,
)

_RESUMES_MAX: Final = 100
_LIVES_MAX: Final = 40
_CANCEL_TURNS_MAX: Final = 10
_CANCEL_PAUSES: Final = 4
_CANCEL_S_MAX: Final = 0.004


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The positions after some rows of each partition."""

    positions: dict[str, str]
    done: dict[Part, int]

    @property
    def rows(self) -> int:
        """How many rows are committed in all partitions."""
        return sum(self.done.values())


async def check_described(case: SourceCase) -> None:
    """Check the facts of the source itself."""
    name = case.make().name
    DESCRIBED.require(
        type(name) is str and re.fullmatch(r"[a-z0-9-]+", name), f"the name is {name!r}"
    )
    DESCRIBED.require(
        hash(case.make()) is not None and case.make().name == name, "two equal sources differ"
    )


async def check_reads(case: SourceCase, expected: Sequence[Any]) -> Rows:
    """Read everything, and compare the values; return the rows."""
    reading = await opened(case, READS, {})
    try:
        rows = await reading.rest()
    finally:
        await reading.close()
    decoder = case.decoder(reading.source)
    values: dict[Part, list[Any]] = {}
    for part, raw in rows.items():
        with READS.during("decoding the rows"):
            rows_kept = kept(decoder, raw)
            values[part] = [each if decoder is None else decoder.one(each) for each in rows_kept]
    found = [each for part in values.values() for each in part]
    missing, foreign = without(list(expected), found), without(found, list(expected))
    READS.require(not missing, f"{len(missing)} of {len(expected)} are missing: {listed(missing)}")
    READS.require(not foreign, f"{len(foreign)} too many: {listed(foreign)}")
    for (topic, partition), decoded in values.items():
        READS.require(
            _is_part_of(decoded, expected),
            f"partition {partition} of {topic!r} has {listed(decoded)}, in another order",
        )
    return rows


def _is_part_of(values: Sequence[Any], longer: Sequence[Any]) -> bool:
    """Return whether values appear in this order in a longer list; others may be between them."""
    left = iter(longer)
    return all(any(each == other for other in left) for each in values)


async def check_resume(case: SourceCase, rows: Rows, random: Random) -> None:
    """Resume after every row, and after random parts of chunks."""
    whole = await _snapshots(case, random, rows_max=1)
    parts = await _snapshots(case, random, rows_max=5)
    await _check_all(case, RESUME, rows, _sample(whole, random))
    await _check_all(case, RESUME, rows, _sample(parts, random))
    await _check_lives(case, rows)


async def check_crash(case: SourceCase, rows: Rows, random: Random) -> None:
    """Read further than the commit, abandon the reader, and open another one."""
    snapshots = await _snapshots(case, random, rows_max=3)
    for snapshot in random.sample(snapshots, min(len(snapshots), 10)):
        env = case.env()
        abandoned = await opened(case, CRASH, snapshot.positions, env)
        try:
            for _ in range(random.randint(0, 3)):
                chunk = await abandoned.next()
                if chunk is None:
                    break
                abandoned.commit(chunk)  # which the crash loses
            found = await _rows_after_crash(case, abandoned, snapshot)
        finally:
            await abandoned.close()
        _require_rest(CRASH, rows, snapshot, found)


async def _rows_after_crash(case: SourceCase, abandoned: Reading, snapshot: Snapshot) -> Rows:
    try:
        reading = await opened(case, CRASH, snapshot.positions, abandoned.env)
    except AssertionError:  # the abandoned reader may have locked the place
        await abandoned.close()
        reading = await opened(case, CRASH, snapshot.positions, abandoned.env)
    try:
        return await reading.rest()
    finally:
        await reading.close()


async def check_cancel(case: SourceCase, rows: Rows, random: Random) -> None:
    """Cancel calls of next at every moment; what the calls return must be complete."""
    for turns in (*range(_CANCEL_TURNS_MAX), *[None] * _CANCEL_PAUSES):
        reading = await opened(case, CANCEL, {})
        snapshots = [Snapshot(reading.positions, {})]
        try:
            while True:
                was_cancelled, chunk = await _cancelled_next(reading, random, turns)
                if was_cancelled:
                    chunk = await reading.next()
                if chunk is None:
                    break
                positions = reading.commit(chunk)
                snapshots.append(Snapshot(positions, counts_of(rows_of(reading.chunks))))
        finally:
            await reading.close()
        problem = difference(rows, rows_of(reading.chunks))
        CANCEL.require(problem is None, f"after cancelled calls of next(), {problem}")
        await _check_all(case, CANCEL, rows, random.sample(snapshots, min(len(snapshots), 3)))


async def _cancelled_next(
    reading: Reading, random: Random, turns: int | None
) -> tuple[bool, Chunk | None]:
    """Call next, and cancel it after some turns of the loop, or after a random time.

    Returns:
        Whether the call returned nothing, and its chunk.
    """
    results: list[Chunk | None] = []

    async def call() -> None:
        with CANCEL.during("next()"):
            results.append(await reading.reader.next())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        if turns is None:  # a thread of the reader may be at work
            await anyio.sleep(random.random() * _CANCEL_S_MAX)
        else:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    if not results:
        return True, None
    return False, reading.received(results[0])


async def check_stop(case: SourceCase, rows: Rows) -> None:
    """Stop after the first chunk; together with the next run, nothing is lost or doubled."""
    reading = await opened(case, STOP, {})
    try:
        chunk = await reading.next()
        if chunk is not None:
            reading.commit(chunk)
        with STOP.during("stop()"):
            must_finish = reading.reader.stop()
        STOP.require(type(must_finish) is bool, f"stop() returned {must_finish!r}, not a bool")
        while must_finish and (chunk := await reading.next()) is not None:
            reading.commit(chunk)
    finally:
        await reading.close()
    snapshot = Snapshot(reading.positions, counts_of(rows_of(reading.chunks)))
    await _check_all(case, STOP, rows, [snapshot])


async def _snapshots(case: SourceCase, random: Random, rows_max: int) -> list[Snapshot]:
    """Read everything; return the positions after each part of up to ``rows_max`` rows."""
    reading = await opened(case, RESUME, {})
    done: dict[Part, int] = {}
    found = [Snapshot(reading.positions, {})]
    try:
        while (chunk := await reading.next()) is not None:
            row, part = 0, (chunk.topic, chunk.partition)
            while row < len(chunk):
                end = min(row + random.randint(1, rows_max), len(chunk))
                positions = reading.commit(chunk.slice(row, end))
                done[part] = done.get(part, 0) + end - row
                found.append(Snapshot(positions, dict(done)))
                row = end
        found.append(Snapshot(reading.skip(), dict(done)))  # what follows the last row, if it skips
        with RESUME.during("committed()"):
            await reading.reader.committed(reading.positions)
    finally:
        await reading.close()
    return found


def _sample(snapshots: list[Snapshot], random: Random) -> list[Snapshot]:
    """Return all snapshots, or the first, the last and random ones of many."""
    if len(snapshots) <= _RESUMES_MAX:
        return snapshots
    middle = random.sample(snapshots[1:-1], _RESUMES_MAX - 2)
    return [snapshots[0], *sorted(middle, key=lambda each: each.rows), snapshots[-1]]


async def _check_all(
    case: SourceCase, rule: Rule, rows: Rows, snapshots: Sequence[Snapshot]
) -> None:
    for snapshot in snapshots:
        found = await read_all(case, rule, snapshot.positions)
        _require_rest(rule, rows, snapshot, found)


def _require_rest(rule: Rule, rows: Rows, snapshot: Snapshot, found: Rows) -> None:
    problem = difference(after(rows, snapshot.done), found)
    if problem is not None:
        rule.require(
            False,
            f"with the positions after {snapshot.rows} row(s), {_texts(snapshot.positions)}, "
            f"{problem}",
        )


def _texts(positions: Mapping[str, str]) -> str:
    return listed([f"{key}={text}" for key, text in positions.items()])


async def _check_lives(case: SourceCase, rows: Rows) -> None:
    """Read a few rows in each of many runs; together they must have read everything once."""
    total = sum(counts_of(rows).values())
    step = max(1, total // _LIVES_MAX)
    positions: dict[str, str] = {}
    found: Rows = {}
    for _ in range(2 * total + 2):
        reading = await opened(case, RESUME, positions)
        try:
            chunk = await reading.next()
            if chunk is None:
                break
            chunk = chunk.slice(0, step)
            positions = reading.commit(chunk)
        finally:
            await reading.close()
        found.setdefault((chunk.topic, chunk.partition), []).extend(chunk.values)
    problem = difference(rows, found)
    RESUME.require(problem is None, f"in many runs of {step} row(s) each, {problem}")
