"""The handles that `Producer.send` and `Producer.send_many` return, with a method `wait`."""

from __future__ import annotations

from typing import Protocol

import msgspec

from streamkit.client import RecordMetadata, RecordsMetadata


class SentRecords(Protocol):
    """Records that were sent together."""

    def __len__(self) -> int: ...

    def wait_for_row(self, row: int) -> RecordMetadata: ...

    def wait_for_all(self) -> RecordsMetadata: ...


class RecordHandle(msgspec.Struct, frozen=True, gc=False):
    """A record that was sent."""

    _rows: SentRecords
    _row: int

    def __repr__(self) -> str:
        return f"RecordHandle(row {self._row})"

    def wait(self) -> RecordMetadata:
        """Wait until the record is stored and return where. It may be called many times.

        The record is sent without waiting for its linger.

        Raises:
            StreamKitError: The record is not stored.
        """
        return self._rows.wait_for_row(self._row)


class RecordsHandle(msgspec.Struct, frozen=True, gc=False):
    """The records of one `Producer.send_many`."""

    _parts: list[SentRecords]

    def __repr__(self) -> str:
        return f"RecordsHandle({sum(map(len, self._parts))} records)"

    def wait(self) -> RecordsMetadata:
        """Wait until all records are stored and return where, row by row.

        Raises:
            StreamKitError: A record is not stored.
        """
        found = [rows.wait_for_all() for rows in self._parts]
        return RecordsMetadata(
            [partition for part in found for partition in part.partitions],
            [offset for part in found for offset in part.offsets],
        )
