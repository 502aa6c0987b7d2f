"""The handles that `send` and `send_many` return, to wait for the outcome of records."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from streamkit.client.produce.accumulator import BatchOutcome, RowRange
from streamkit.client.produce.partition_sender import PartitionSender


@dataclass(frozen=True, slots=True)
class RecordMetadata:
    """Where a record is stored.

    ``offset`` is -1 if the producer uses SmartModules, because the server does not report the
    offsets of single records then.
    """

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RecordsMetadata:
    """Where the records of one `send_many` are stored, row by row; see `RecordMetadata`."""

    partitions: Sequence[int]
    offsets: Sequence[int]


class RecordHandle:
    """A record that was sent. Await it for its `RecordMetadata`, any number of times."""

    __slots__ = ("_outcome", "_row", "_sender")

    def __init__(self, sender: PartitionSender, outcome: BatchOutcome, row: int) -> None:
        self._sender = sender
        self._outcome = outcome
        self._row = row

    def __repr__(self) -> str:
        if not self._outcome.is_known:
            return f"RecordHandle(partition={self._sender.partition}, pending)"
        if self._outcome.error is not None:
            return f"RecordHandle({type(self._outcome.error).__name__})"
        stored = self.result()
        return f"RecordHandle(partition={stored.partition}, offset={stored.offset})"

    def __await__(self) -> Generator[Any, Any, RecordMetadata]:
        return self._wait().__await__()

    async def _wait(self) -> RecordMetadata:
        await self._sender.wait_for(self._outcome)
        return self.result()

    @property
    def is_known(self) -> bool:
        """Whether the record's outcome is known, so that awaiting it returns immediately."""
        return self._outcome.is_known

    def result(self) -> RecordMetadata:
        """Return or raise the same as awaiting does. The outcome must be known."""
        assert self._outcome.is_known, "called before the outcome was known"
        if self._outcome.error is not None:
            raise self._outcome.error
        base_offset = self._outcome.base_offset
        return RecordMetadata(
            self._sender.partition, base_offset + self._row if base_offset >= 0 else -1
        )

    def when_known(self, wake: Callable[[], object]) -> None:
        """Call ``wake`` as soon as the outcome is known, without waiting for the linger."""
        if self._outcome.is_known:
            wake()
        else:
            self._outcome.wakes.append(wake)
            self._sender.flush_soon()


class RecordsHandle:
    """The records of one `send_many`. Await it for their `RecordsMetadata`."""

    __slots__ = ("_count", "_parts")

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[tuple[PartitionSender, Sequence[int], list[RowRange]]] = []

    def __repr__(self) -> str:
        return f"RecordsHandle({self._count} records{'' if self.is_known else ', pending'})"

    def add(self, sender: PartitionSender, rows: Sequence[int], row_ranges: list[RowRange]) -> None:
        self._parts.append((sender, rows, row_ranges))

    @property
    def taken(self) -> int:
        """How many records the producer has accepted: all of them when `send_many` returns."""
        return sum(row_range.count for _, _, row_ranges in self._parts for row_range in row_ranges)

    def record(self, row: int) -> RecordHandle:
        """Return the handle of one of the records.

        Raises:
            IndexError: The row does not exist.
        """
        for sender, rows, row_ranges in self._parts:
            at = bisect_left(rows, row)
            if at == len(rows) or rows[at] != row:
                continue
            for row_range in row_ranges:
                if at < row_range.count:
                    return RecordHandle(sender, row_range.outcome, row_range.first_row + at)
                at -= row_range.count
        raise IndexError(f"there is no row {row}: the handle has {self._count} records")

    @property
    def is_known(self) -> bool:
        """Whether every record's outcome is known, so that awaiting them returns immediately."""
        return all(
            row_range.outcome.is_known
            for _, _, row_ranges in self._parts
            for row_range in row_ranges
        )

    async def refusals(self) -> list[tuple[Sequence[int], Exception]]:
        """Wait for all outcomes; return the rows that are not stored, with their errors."""
        refused = []
        for sender, rows, row_ranges in self._parts:
            at = 0
            for row_range in row_ranges:
                await sender.wait_for(row_range.outcome)
                if row_range.outcome.error is not None:
                    refused.append((rows[at : at + row_range.count], row_range.outcome.error))
                at += row_range.count
        return refused

    def __await__(self) -> Generator[Any, Any, RecordsMetadata]:
        return self._wait().__await__()

    async def _wait(self) -> RecordsMetadata:
        partitions = [-1] * self._count
        offsets = [-1] * self._count
        for sender, rows, row_ranges in self._parts:
            at = 0
            for row_range in row_ranges:
                await sender.wait_for(row_range.outcome)
                if row_range.outcome.error is not None:
                    raise row_range.outcome.error
                first = row_range.outcome.base_offset + row_range.first_row
                has_offsets = row_range.outcome.base_offset >= 0
                for row, offset in zip(
                    rows[at : at + row_range.count],
                    range(first, first + row_range.count),
                    strict=True,
                ):
                    partitions[row] = sender.partition
                    offsets[row] = offset if has_offsets else -1
                at += row_range.count
        return RecordsMetadata(partitions, offsets)
