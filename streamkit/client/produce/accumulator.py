"""Records on their way into batches, for one partition. Pure.

Source: client semantics reference, 1.3 and 1.4; free of its defect that a record is judged
against a batch that is already partly full.
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

# What a record takes beside its key and value, at the most: three single bytes, three lengths
# and a time of up to five bytes each, and a row of up to three.
_RECORD_BYTES_MAX = 26
_DELTA_MS_MAX = 2**31


@dataclass(slots=True)
class BatchOutcome:
    """What became of a batch: its place in the log, or why it was refused."""

    base_offset: int = -1
    error: Exception | None = None
    is_known: bool = False
    wakes: list[Callable[[], object]] = field(default_factory=list)

    def settle(self, base_offset: int, error: Exception | None) -> None:
        """Learn it, and tell whoever waits."""
        self.base_offset, self.error, self.is_known = base_offset, error, True
        for wake in self.wakes:
            wake()


@dataclass(slots=True)
class ReadyBatch:
    """A batch that takes no more records, encoded. ``since_s`` is when it got its first one.

    ``error`` says why it could not be encoded; then there is nothing to send. ``may_be_stored``
    tells whether a server may have it without having said so.
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
    """The batch that still takes records, as columns.

    ``bytes_max`` is what its records take at the most: to count exactly, record by record,
    costs more than all else that is done with one.
    """

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    bytes_max: int = 0
    since_s: float = 0.0
    outcome: BatchOutcome = field(default_factory=BatchOutcome)
    # Between these, both excluded, lie the times of its records.
    low_ms: int = 0
    high_ms: int = 0

    def begin_with(self, timestamp_ms: int) -> None:
        """Learn the time of the first record.

        A batch whose first time is 0 has no times at all, for every reader. So it takes no record
        that has one.
        """
        spare_ms = _DELTA_MS_MAX if timestamp_ms else 1
        self.low_ms, self.high_ms = timestamp_ms - spare_ms, timestamp_ms + spare_ms


@dataclass(frozen=True, slots=True)
class RowRange:
    """Where rows went: the batch's outcome, and the rows' place in it."""

    outcome: BatchOutcome
    first_row: int
    count: int


class Accumulator:
    """Batches of one partition: some ready, in order, and one open behind them.

    Args:
        batch_bytes: Soft limit of a batch, uncompressed, header included.
        request_bytes: Hard limit of a batch, also of one record that travels alone.
        codec_used: What batches are compressed with.
        now_s: Tells the time, when a batch gets its first record.
        on_change: Called when a batch has been opened, or is ready.
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
        # Of the batches that are ready or out: the open one is small.
        self.held_bytes = 0

    @property
    def open_since_s(self) -> float | None:
        """When the open batch got its first record; None if there is none."""
        return None if self._open is None else self._open.since_s

    @property
    def is_empty(self) -> bool:
        return self._open is None and not self.ready

    def add(self, value: bytes, key: bytes | None, timestamp_ms: int) -> tuple[BatchOutcome, int]:
        """Take one record; return the outcome of its batch and its row there.

        Raises:
            RecordTooLarge: It could not be sent even alone. Nothing is stored of it.
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
        """Return the batch for a record that the open one may have no room for."""
        if bytes_max + OVERHEAD_BYTES > self._request_bytes:
            check_alone(codec.record_bytes(0, 0, key, value), self._request_bytes)
        batch = self._open
        if batch is None:
            return self._begin(timestamp_ms)
        batch.bytes_max = self._bytes_of(batch)
        delta_ms = timestamp_ms - batch.timestamps_ms[0]
        size = codec.record_bytes(len(batch.values), delta_ms, key, value)
        is_near = batch.low_ms < timestamp_ms < batch.high_ms
        if batch.bytes_max + size <= self._budget_bytes and is_near:
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
        """Take many records; return where each run of them went, in order.

        Raises:
            RecordTooLarge: One of them could not be sent even alone; none is stored.
        """
        if self._open is not None:
            columns, already = self._merged(columns)
        else:
            already = 0
        cuts = self._cuts(columns)
        now_s = self._now_s()
        places = []
        start = 0
        for stop, size in cuts:
            batch = OpenBatch(since_s=now_s)
            if start == 0 and self._open is not None:
                batch.outcome, batch.since_s = self._open.outcome, self._open.since_s
                self._open = None
            first = already if start == 0 else 0
            places.append(RowRange(batch.outcome, first, stop - start - first))
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
        return places

    def close_batch(self) -> None:
        """Let the open batch go as it is."""
        batch, self._open = self._open, None
        if batch is not None:
            columns = Columns(batch.values, batch.keys, batch.timestamps_ms)
            self._encode(columns, 0, len(batch.values), None, batch)
            self._on_change()

    def take(self, most_bytes: int) -> list[ReadyBatch]:
        """Take ready batches for one request: at least one, more up to ``most_bytes``.

        One that could not be encoded comes alone.
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
        """Learn that the outcome of batches is known; their room is free again."""
        for batch in batches:
            self.held_bytes -= batch.plain_bytes

    def _merged(self, columns: Columns) -> tuple[Columns, int]:
        """Put rows behind those of the open batch, which is left as it is."""
        assert self._open is not None
        held = self._open
        merged = Columns(
            held.values + columns.values,
            held.keys + columns.keys,
            held.timestamps_ms + columns.timestamps_ms,
        )
        return merged, len(held.values)

    def _cuts(self, columns: Columns) -> list[tuple[int, int]]:
        """Find where batches end, and how many bytes the records of each take."""
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
        """Fit the rows from one on that have no time, up to the first that has one."""
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
        except Exception as error:  # it concerns these records alone; their handles raise it
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
        row: Which of a column it is, if it is one.

    Raises:
        RecordTooLarge: It is.
    """
    alone = OVERHEAD_BYTES + record_bytes
    if alone > request_bytes:
        which = "" if row is None else f" (row {row})"
        raise RecordTooLarge(
            f"a record of {record_bytes} bytes{which} needs a batch of {alone} bytes, "
            f"max_request_size is {request_bytes}",
            hint="raise max_request_size, or make the record smaller",
        )


def check_sizes(columns: Columns, largest_bytes: int, request_bytes: int) -> None:
    """Refuse columns that hold a record too large even for a batch of its own.

    ``largest_bytes`` are those of the largest key and value together.

    Raises:
        RecordTooLarge: The text has the row.
    """
    if largest_bytes + _RECORD_BYTES_MAX + OVERHEAD_BYTES <= request_bytes:
        return
    for row, (value, key) in enumerate(zip(columns.values, columns.keys, strict=True)):
        check_alone(codec.record_bytes(0, 0, key, value), request_bytes, row)
