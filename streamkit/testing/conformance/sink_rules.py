"""The rules of sinks: what is visible after commits and after crashes, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import anyio

from streamkit.dataflow.contracts import AcknowledgedWriter, Sink
from streamkit.dataflow.steps import RowFailed
from streamkit.record import Record
from streamkit.testing.conformance.loop_delay import require_free_loop
from streamkit.testing.conformance.rules import (
    DOUBLED,
    LOST,
    OVERLAP,
    POISON,
    RESOURCE,
    SINK_CLOSE,
    SINK_EMPTY,
    SINK_LOOP,
    WRITES,
    check_failed_open,
    listed,
    without,
)
from streamkit.testing.conformance.writing import Place, SinkCase, Writing

# Where a run crashes: after this step.
STEPS: Final = ("open", "write", "prepare", "wait", "store", "publish", "write again")


def check_resource(case: SinkCase) -> None:
    """Compare the resource of two equal sinks."""
    first, second = case.make().resource(), case.make().resource()
    RESOURCE.require(first == second, f"it is {first!r} and {second!r} for equal sinks")
    RESOURCE.require(first is None or type(first) is str, f"it is {first!r}")


async def check_writes(case: SinkCase, *, ordered: bool) -> None:
    """Write everything in one run with several commits."""
    place = case.place()
    writing = await place.open(WRITES)
    third = max(1, len(case.values) // 3)
    for start in range(0, len(case.values), third):
        await writing.write(case.values[start : start + third])
        await writing.commit()
        await writing.commit()  # nothing was written since
    await writing.commit(is_last=True)
    await writing.close()
    found, wanted = place.values(), _plain(case.values)
    missing, foreign = without(wanted, found), without(found, wanted)
    WRITES.require(not missing, f"{len(missing)} of {len(wanted)} are missing: {listed(missing)}")
    WRITES.require(not foreign, f"{len(foreign)} too many: {listed(foreign)}")
    WRITES.require(
        found == wanted or not ordered, f"the order is {listed(found)}, not {listed(wanted)}"
    )


async def check_crashes(case: SinkCase) -> None:
    """Crash after each step of a commit, then again in the next run, and write again."""
    for first in STEPS:
        for second in (None, "open", case.random.choice(STEPS)):
            await _crash(case, [first] if second is None else [first, second])


async def _crash(case: SinkCase, steps: list[str]) -> None:
    place = case.place()
    values, committed = case.values, 0
    for step in steps:
        writing = await place.open(LOST)
        committed += await _run_until(writing, step, values[committed:])
        writing.abandon()
    writing = await place.open(LOST)
    await writing.write(values[committed:])
    await writing.commit(is_last=True)
    await writing.close()
    when = ", and again after ".join(f"{each!r}" for each in steps)
    _require_all(case, place, f"after a crash after {when}")
    await place.close_abandoned()
    _require_all(case, place, f"once the writer that crashed after {when} was closed")


def _require_all(case: SinkCase, place: Place, when: str) -> None:
    found, wanted = place.values(), _plain(case.values)
    missing = without(wanted, found)
    LOST.require(not missing, f"{when}, {len(missing)} row(s) are missing: {listed(missing)}")
    more = without(found, wanted)
    foreign = [each for each in more if each not in wanted]
    LOST.require(not foreign, f"{when}, rows are there that were never written: {listed(foreign)}")
    if case.exactly_once:
        DOUBLED.require(not more, f"{when}, {len(more)} row(s) are there twice: {listed(more)}")


async def _run_until(writing: Writing, step: str, values: Sequence[Any]) -> int:
    """Run up to a step; return how many of the values are committed."""
    half = (len(values) + 1) // 2
    if step == "open":
        return 0
    await writing.write(values[:half])
    if step == "write":
        return 0
    prepared = writing.prepare()
    if step == "prepare":
        return 0
    await writing.wait(prepared)
    if step == "wait":
        return 0
    writing.store(prepared)
    if step == "store":
        return half
    await writing.publish(prepared)
    if step == "write again":
        await writing.write(values[half : half + max(1, half // 2)])
    return half


async def check_overlap(case: SinkCase) -> None:
    """Write while a commit waits; crash after that commit, and write the later rows again."""
    place = case.place()
    half = (len(case.values) + 1) // 2
    writing = await place.open(OVERLAP)
    await writing.write(case.values[:half])
    prepared = writing.prepare()

    async def wait() -> None:
        await writing.wait(prepared, is_quiet=False)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        await writing.write(case.values[half:])
    writing.store(prepared)
    await writing.publish(prepared)
    writing.abandon()
    later = await place.open(OVERLAP)
    await later.write(case.values[half:])
    await later.commit(is_last=True)
    await later.close()
    await place.close_abandoned()
    found, wanted = place.values(), _plain(case.values)
    missing, more = without(wanted, found), without(found, wanted)
    OVERLAP.require(not missing, f"{len(missing)} row(s) are missing: {listed(missing)}")
    if case.exactly_once:
        OVERLAP.require(not more, f"{len(more)} row(s) are there twice: {listed(more)}")


async def check_empty_commits(case: SinkCase) -> None:
    """Commit without rows, in a first run and in a second one."""
    place = case.place()
    for _ in range(2):
        writing = await place.open(SINK_EMPTY)
        await writing.commit()
        await writing.commit()
        await writing.commit(is_last=True)
        await writing.close()
    SINK_EMPTY.require(not place.values(), f"without rows, it has {listed(place.values())}")


async def check_close(case: SinkCase, unopenable: Callable[[], Sink[Any]] | None) -> None:
    """Close writers in every state, each of them twice."""
    place = case.place()
    await _close_twice(Writing(place, SINK_CLOSE))
    await _close_twice(await place.open(SINK_CLOSE))
    writing = await place.open(SINK_CLOSE)
    await writing.write(case.values[:1])
    await _close_twice(writing)
    if unopenable is None:
        return
    sink = unopenable()
    writer = sink.writer(place.env)
    await check_failed_open(SINK_CLOSE, sink, writer, writer.open({}))


async def _close_twice(writing: Writing) -> None:
    await writing.close()
    await writing.close()


async def check_poison(case: SinkCase, poison: Sequence[Any]) -> None:
    """Give the writer each bad value between two good ones; it must refuse that row only."""
    good = case.values[0]
    for bad in poison:
        place = case.place()
        writing = await place.open(POISON)
        try:
            _refused(writing, good, bad)
            POISON.require(not place.values(), f"rows before {bad!r} were written by on_chunk()")
            await writing.commit(is_last=True)
        finally:
            await writing.close()
        POISON.require(not place.values(), f"{bad!r} was refused, but rows were written")


def _refused(writing: Writing, good: Any, bad: Any) -> None:
    try:
        chunk = writing.chunk([good, bad, good])
    except Exception:
        return  # the encoder has refused it, so the writer never gets it
    encoder = writing.encoder
    if encoder is not None and encoder.fault is not None:
        plain = _plain([good, bad, good])
        if encoder.fault(plain, chunk.values) is not None:
            return
    writer = writing.writer
    if not isinstance(writer, AcknowledgedWriter):
        POISON.require(False, f"an at-once sink cannot refuse {bad!r} before it writes")
        return
    try:
        writer.on_chunk(chunk)
    except RowFailed as failed:
        POISON.require(
            failed.row == 1 and len(failed.before) == 1,
            f"on_chunk() named row {failed.row} with {len(failed.before)} row(s) before it, "
            "instead of row 1",
        )
        return
    except Exception as error:
        POISON.require(False, f"on_chunk() raised {error!r}, which is not RowFailed")
    POISON.require(False, f"on_chunk() did not refuse {bad!r}")


async def check_loop(case: SinkCase, blocked_ms_max: int) -> None:
    """Write and commit while another task measures for how long it cannot run."""

    def prepare() -> Callable[[], Awaitable[None]]:
        return partial(write, case.place())

    async def write(place: Place) -> None:
        writing = await place.open(SINK_LOOP)
        await writing.write(case.values)
        await writing.commit(is_last=True)
        await writing.close()

    await require_free_loop(SINK_LOOP, prepare, blocked_ms_max)


def _plain(values: Sequence[Any]) -> list[Any]:
    return [each.value if isinstance(each, Record) else each for each in values]
