"""Collects the records of one partition into batches. Pure.

Source: docs/protocol/batches.md, "Size of a record", and docs/protocol/produce-and-fetch.md,
"How a stock producer sends". Unlike a stock producer, it does not refuse a record only because
the record is larger than the space left in the open batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from streamkit.errors import DataError, RecordTooLarge
from streamkit.limits import RECORDS_PER_BATCH_MAX
from streamkit.protocol import codec
from streamkit.protocol.batch import OVERHEAD_BYTES, Columns, encode_batch
from streamkit.protocol.compression import Codec, check_growth

# The largest size of a record without its key and value: three single bytes, three lengths and a
# timestamp of up to five bytes each, and a row number of up to three bytes.
_RECORD_BYTES_MAX = 26
_DELTA_MS_MAX = 2**31


@dataclass(slots=True)
class BatchOutcome:
    """The outcome of a batch: its base offset, or the error."""

    base_offset: int = -1
    error: Exception | None = None
    is_known: bool = False
    wakes: list[Callable[[], object]] = field(default_factory=list)

    def settle(self, base_offset: int, error: Exception | None) -> None:
        """Set the outcome and call all ``wakes``."""
        self.base_offset, self.error, self.is_known = base_offset, error, True
        for wake in self.wakes:
            wake()


@dataclass(slots=True)
class ReadyBatch:
    """An encoded batch that accepts no more records. ``since_s`` is when the first one was added.

    If the batch could not be encoded, ``error`` gives the reason and there is nothing to send.
    ``may_be_stored`` means that a server may have stored the batch without confirming it.
    """

    data: bytes
    record_count: int
    plain_bytes: int
    since_s: float
    outcome: BatchOutcome
    error: Exception | None = None
    may_be_stored: bool = False


@dataclass(slots=True)
class OpenBatch:
    """The batch that still accepts records, as columns.

    ``bytes_max`` is an upper limit of the size of its records. An exact count for each record
    would cost more than all other work on it.
    """

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    bytes_max: int = 0
    since_s: float = 0.0
    outcome: BatchOutcome = field(default_factory=BatchOutcome)
    # The timestamps of its records are between these two, both excluded.
    low_ms: int = 0
    high_ms: int = 0

    def begin_with(self, timestamp_ms: int) -> None:
        """Set the timestamp of the first record.

        For every reader, a batch whose first timestamp is 0 has no timestamps at all. So such a
        batch accepts only records without a timestamp.
        """
        spare_ms = _DELTA_MS_MAX if timestamp_ms else 1
        self.low_ms, self.high_ms = timestamp_ms - spare_ms, timestamp_ms + spare_ms


@dataclass(frozen=True, slots=True)
class RowRange:
    """Consecutive rows of one batch: the outcome of the batch, and the rows in it."""

    outcome: BatchOutcome
    first_row: int
    count: int


class Accumulator:
    """Batches of one partition: ready ones in order, and at most one open batch after them.

    Args:
        batch_bytes: Soft limit of a batch, uncompressed, including the header.
        request_bytes: Hard limit of a batch, even if it has a single record.
        codec_used: The codec of the batches.
        now_s: Returns the current time; called when a batch gets its first record.
        on_change: Called when a batch was opened or became ready.
    """

    def __init__(
        self,
        *,
        batch_bytes: int,
        request_bytes: int,
        codec_used: Codec,
        now_s: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._budget_bytes = max(0, min(batch_bytes, request_bytes) - OVERHEAD_BYTES)
        self._request_bytes = request_bytes
        self._codec = codec_used
        self._now_s = now_s
        self._on_change = on_change
        self._open: OpenBatch | None = None
        self.ready: deque[ReadyBatch] = deque()
        # Only batches that are ready or in flight count; the open one is small.
        self.held_bytes = 0

    @property
    def open_since_s(self) -> float | None:
        """When the open batch got its first record; None if no batch is open."""
        return None if self._open is None else self._open.since_s

    @property
    def is_empty(self) -> bool:
        return self._open is None and not self.ready

    def add(self, value: bytes, key: bytes | None, timestamp_ms: int) -> tuple[BatchOutcome, int]:
        """Add one record; return the outcome of its batch and its row in the batch.

        Raises:
            RecordTooLarge: The record is too large even for a batch of its own. It is not added.
        """
        bytes_max = _RECORD_BYTES_MAX + len(value)
        if key is not None:
            bytes_max += len(key)
        batch = self._open
        if batch is None or batch.bytes_max + bytes_max > self._budget_bytes:
            batch = self._batch_for(value, key, timestamp_ms, bytes_max)
        elif not batch.low_ms < timestamp_ms < batch.high_ms:
            self.close_batch()
            batch = self._begin(timestamp_ms)
        row = len(batch.values)
        batch.values.append(value)
        batch.keys.append(key)
        batch.timestamps_ms.append(timestamp_ms)
        batch.bytes_max += bytes_max
        if batch.bytes_max >= self._budget_bytes or row + 1 == RECORDS_PER_BATCH_MAX:
            self._close_if_full(batch)
        return batch.outcome, row

    def _batch_for(
        self, value: bytes, key: bytes | None, timestamp_ms: int, bytes_max: int
    ) -> OpenBatch:
        """Return the batch for a record that may not fit in the open batch."""
        if bytes_max + OVERHEAD_BYTES > self._request_bytes:
            check_alone(codec.record_bytes(0, 0, key, value), self._request_bytes)
        batch = self._open
        if batch is None:
            return self._begin(timestamp_ms)
        batch.bytes_max = self._bytes_of(batch)
        delta_ms = timestamp_ms - batch.timestamps_ms[0]
        size = codec.record_bytes(len(batch.values), delta_ms, key, value)
        is_in_range = batch.low_ms < timestamp_ms < batch.high_ms
        if batch.bytes_max + size <= self._budget_bytes and is_in_range:
            return batch
        self.close_batch()
        return self._begin(timestamp_ms)

    def _begin(self, timestamp_ms: int) -> OpenBatch:
        self._open = OpenBatch(since_s=self._now_s())
        self._open.begin_with(timestamp_ms)
        self._on_change()
        return self._open

    def _close_if_full(self, batch: OpenBatch) -> None:
        batch.bytes_max = self._bytes_of(batch)
        if batch.bytes_max >= self._budget_bytes or len(batch.values) == RECORDS_PER_BATCH_MAX:
            self.close_batch()

    def _bytes_of(self, batch: OpenBatch) -> int:
        _, size = codec.fit_rows(
            batch.values, batch.keys, batch.timestamps_ms, 0, 1 << 62, RECORDS_PER_BATCH_MAX
        )
        return size

    def add_rows(self, columns: Columns) -> list[RowRange]:
        """Add many records; return the row ranges that they were added to, in order.

        Raises:
            RecordTooLarge: A record is too large even for a batch of its own; none is added.
        """
        if self._open is not None:
            columns, already = self._merged(columns)
        else:
            already = 0
        cuts = self._cuts(columns)
        now_s = self._now_s()
        row_ranges = []
        start = 0
        for stop, size in cuts:
            batch = OpenBatch(since_s=now_s)
            if start == 0 and self._open is not None:
                batch.outcome, batch.since_s = self._open.outcome, self._open.since_s
                self._open = None
            first = already if start == 0 else 0
            row_ranges.append(RowRange(batch.outcome, first, stop - start - first))
            is_last = stop == len(columns.values)
            if is_last and size < self._budget_bytes:
                batch.values = columns.values[start:stop]
                batch.keys = columns.keys[start:stop]
                batch.timestamps_ms = columns.timestamps_ms[start:stop]
                batch.bytes_max = size
                batch.begin_with(batch.timestamps_ms[0])
                self._open = batch
            else:
                self._encode(columns, start, stop, size, batch)
            start = stop
        self._on_change()
        return row_ranges

    def close_batch(self) -> None:
        """Close the open batch, so that it is ready to be sent."""
        batch, self._open = self._open, None
        if batch is not None:
            columns = Columns(batch.values, batch.keys, batch.timestamps_ms)
            self._encode(columns, 0, len(batch.values), None, batch)
            self._on_change()

    def take(self, most_bytes: int) -> list[ReadyBatch]:
        """Take ready batches for one request: at least one, and more up to ``most_bytes``.

        A batch that could not be encoded is returned alone.
        """
        taken = [self.ready.popleft()]
        if taken[0].error is not None:
            return taken
        size = len(taken[0].data)
        while (
            self.ready
            and self.ready[0].error is None
            and size + len(self.ready[0].data) <= most_bytes
        ):
            taken.append(self.ready.popleft())
            size += len(taken[-1].data)
        return taken

    def settled(self, batches: list[ReadyBatch]) -> None:
        """Free the space of batches whose outcome is known."""
        for batch in batches:
            self.held_bytes -= batch.plain_bytes
        assert self.held_bytes >= 0, "a batch is settled once"

    def _merged(self, columns: Columns) -> tuple[Columns, int]:
        """Append rows to a copy of those of the open batch."""
        assert self._open is not None
        held = self._open
        merged = Columns(
            held.values + columns.values,
            held.keys + columns.keys,
            held.timestamps_ms + columns.timestamps_ms,
        )
        return merged, len(held.values)

    def _cuts(self, columns: Columns) -> list[tuple[int, int]]:
        """Return where batches end, and the size in bytes of the records of each."""
        cuts: list[tuple[int, int]] = []
        start = 0
        total = len(columns.values)
        while start < total:
            stop, size = codec.fit_rows(
                columns.values,
                columns.keys,
                columns.timestamps_ms,
                start,
                self._budget_bytes,
                RECORDS_PER_BATCH_MAX,
            )
            if not columns.timestamps_ms[start] and any(columns.timestamps_ms[start:stop]):
                stop, size = self._without_times(columns, start)
            if size > self._budget_bytes:
                check_alone(size, self._request_bytes, row=start)
            cuts.append((stop, size))
            start = stop
        return cuts

    def _without_times(self, columns: Columns, start: int) -> tuple[int, int]:
        """Fit rows into a batch, from ``start`` up to the first row with a timestamp."""
        stop = start
        while not columns.timestamps_ms[stop]:
            stop += 1
        rows, size = codec.fit_rows(
            columns.values[start:stop],
            columns.keys[start:stop],
            columns.timestamps_ms[start:stop],
            0,
            self._budget_bytes,
            RECORDS_PER_BATCH_MAX,
        )
        return start + rows, size

    def _encode(
        self, columns: Columns, start: int, stop: int, size: int | None, batch: OpenBatch
    ) -> None:
        data = b""
        problem: DataError | None = None
        try:
            size = self._bytes_of(batch) if size is None else size
            data = encode_batch(columns, start, stop, size, codec_used=self._codec)
            check_growth(self._codec, len(data), size)
        except DataError as error:
            data, problem = b"", error
        except Exception as error:  # the error affects only these records; their handles raise it
            problem = DataError(f"{stop - start} records cannot be encoded: {error!r:.200}")
            problem.__cause__ = error
        size = batch.bytes_max if size is None else size
        self.held_bytes += size
        self.ready.append(
            ReadyBatch(data, stop - start, size, batch.since_s, batch.outcome, problem)
        )


def check_alone(record_bytes: int, request_bytes: int, row: int | None = None) -> None:
    """Refuse a record that is too large even for a batch of its own.

    Args:
        record_bytes: Its size, as `codec.record_bytes` counts it.
        request_bytes: The hard limit of a batch.
        row: Its row, if it is part of a column.

    Raises:
        RecordTooLarge: The record is too large.
    """
    alone = OVERHEAD_BYTES + record_bytes
    if alone > request_bytes:
        which = "" if row is None else f" (row {row})"
        raise RecordTooLarge(
            f"a record of {record_bytes} bytes{which} needs a batch of {alone} bytes, "
            f"but max_request_size is {request_bytes}",
            hint="raise max_request_size, or make the record smaller",
        )


def check_sizes(columns: Columns, largest_bytes: int, request_bytes: int) -> None:
    """Refuse columns with a record that is too large even for a batch of its own.

    ``largest_bytes`` is the size of the largest record (key and value together).

    Raises:
        RecordTooLarge: A record is too large; the message shows its row.
    """
    if largest_bytes + _RECORD_BYTES_MAX + OVERHEAD_BYTES <= request_bytes:
        return
    for row, (value, key) in enumerate(zip(columns.values, columns.keys, strict=True)):
        check_alone(codec.record_bytes(0, 0, key, value), request_bytes, row)
