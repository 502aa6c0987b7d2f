"""The rules of sources about their states: closing, nothing to read, bad rows, a busy loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import anyio

from streamkit.dataflow.contracts import Decoder, Source
from streamkit.errors import StageError, StreamKitError
from streamkit.testing.conformance.loop_delay import require_free_loop
from streamkit.testing.conformance.reading import Reading, SourceCase, kept, opened, read_all
from streamkit.testing.conformance.rules import (
    BACK_PRESSURE,
    CLOSE,
    DECODE,
    EMPTY,
    LOOP,
    RuleBroken,
    check_failed_open,
    listed,
    without,
)

_SETTLE_S: Final = 0.3


async def check_close(case: SourceCase, unopenable: Callable[[], Source[Any]] | None) -> None:
    """Close readers in every state, each of them twice."""
    await _close_twice(Reading(case, CLOSE))
    await _close_twice(await opened(case, CLOSE, {}))
    reading = await opened(case, CLOSE, {})
    await reading.next()
    await _close_twice(reading)
    await _close_cancelled_open(case)
    await _close_waiting(case)
    if unopenable is None:
        return
    source = unopenable()
    reader = source.reader(case.env())
    await check_failed_open(CLOSE, source, reader, reader.open({}))


async def _close_twice(reading: Reading) -> None:
    await reading.close()
    await reading.close()


async def _close_cancelled_open(case: SourceCase) -> None:
    reading = Reading(case, CLOSE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reading.open, {})
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await _close_twice(reading)


async def _close_waiting(case: SourceCase) -> None:
    """Close a reader of a run without an end, while its next call waits for more rows."""
    reading = await opened(case, CLOSE, {}, case.env(until_end=False))

    async def read() -> None:
        try:
            while await reading.reader.next() is not None:
                pass
        except Exception:
            pass  # a closed reader may raise here; only a close that hangs breaks the rule

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(0.02)
        await _close_twice(reading)
        tasks.cancel_scope.cancel()
    await _close_twice(reading)


async def check_empty(case: SourceCase) -> None:
    """Read an empty place twice."""
    reading = await opened(case, EMPTY, {})
    try:
        rows = await reading.rest()
        lag = reading.reader.lag()
    finally:
        await reading.close()
    EMPTY.require(not rows, f"an empty place has rows: {rows}")
    EMPTY.require(lag in (0, None), f"lag() is {lag} at the end of an empty place")
    rows = await read_all(case, EMPTY, reading.positions)
    EMPTY.require(not rows, f"opened again, an empty place has rows: {rows}")


async def check_decode(case: SourceCase, expected: Sequence[Any], bad: int) -> None:
    """Decode each row alone; the bad ones fail, and the others are what is expected."""
    reading = await opened(case, DECODE, {})
    try:
        await reading.rest()
    finally:
        await reading.close()
    decoder = case.decoder(reading.source)
    if decoder is None:
        DECODE.require(False, "the source has no decoder, so no row can fail in it")
        return
    values: list[Any] = []
    places: list[str] = []
    for chunk in reading.chunks:
        for row in chunk.records():
            if not kept(decoder, [row.value]):
                continue
            try:
                values.append(decoder.one(row.value))
            except Exception:
                places.append(reading.source.place(row.topic, row.partition, row.offset))
    DECODE.require(len(places) == bad, f"{len(places)} row(s) failed, not {bad}")
    DECODE.require(len(set(places)) == bad, f"bad rows have the same place: {listed(places)}")
    missing, foreign = without(list(expected), values), without(values, list(expected))
    DECODE.require(
        not missing and not foreign,
        f"of the other rows, {listed(missing)} are missing and {listed(foreign)} too many",
    )
    _check_many(decoder, [kept(decoder, each.values) for each in reading.chunks])


def _check_many(decoder: Decoder, columns: list[list[Any]]) -> None:
    """Check that `many` never returns what `one` does not."""
    for column in columns if decoder.many is not None else ():
        assert decoder.many is not None
        try:
            found = list(decoder.many(column))
        except Exception:
            continue  # then the engine decodes row by row
        try:
            wanted = [decoder.one(each) for each in column]
        except Exception as error:
            DECODE.require(False, f"Decoder.many accepts a row that one() refuses: {error}")
            return
        DECODE.require(
            found == wanted, f"Decoder.many returned {listed(found)}, but one() {listed(wanted)}"
        )


def check_decode_in_job(case: SourceCase, expected: Sequence[Any], bad: int) -> None:
    """Read bad rows in a job: with ``skip`` it reads on, with ``fail`` the error has the place."""
    from streamkit.app import App  # it imports this package

    kind = case.make().value_type if case.kind is None else case.kind
    app = App("check")
    kept = app.stream(case.make(), kind or bytes, on_error="skip", value=case.serde)
    with app.test() as job:
        try:
            job.read(kept)
        except StreamKitError as error:
            raise RuleBroken(DECODE, f"a job with on_error='skip' failed: {error}") from error
        values = list(job.output(kept))
    DECODE.require(
        not without(list(expected), values) and len(values) == len(expected),
        f"a job with on_error='skip' must process {listed(list(expected))}, "
        f"but processed {listed(values)}",
    )
    failing = App("check")
    stream = failing.stream(case.make(), kind or bytes, value=case.serde)
    with failing.test() as job:
        try:
            job.read(stream)
        except StageError as error:
            place = case.make().place(error.topic, error.partition, error.offset or 0)
            DECODE.require(place in str(error), f"the error does not name {place!r}: {error}")
            return
    DECODE.require(not bad, "a job with on_error='fail' must fail at a row that is not valid")


async def check_back_pressure(case: SourceCase, taken: Callable[[], int], rows_max: int) -> None:
    """Open a reader, call next once, and wait: it must stop taking rows."""
    before = taken()
    reading = await opened(case, BACK_PRESSURE, {}, case.env(until_end=False))
    try:
        await reading.next()
        await anyio.sleep(_SETTLE_S)  # a reader without a limit would continue meanwhile
        count = taken() - before
    finally:
        await reading.close()
    BACK_PRESSURE.require(
        count <= rows_max, f"after one call of next(), {count:,} rows were taken, not {rows_max:,}"
    )


async def check_loop(case: SourceCase, blocked_ms_max: int) -> None:
    """Read everything while another task measures for how long it cannot run."""

    def prepare() -> Callable[[], Awaitable[object]]:
        return partial(read_all, case, LOOP, {})

    await require_free_loop(LOOP, prepare, blocked_ms_max)
