"""Checks that a connector keeps its contract, for the tests of people who write one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack

from streamkit.dataflow.contracts import Sink, Source
from streamkit.dataflow.lookup_tables import LookupTable
from streamkit.record import Kind
from streamkit.serde.binding import Serde
from streamkit.testing.conformance import lookup_rules, sink_rules, source_rules, source_states
from streamkit.testing.conformance.lookup_rules import LookupCase
from streamkit.testing.conformance.loop_delay import BLOCKED_MS_MAX
from streamkit.testing.conformance.reading import SourceCase, opened
from streamkit.testing.conformance.rules import READS
from streamkit.testing.conformance.writing import SinkCase
from streamkit.testing.loop import Loop

_AHEAD_ROWS_MAX = 10_000


class SourceOptions(TypedDict, total=False):
    """More about a source for `check_source`; with more of it, more is checked.

    Attributes:
        kind: The type of the values; by default that of the source, otherwise ``bytes``.
        value: The format of the values, as the option ``value=`` of a stream.
        poison: Makes a source with rows that cannot be decoded, and how many those are. Its other
            rows are the expected values.
        empty: Makes a source of an empty place.
        unopenable: Makes a source that cannot be opened, such as that of a missing file.
        taken: Returns how many rows the place has given to readers so far.
        ahead_rows_max: How many rows a reader may take from the place after one call of ``next``.
        blocked_ms_max: For how long a call may block the event loop.
        seed: Chooses the moments of cancelled calls, and other random numbers.
    """

    kind: Kind
    value: Serde | None
    poison: tuple[Callable[[], Source[Any]], int]
    empty: Callable[[], Source[Any]]
    unopenable: Callable[[], Source[Any]]
    taken: Callable[[], int]
    ahead_rows_max: int
    blocked_ms_max: int
    seed: int


class SinkOptions(TypedDict, total=False):
    """More about a sink for `check_sink`; with more of it, more is checked.

    Attributes:
        kind: The type of the values; by default that of the first value.
        value: The format of the values, as the option ``value=`` of ``stream.to``.
        clear: Empties the place. Without it, what is there before is left out; give it if a value
            that is written again replaces the first one.
        exactly_once: Whether a row that is written again after a crash must not be there twice.
        ordered: Whether ``read`` must return the values in the order in which they were written.
        poison: Values that can never be written.
        unopenable: Makes a sink that cannot be opened, such as that of a missing folder.
        blocked_ms_max: For how long a call may block the event loop.
        seed: Chooses the sizes of the parts that are written, and other random numbers.
    """

    kind: Kind
    value: Serde | None
    clear: Callable[[], None]
    exactly_once: bool
    ordered: bool
    poison: Sequence[Any]
    unopenable: Callable[[], Sink[Any]]
    blocked_ms_max: int
    seed: int


class LookupTableOptions(TypedDict, total=False):
    """More about a table for `check_lookup_table`; with more of it, more is checked.

    Attributes:
        kind: The type of the rows; by default that of the first expected one.
        absent: Keys without a row.
        refused: What cannot be a key of the table, such as one of another type.
        poison: Keys of rows that are not of the type.
        unopenable: Makes a table that cannot be opened, such as one that does not exist.
        blocked_ms_max: For how long a call may block the event loop.
        seed: Chooses the keys of calls, and other random numbers.
    """

    kind: Kind
    absent: Sequence[Any]
    refused: Sequence[Any]
    poison: Sequence[Any]
    unopenable: Callable[[], LookupTable]
    blocked_ms_max: int
    seed: int


def check_source(
    make: Callable[[], Source[Any]], expected: Sequence[Any], **options: Unpack[SourceOptions]
) -> None:
    """Check that a source keeps the contract of connectors.

    The place must not change meanwhile, and the source is read to its present end. It is read
    many times, so some hundred short rows are enough; more than one chunk is better.

    Args:
        make: Makes the source, always of the same place.
        expected: Its values. Those of one partition are in the order in which they are read.
        options: See `SourceOptions`.

    Raises:
        AssertionError: It breaks a rule: the text has the rule, what happened, and a hint.
    """
    random = Random(options.get("seed", 0))
    with TemporaryDirectory(prefix="streamkit-check-") as name:
        case = SourceCase(make, options.get("kind"), options.get("value"), Path(name))
        _run(_check_source(case, expected, random, options))
        poison = options.get("poison")
        if poison is not None:
            bad = SourceCase(poison[0], case.kind, case.serde, Path(name) / "poison")
            _run(source_states.check_decode(bad, expected, poison[1]))
            source_states.check_decode_in_job(bad, expected, poison[1])


async def _check_source(
    case: SourceCase, expected: Sequence[Any], random: Random, options: SourceOptions
) -> None:
    await source_rules.check_described(case)
    rows = await source_rules.check_reads(case, expected)
    await source_states.check_close(case, options.get("unopenable"))
    if await _is_replayable(case):
        await source_rules.check_resume(case, rows, random)
        await source_rules.check_crash(case, rows, random)
        await source_rules.check_cancel(case, rows, random)
        await source_rules.check_stop(case, rows)
    empty = options.get("empty")
    if empty is not None:
        await source_states.check_empty(
            SourceCase(empty, case.kind, case.serde, case.folder / "empty")
        )
    taken = options.get("taken")
    if taken is not None:
        rows_max = options.get("ahead_rows_max", _AHEAD_ROWS_MAX)
        await source_states.check_back_pressure(case, taken, rows_max)
    await source_states.check_loop(case, options.get("blocked_ms_max", BLOCKED_MS_MAX))


async def _is_replayable(case: SourceCase) -> bool:
    reading = await opened(case, READS, {})
    await reading.close()
    return reading.facts is not None and reading.facts.is_replayable


def check_sink(
    make: Callable[[], Sink[Any]],
    read: Callable[[], Sequence[Any]],
    values: Sequence[Any],
    **options: Unpack[SinkOptions],
) -> None:
    """Check that a sink keeps the contract of connectors.

    The values are written many times, in runs that crash after each step of a commit. A crash
    abandons the writer without closing it; it is closed only if the next one cannot be opened
    otherwise, because of a lock.

    Args:
        make: Makes the sink, always of the same place.
        read: Returns the values that others see in the place now.
        values: At least 4 values that differ from each other. A `Record` has its own key and
            timestamp; ``read`` returns its value.
        options: See `SinkOptions`.

    Raises:
        AssertionError: It breaks a rule: the text has the rule, what happened, and a hint.
    """
    assert len(values) >= 4, "check_sink needs at least 4 values"
    with TemporaryDirectory(prefix="streamkit-check-") as name:
        case = SinkCase(
            make,
            read,
            values,
            options.get("kind"),
            options.get("value"),
            options.get("clear"),
            options.get("exactly_once", False),
            Random(options.get("seed", 0)),
            Path(name),
        )
        _run(_check_sink(case, options))


async def _check_sink(case: SinkCase, options: SinkOptions) -> None:
    sink_rules.check_resource(case)
    await sink_rules.check_writes(case, ordered=options.get("ordered", False))
    await sink_rules.check_empty_commits(case)
    await sink_rules.check_close(case, options.get("unopenable"))
    await sink_rules.check_poison(case, options.get("poison", ()))
    await sink_rules.check_crashes(case)
    await sink_rules.check_overlap(case)
    await sink_rules.check_loop(case, options.get("blocked_ms_max", BLOCKED_MS_MAX))


def check_lookup_table(
    make: Callable[[], LookupTable],
    expected: Mapping[Any, Any],
    **options: Unpack[LookupTableOptions],
) -> None:
    """Check that a table for lookups keeps the contract of connectors.

    Args:
        make: Makes the table, always of the same place, which must not change meanwhile.
        expected: Some of its rows, as `RowFinder.decoded` returns them, by their keys; at least 2.
        options: See `LookupTableOptions`.

    Raises:
        AssertionError: It breaks a rule: the text has the rule, what happened, and a hint.
    """
    assert len(expected) >= 2, "check_lookup_table needs at least 2 rows"
    with TemporaryDirectory(prefix="streamkit-check-") as name:
        case = LookupCase(
            make,
            options.get("kind", type(next(iter(expected.values())))),
            expected,
            options.get("absent", ()),
            Random(options.get("seed", 0)),
            Path(name),
        )
        _run(_check_lookup_table(case, options))


async def _check_lookup_table(case: LookupCase, options: LookupTableOptions) -> None:
    await lookup_rules.check_described(case)
    await lookup_rules.check_finds(case)
    await lookup_rules.check_refused(case, options.get("refused", ()))
    await lookup_rules.check_decode(case, options.get("poison", ()))
    await lookup_rules.check_cancel(case)
    await lookup_rules.check_close(case, options.get("unopenable"))
    await lookup_rules.check_loop(case, options.get("blocked_ms_max", BLOCKED_MS_MAX))


def _run(work: Coroutine[Any, Any, None]) -> None:
    loop = Loop()
    try:
        loop.run(work)
    except BaseExceptionGroup as group:  # of the task group in which a rule was checked
        raise _first(group) from group
    finally:
        loop.close()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
