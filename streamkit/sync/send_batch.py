"""Records that go from threads to the loop together, and what becomes of them.

| a parcel is | until |
|---|---|
| open | the loop takes it, or columns are put behind it |
| closed | the loop takes it, in order |
| being handed over | the async producer has taken its records |
| handed over | for good; it knows the handles of its records |
| handed over in part | as above; its other records are lost |
| lost | for good; the producer was closed before, or refused it: handles and `flush` tell |
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Final, Protocol

from streamkit.client import RecordHandle, RecordMetadata, RecordsHandle, RecordsMetadata
from streamkit.protocol.batch import Columns

# What a record takes beside its value and key.
RECORD_BYTES: Final = 64
_ROWS_MAX: Final = 8_192
# The first row of a part, and its handle; or why its record was refused.
Part = tuple[int, RecordsHandle | RecordHandle | Exception]


class BatchOwner(Protocol):
    """What a parcel is handed over by; called from any thread."""

    def watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
        """Set an event once the outcome of a record is known; cut its linger short."""

    def outcome_of(self, batch: SendBatch) -> RecordsMetadata:
        """Wait for all records of a parcel."""


class SendBatch:
    """Records that are handed over together, as columns, and what became of them."""

    __slots__ = (
        "_asked",
        "_carrier",
        "_error",
        "_parts",
        "bytes",
        "keys",
        "partitions",
        "timestamps_ms",
        "values",
    )

    def __init__(self, carrier: BatchOwner) -> None:
        self._carrier = carrier
        self.values: list[bytes] = []
        self.keys: list[bytes | None] = []
        self.timestamps_ms: list[int] = []
        self.partitions: dict[int, int] = {}
        self.bytes = 0
        self._parts: list[Part] | None = None
        self._error: Exception | None = None
        self._asked: list[tuple[int, threading.Event]] = []

    def __len__(self) -> int:
        return len(self.timestamps_ms)

    # --- from any thread ---------------------------------------------------------------

    def wait_for_row(self, row: int) -> RecordMetadata:
        """Wait until a record is stored.

        Raises:
            StreamKitError: It is not stored.
        """
        record = self._record(row)
        if record is None or not record.is_known:
            known = threading.Event()
            self._carrier.watch(self, row, known)
            known.wait()
            record = self._record(row)
        assert record is not None, "it is known"
        return record.result()

    def wait_for_all(self) -> RecordsMetadata:
        """Wait until all records are stored.

        Raises:
            StreamKitError: One of them is not stored.
        """
        return self._carrier.outcome_of(self)

    # --- on the loop -------------------------------------------------------------------

    def watch(self, row: int, known: threading.Event) -> None:
        """Set an event once the outcome of a record is known."""
        try:
            record = self._record(row)
        except Exception:  # raised again in the thread that waits
            known.set()
            return
        if record is None:
            self._asked.append((row, known))
        else:
            # In the loop's next turn, which has nothing else to do: a thread that is woken while
            # the loop goes on would sleep a second time, for the interpreter.
            record.when_known(partial(asyncio.get_running_loop().call_soon, known.set))

    def settle(self, parts: list[Part], *, rest: Exception | None = None) -> None:
        """Learn the handles of the records, and why those that have none are not on their way."""
        self._parts, self._error = parts, rest
        self._release()

    def lose(self, error: Exception) -> None:
        """Learn why none of the records is on its way."""
        self._error = error
        self._release()

    def handles(self) -> list[RecordsHandle | RecordHandle]:
        """Return the handles of the records, in order.

        Raises:
            StreamKitError: Some records are not on their way.
        """
        if self._error is not None:
            raise self._error
        found = []
        for _, part in self._parts or ():
            if isinstance(part, Exception):
                raise part
            found.append(part)
        return found

    def cut_even(self) -> None:
        """Drop what an interrupted sender has left: its record counts as not sent."""
        rows = len(self)
        if len(self.values) != rows or len(self.keys) != rows or rows in self.partitions:
            del self.values[rows:], self.keys[rows:]
            self.partitions.pop(rows, None)

    @property
    def is_settled(self) -> bool:
        """Whether the records are handed over, or lost."""
        return self._parts is not None or self._error is not None

    def _release(self) -> None:
        self.values, self.keys = [], []
        asked, self._asked = self._asked, []
        for row, known in asked:
            self.watch(row, known)

    def _record(self, row: int) -> RecordHandle | None:
        """Return the handle of a record; None as long as it is not handed over."""
        if self._parts is None:
            if self._error is not None:
                raise self._error
            return None
        at = bisect_right(self._parts, row, key=itemgetter(0)) - 1
        if at >= 0:
            first, part = self._parts[at]
            if isinstance(part, RecordsHandle):
                with suppress(IndexError):  # not all of its rows are taken
                    return part.record(row - first)
            elif first == row:
                if isinstance(part, Exception):
                    raise part
                return part
        assert self._error is not None, "else every record has its handle"
        raise self._error


def send_batches_of(columns: Columns, bytes_max: int, carrier: BatchOwner) -> Iterator[SendBatch]:
    """Cut columns into parcels of up to so many bytes, of at least one record each."""
    start, total = 0, len(columns.values)
    while start < total:
        stop = start + _rows_of(columns.values, start, bytes_max)
        batch = SendBatch(carrier)
        batch.values, batch.keys = columns.values[start:stop], columns.keys[start:stop]
        batch.timestamps_ms = columns.timestamps_ms[start:stop]
        batch.bytes = sum(map(len, batch.values)) + RECORD_BYTES * (stop - start)
        yield batch
        start = stop


def _rows_of(values: Sequence[bytes], start: int, bytes_max: int) -> int:
    rows = min(_ROWS_MAX, len(values) - start)
    while rows > 1 and sum(map(len, values[start : start + rows])) > bytes_max:
        rows //= 2
    return rows
