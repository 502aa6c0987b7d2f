"""Records that threads pass to the event loop together, and their outcomes.

| state of a batch | it ends when |
|---|---|
| open | the loop takes it, or columns are added after it |
| closed | the loop takes it, in order |
| being forwarded | the async producer has accepted its records |
| forwarded | never: it has the handles of its records |
| forwarded in part | never: it has handles of some records, the others are lost |
| lost | never: the producer was closed or refused it; handles and `flush` raise the error |
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
from streamkit.limits import SIGNAL_WAIT_S_MAX
from streamkit.protocol.batch import Columns

# The memory of a record without its value and key.
RECORD_BYTES: Final = 64
_ROWS_MAX: Final = 8_192
# The first row of a part, and its handle or the error of its record.
Part = tuple[int, RecordsHandle | RecordHandle | Exception]


class BatchOwner(Protocol):
    """The owner of a batch, which forwards it; called from any thread."""

    def watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
        """Set an event when the outcome of a record is known, without waiting for the linger."""

    def outcome_of(self, batch: SendBatch) -> RecordsMetadata:
        """Wait for all records of a batch."""


class SendBatch:
    """Records that are forwarded together, as columns, and their outcomes."""

    __slots__ = (
        "_error",
        "_owner",
        "_parts",
        "_watched",
        "bytes",
        "keys",
        "partitions",
        "timestamps_ms",
        "values",
    )

    def __init__(self, owner: BatchOwner) -> None:
        self._owner = owner
        self.values: list[bytes] = []
        self.keys: list[bytes | None] = []
        self.timestamps_ms: list[int] = []
        self.partitions: dict[int, int] = {}
        self.bytes = 0
        self._parts: list[Part] | None = None
        self._error: Exception | None = None
        self._watched: list[tuple[int, threading.Event]] = []

    def __len__(self) -> int:
        return len(self.timestamps_ms)

    # --- from any thread ---------------------------------------------------------------

    def wait_for_row(self, row: int) -> RecordMetadata:
        """Wait until a record is stored.

        Raises:
            StreamKitError: The record is not stored.
        """
        record = self._record(row)
        if record is None or not record.is_known:
            known = threading.Event()
            self._owner.watch(self, row, known)
            while not known.wait(SIGNAL_WAIT_S_MAX):
                pass
            record = self._record(row)
        assert record is not None, "its outcome is known"
        return record.result()

    def wait_for_all(self) -> RecordsMetadata:
        """Wait until all records are stored.

        Raises:
            StreamKitError: A record is not stored.
        """
        return self._owner.outcome_of(self)

    # --- on the loop -------------------------------------------------------------------

    def watch(self, row: int, known: threading.Event) -> None:
        """Set an event when the outcome of a record is known."""
        try:
            record = self._record(row)
        except Exception:  # the waiting thread raises it
            known.set()
            return
        if record is None:
            self._watched.append((row, known))
        else:
            # Set it in the next cycle of the loop, which is then idle: a thread that wakes while
            # the loop still works would have to wait again, for the interpreter lock.
            record.when_known(partial(asyncio.get_running_loop().call_soon, known.set))

    def settle(self, parts: list[Part], *, rest: Exception | None = None) -> None:
        """Set the handles of the records, and the error of records without a handle."""
        self._parts, self._error = parts, rest
        self._release()

    def lose(self, error: Exception) -> None:
        """Set the error of all records: none of them was forwarded."""
        self._error = error
        self._release()

    def handles(self) -> list[RecordsHandle | RecordHandle]:
        """Return the handles of the records, in order.

        Raises:
            StreamKitError: Some records were not forwarded.
        """
        if self._error is not None:
            raise self._error
        found = []
        for _, part in self._parts or ():
            if isinstance(part, Exception):
                raise part
            found.append(part)
        return found

    def drop_incomplete_row(self) -> None:
        """Drop the incomplete record of an interrupted `send`: it counts as not sent."""
        rows = len(self)
        if len(self.values) != rows or len(self.keys) != rows or rows in self.partitions:
            del self.values[rows:], self.keys[rows:]
            self.partitions.pop(rows, None)

    @property
    def is_settled(self) -> bool:
        """Whether the records are forwarded, or lost."""
        return self._parts is not None or self._error is not None

    def _release(self) -> None:
        self.values, self.keys = [], []
        watched, self._watched = self._watched, []
        for row, known in watched:
            self.watch(row, known)

    def _record(self, row: int) -> RecordHandle | None:
        """Return the handle of a record; None if it is not forwarded yet."""
        if self._parts is None:
            if self._error is not None:
                raise self._error
            return None
        at = bisect_right(self._parts, row, key=itemgetter(0)) - 1
        if at >= 0:
            first, part = self._parts[at]
            if isinstance(part, RecordsHandle):
                with suppress(IndexError):  # only some of its rows were accepted
                    return part.record(row - first)
            elif first == row:
                if isinstance(part, Exception):
                    raise part
                return part
        assert self._error is not None, "without an error every record has a handle"
        raise self._error


def send_batches_of(columns: Columns, bytes_max: int, owner: BatchOwner) -> Iterator[SendBatch]:
    """Divide columns into batches of up to ``bytes_max`` bytes, and of at least one record."""
    start, total = 0, len(columns.values)
    while start < total:
        stop = start + _rows_of(columns.values, start, bytes_max)
        batch = SendBatch(owner)
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
