"""Records on their way into batches, for one partition. Pure.

Source: client semantics reference, 1.3 and 1.4; free of its defect that a record is judged
against a batch that is already partly full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from streamkit.errors import RecordTooLarge
from streamkit.limits import RECORDS_PER_BATCH_MAX
from streamkit.protocol import codec
from streamkit.protocol.batch import OVERHEAD_BYTES, Columns, encode_batch
from streamkit.protocol.compression import Codec


@dataclass(slots=True)
class Outcome:
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
    """A batch that takes no more records, encoded. ``since_s`` is when it got its first one."""

    data: bytes
    record_count: int
    plain_bytes: int
    since_s: float
    outcome: Outcome


@dataclass(slots=True)
class OpenBatch:
    """The batch that still takes records, as columns."""

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    records_bytes: int = 0
    since_s: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows went: the batch's outcome, and the rows' place in it."""

    outcome: Outcome
    first_row: int
    count: int


class Accumulator:
    """Batches of one partition: some ready, in order, and one open behind them.

    Args:
        batch_bytes: Soft limit of a batch, uncompressed, header included.
        request_bytes: Hard limit of a batch, also of one record that travels alone.
        codec_used: What batches are compressed with.
        now_s: Tells the time, when a batch gets its first record.
    """

    def __init__(
        self,
        *,
        batch_bytes: int,
        request_bytes: int,
        codec_used: Codec,
        now_s: Callable[[], float],
    ) -> None:
        self._budget_bytes = max(0, min(batch_bytes, request_bytes) - OVERHEAD_BYTES)
        self._request_bytes = request_bytes
        self._codec = codec_used
        self._now_s = now_s
        self._open: OpenBatch | None = None
        self.ready: deque[ReadyBatch] = deque()
        self.held_bytes = 0

    @property
    def open_since_s(self) -> float | None:
        """When the open batch got its first record; None if there is none."""
        return None if self._open is None else self._open.since_s

    @property
    def is_empty(self) -> bool:
        return self._open is None and not self.ready

    def add(self, value: bytes, key: bytes | None, timestamp_ms: int) -> tuple[Outcome, int]:
        """Take one record; return the outcome of its batch and its row there.

        Raises:
            RecordTooLarge: It could not be sent even alone. Nothing is stored of it.
        """
        batch = self._open
        if batch is not None:
            row = len(batch.values)
            delta_ms = timestamp_ms - batch.timestamps_ms[0]
            size = codec.record_bytes(row, delta_ms, key, value)
            fits = batch.records_bytes + size <= self._budget_bytes and abs(delta_ms) < 2**31
            if not fits or row >= RECORDS_PER_BATCH_MAX:
                self.close_batch()
                batch = None
        if batch is None:
            size = codec.record_bytes(0, 0, key, value)
            self._check_alone(size)
            batch = self._open = OpenBatch(since_s=self._now_s())
            row = 0
        batch.values.append(value)
        batch.keys.append(key)
        batch.timestamps_ms.append(timestamp_ms)
        batch.records_bytes += size
        self.held_bytes += size
        if batch.records_bytes >= self._budget_bytes:
            self.close_batch()
        return batch.outcome, row

    def add_rows(self, columns: Columns) -> list[Place]:
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
                self.held_bytes -= self._open.records_bytes
                self._open = None
            first = already if start == 0 else 0
            places.append(Place(batch.outcome, first, stop - start - first))
            self.held_bytes += size
            is_last = stop == len(columns.values)
            if is_last and size < self._budget_bytes:
                batch.values = columns.values[start:stop]
                batch.keys = columns.keys[start:stop]
                batch.timestamps_ms = columns.timestamps_ms[start:stop]
                batch.records_bytes = size
                self._open = batch
            else:
                self._encode(columns, start, stop, size, batch)
            start = stop
        return places

    def close_batch(self) -> None:
        """Let the open batch go as it is."""
        batch, self._open = self._open, None
        if batch is not None:
            columns = Columns(batch.values, batch.keys, batch.timestamps_ms)
            self._encode(columns, 0, len(batch.values), batch.records_bytes, batch)

    def take(self, most_bytes: int) -> list[ReadyBatch]:
        """Take ready batches for one request: at least one, more up to ``most_bytes``."""
        taken = [self.ready.popleft()]
        size = len(taken[0].data)
        while self.ready and size + len(self.ready[0].data) <= most_bytes:
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
            if size > self._budget_bytes:
                self._check_alone(size, row=start)
            cuts.append((stop, size))
            start = stop
        return cuts

    def _check_alone(self, record_bytes: int, row: int | None = None) -> None:
        alone = OVERHEAD_BYTES + record_bytes
        if alone > self._request_bytes:
            which = "" if row is None else f" (row {row})"
            raise RecordTooLarge(
                f"a record of {record_bytes} bytes{which} needs a batch of {alone} bytes, "
                f"max_request_size is {self._request_bytes}",
                hint="raise max_request_size, or make the record smaller",
            )

    def _encode(self, columns: Columns, start: int, stop: int, size: int, batch: OpenBatch) -> None:
        data = encode_batch(columns, start, stop, size, codec_used=self._codec)
        self.ready.append(ReadyBatch(data, stop - start, size, batch.since_s, batch.outcome))
