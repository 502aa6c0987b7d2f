"""The work of `streamkit produce`: reads blocks, sends them, and counts every line."""

from __future__ import annotations

import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from streamkit.cli.inputs import Input, Stop, open_file, standard_input
from streamkit.cli.lines import (
    LineCutter,
    ParsedRows,
    Parser,
    enveloped,
    keyed_by_field,
    parse_lines,
    plain,
    separated,
)
from streamkit.cli.output import OutputFailed, check_output
from streamkit.cli.progress import ProgressLine, rate, seconds
from streamkit.cli.session import Session, note, run_with_client
from streamkit.cli.signals import cancelled_by_signals
from streamkit.client import Producer, RecordsHandle, RecordsMetadata, SmartModule
from streamkit.errors import BrokerError, DataError, StreamKitError, TopicNotFound
from streamkit.observe.streams import discard, standard_error
from streamkit.protocol.error_codes import Code
from streamkit.units import counted

_DELIVERY_TIMEOUT_S = 30.0
# How long to wait for batches in flight after an error that stops the command.
_LAST_RECORDS_S_MAX = 5.0
# Errors of the broker that concern single records: too large, or a SmartModule fails on one.
_RECORD_CODES = frozenset({Code.MESSAGE_TOO_LARGE, Code.SMARTMODULE_RUNTIME_ERROR})
_REJECTED_REPORTED_MAX = 100
_RECORD_OVERHEAD_BYTES_MAX = 128  # more than the headers of a record and its batch need

Reader = Callable[[list[bytes], int], ParsedRows]


@dataclass(frozen=True, slots=True)
class ProduceOptions:
    """The options of the command."""

    topic: str
    files: tuple[Path, ...]
    raw: bool
    key: str | None
    key_separator: str | None
    key_field: str | None
    form: str
    partition: int | None
    compression: Any
    linger: float
    batch_size: int
    max_request_size: int
    isolation: Any
    delivery: Any
    smartmodules: tuple[SmartModule, ...]
    verbose: bool
    print_metadata: bool
    create_topics: bool


@dataclass(slots=True)
class Counts:
    """Counts of the records so far, and the batches in flight."""

    stored: int = 0
    rejected: int = 0
    reported: int = 0
    in_flight: deque[tuple[RecordsHandle, ParsedRows, str]] = field(default_factory=deque)


def run(options: ProduceOptions) -> int:
    """Produce all inputs; return the exit code."""
    if options.verbose or options.print_metadata:
        check_output()
    inputs = _inputs(options)
    try:
        return run_with_client(lambda session: _produce(session, options, inputs))
    finally:
        for each in inputs:
            each.close()


def _inputs(options: ProduceOptions) -> list[Input]:
    # Open all files first, so that a wrong file name is an error before anything is sent.
    files = [open_file(path, decompress=not options.raw) for path in options.files]
    return files or [standard_input()]


async def _produce(session: Session, options: ProduceOptions, inputs: list[Input]) -> int:
    await _ensure_topic(session, options)
    stop = Stop()
    producer = session.client.producer(
        options.topic,
        batch_size=options.batch_size,
        max_request_size=options.max_request_size,
        linger=options.linger,
        compression=options.compression,
        isolation=options.isolation,
        delivery=options.delivery,
        smartmodules=options.smartmodules,
        partition=options.partition,
        delivery_timeout=_DELIVERY_TIMEOUT_S,
        on_retry=_every_tenth(lambda error: note(f"retrying: {error}")),
        on_batch=lambda report: _stop_on_permanent_error(report.error, options.delivery, stop),
    )
    async with producer:
        command = _Command(options, producer, inputs, stop)
        with cancelled_by_signals(stop.request):
            await command.read_all()
            await command.finish()
        code = command.report_end()
        if stop.failure is not None:
            raise stop.failure
    return code


def _stop_on_permanent_error(error: Exception | None, delivery: str, stop: Stop) -> None:
    """Stop reading if a batch failed for a reason that concerns every batch.

    With at-most-once, a transient error loses only its own batch, and reading continues.
    """
    if not isinstance(error, StreamKitError) or _concerns_records(error):
        return
    if delivery == "at-least-once" or not error.retryable:
        stop.fail(error)


def _concerns_records(error: StreamKitError) -> bool:
    if isinstance(error, BrokerError):
        return error.code in _RECORD_CODES
    return isinstance(error, DataError)


async def _ensure_topic(session: Session, options: ProduceOptions) -> None:
    name = options.topic
    try:
        await session.client.admin.describe_topic(name)
    except TopicNotFound as error:
        if not session.is_embedded and not options.create_topics:
            hint = f"create it with `streamkit topic create {name}` or --create-topics"
            if error.hint.startswith("did you mean"):
                hint = f"{error.hint} Otherwise {hint}"
            raise TopicNotFound(name, hint=hint) from None
        await session.client.admin.create_topic(name)
        note(f"created topic {name!r}")


class _Command:
    """One running `produce`."""

    def __init__(
        self, options: ProduceOptions, producer: Producer, inputs: list[Input], stop: Stop
    ) -> None:
        self._options = options
        self._producer = producer
        self._inputs = inputs
        self._stop = stop
        self._counts = Counts()
        self._read_bytes = 0
        sizes = [each.size_bytes for each in inputs]
        self._total_bytes = None if None in sizes else sum(filter(None, sizes))
        self._is_interactive = inputs[0].is_terminal and not options.raw
        self._progress = ProgressLine(
            "records produced", is_live=False if self._is_interactive else None
        )
        self._read_lines = _reader(options)

    async def read_all(self) -> None:
        """Read and send every input, until the end, a stop or an error."""
        try:
            for each in self._inputs:
                if self._stop.is_requested:
                    break
                if self._options.raw:
                    await self._read_whole(each)
                else:
                    await self._read_lines_of(each)
                self._read_bytes += each.size_bytes or 0
        except StreamKitError as error:
            self._stop.fail(error)  # the lines read before it are still stored and counted

    async def finish(self) -> None:
        """Wait until the outcome of every record is known, and count it."""
        with anyio.move_on_after(None if self._stop.failure is None else _LAST_RECORDS_S_MAX):
            await self._count_all()
        if self._counts.in_flight:
            self._producer.stop()  # fails the batches that are not stored yet
            await self._count_all()
        try:
            await self._producer.flush()
        except StreamKitError:
            pass  # the rejected lines are already reported
        self._progress.clear()

    async def _count_all(self) -> None:
        while self._counts.in_flight:
            await self._count_first()

    def report_end(self) -> int:
        counts, elapsed_s = self._counts, self._progress.elapsed_s
        unreported = counts.rejected - counts.reported
        if unreported > 0:
            note(f"... and {counted(unreported, 'more line')} rejected")
        text = f"{counted(counts.stored, 'record')} produced to {self._options.topic}"
        text += f" in {seconds(elapsed_s)} ({rate(counts.stored, elapsed_s)})"
        if self._options.smartmodules and counts.stored:
            text += "; SmartModules may have dropped or added some"
        if counts.rejected:
            text += f"; {counted(counts.rejected, 'line')} rejected"
        note(f"stopped: {text}" if self._stop.signal else text)
        if counts.rejected:
            return 1
        is_interrupted = self._stop.signal and not self._is_interactive
        return 128 + self._stop.signal if is_interrupted else 0

    # --- reading ---------------------------------------------------------------------

    async def _read_whole(self, source: Input) -> None:
        parts = []
        while block := await source.read(self._stop):
            parts.append(block)
        if not self._stop.is_requested:  # do not send a part of an input as a record
            key = None if self._options.key is None else self._options.key.encode()
            await self._send(plain([b"".join(parts)], 1, key), source.name)

    async def _read_lines_of(self, source: Input) -> None:
        cutter = LineCutter(self._options.max_request_size)
        first = 1
        self._prompt()
        while block := await source.read(self._stop):
            first += await self._send_lines(cutter.cut(block), first, source)
            self._prompt()
        await self._send_lines(cutter.end(), first, source)

    async def _send_lines(self, lines: list[bytes], first: int, source: Input) -> int:
        if lines:
            await self._send(self._read_lines(lines, first), source.name)
            self._progress.update(
                self._counts.stored, self._read_bytes + source.position_bytes(), self._total_bytes
            )
        return len(lines)

    def _prompt(self) -> None:
        if self._is_interactive and not self._stop.is_requested:
            standard_error().write("> ")

    # --- sending ---------------------------------------------------------------------

    async def _send(self, rows: ParsedRows, source: str) -> None:
        rows = self._without_too_large(rows)
        for number, reason in rows.rejected:
            self._reject(1, f"{source} line {number}: {reason}")
        if rows.values:
            handle = await self._producer.send_many(
                rows.values, rows.keys, timestamps_ms=rows.timestamps_ms
            )
            self._counts.in_flight.append((handle, rows, source))
        if self._is_interactive:
            await self.finish()
        while self._counts.in_flight and self._counts.in_flight[0][0].is_known:
            await self._count_first()

    def _without_too_large(self, rows: ParsedRows) -> ParsedRows:
        bytes_max = self._options.max_request_size
        longest = max(map(len, rows.values), default=0)
        longest += max((len(key) for key in rows.keys or () if key is not None), default=0)
        if longest + _RECORD_OVERHEAD_BYTES_MAX <= bytes_max:
            return rows
        keys: Sequence[bytes | None] = rows.keys or [None] * len(rows.values)
        large = [
            row
            for row, (value, key) in enumerate(zip(rows.values, keys, strict=True))
            if not self._producer.fits(value, key)
        ]
        reason = f"larger than --max-request-size ({bytes_max:,} bytes)"
        rows.rejected.extend((rows.numbers[row], reason) for row in large)
        rows.rejected.sort()
        return rows.without(large) if large else rows

    async def _count_first(self) -> None:
        handle, rows, source = self._counts.in_flight[0]
        refusals = await handle.refusals()
        self._counts.in_flight.popleft()
        refused = 0
        for refused_rows, error in refusals:
            refused += len(refused_rows)
            first, last = rows.numbers[refused_rows[0]], rows.numbers[refused_rows[-1]]
            which = f"line {first}" if first == last else f"lines {first} to {last}"
            self._reject(len(refused_rows), f"{source} {which}: {error}")
        self._counts.stored += len(rows.values) - refused
        if self._options.verbose and not refused:
            _print(_keyed_lines(rows))
        if self._options.print_metadata and not refused:
            _print(_metadata_lines(await handle))
        if self._is_interactive and not refused:
            note("Ok!")

    def _reject(self, lines: int, text: str) -> None:
        self._counts.rejected += lines
        if self._counts.reported < _REJECTED_REPORTED_MAX:
            self._counts.reported += lines
            self._progress.clear()
            note(f"rejected {text}")


def _print(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        discard(sys.stdout, 1)  # the reader closed the pipe, but storing continues
    except OutputFailed:
        discard(sys.stdout, 1)  # raise it only once, so that the batches in flight can be counted
        raise


def _keyed_lines(rows: ParsedRows) -> bytes:
    keys: Sequence[bytes | None] = rows.keys or [None] * len(rows.values)
    shown = (b"null" if key is None else key for key in keys)
    return b"".join(map(b"[%b] %b\n".__mod__, zip(shown, rows.values, strict=True)))


def _metadata_lines(stored: RecordsMetadata) -> bytes:
    offsets = ("unknown" if offset < 0 else offset for offset in stored.offsets)
    lines = map("partition={} offset={}\n".format, stored.partitions, offsets)
    return "".join(lines).encode()


def _reader(options: ProduceOptions) -> Reader:
    if options.key_separator is not None:
        return _parsing(separated(options.key_separator.encode()))
    if options.key_field is not None:
        return _parsing(keyed_by_field(options.key_field))
    if options.form == "json":
        return _parsing(enveloped)
    key = None if options.key is None else options.key.encode()
    return functools.partial(plain, key=key)


def _parsing(parse: Parser) -> Reader:
    return lambda lines, first: parse_lines(lines, first, parse, time.time_ns() // 1_000_000)


def _every_tenth(report: Callable[[Exception], None]) -> Callable[[Exception, int], None]:
    """Report the first attempt and every tenth after it."""

    def on_retry(error: Exception, attempt: int) -> None:
        if attempt % 10 == 1:
            report(error)

    return on_retry
