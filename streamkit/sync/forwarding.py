"""Forwards batches to the async producer; each record is accepted, or gets an error."""

from __future__ import annotations

from streamkit.client import RecordHandle, RecordsHandle
from streamkit.client.produce.producer import Producer
from streamkit.errors import NotFlushed
from streamkit.protocol.batch import Columns
from streamkit.sync.send_batch import Part, SendBatch


class Forwarder:
    """Forwards the records of one producer. ``refusal`` is the error of the first refused one."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.refusal: Exception | None = None

    def take_refusal(self) -> Exception | None:
        """Return the first refusal since the last call."""
        refusal, self.refusal = self.refusal, None
        return refusal

    def not_forwarded(self) -> NotFlushed:
        """Return the error of a record that was accepted but never forwarded."""
        return NotFlushed(
            f"the producer for {self._producer.topic!r} was closed before the record was sent"
        )

    async def forward(self, batch: SendBatch) -> None:
        """Forward a batch and settle it, even if this fails or is cancelled."""
        parts: list[Part] = []
        try:
            await self._forward_parts(batch, parts)
        except Exception as error:  # any error must reach the handles of the records
            self.refusal = self.refusal or error
            batch.settle(parts, rest=error)
        except BaseException:
            batch.settle(parts, rest=self.not_forwarded())
            raise
        else:
            batch.settle(parts)

    async def _forward_parts(self, batch: SendBatch, parts: list[Part]) -> None:
        start = 0
        for row, partition in (*batch.partitions.items(), (len(batch), None)):
            if start < row:
                await self._together(batch, start, row, parts)
            if partition is not None:
                parts.append((row, await self._to_partition(partition, batch, row)))
            start = row + 1

    async def _together(self, batch: SendBatch, start: int, stop: int, parts: list[Part]) -> None:
        """Forward consecutive rows in one call. If that is refused, forward them one by one."""
        many = RecordsHandle(stop - start)
        parts.append((start, many))
        try:
            await self._producer.send_columns(_rows(batch, start, stop), many)
        except Exception:
            if many.taken or stop - start == 1:
                raise
            parts.pop()  # a partitioner may have failed for only one of the rows
            for row in range(start, stop):
                parts.append((row, await self._alone(batch, row)))

    async def _alone(self, batch: SendBatch, row: int) -> RecordsHandle | Exception:
        one = RecordsHandle(1)
        try:
            await self._producer.send_columns(_rows(batch, row, row + 1), one)
        except Exception as error:
            self.refusal = self.refusal or error
            return error
        return one

    async def _to_partition(
        self, partition: int, batch: SendBatch, row: int
    ) -> RecordHandle | Exception:
        try:
            return await self._producer.send(
                batch.values[row],
                batch.keys[row],
                timestamp_ms=batch.timestamps_ms[row],
                partition=partition,
            )
        except Exception as error:
            self.refusal = self.refusal or error
            return error


def _rows(batch: SendBatch, start: int, stop: int) -> Columns:
    return Columns(
        batch.values[start:stop], batch.keys[start:stop], batch.timestamps_ms[start:stop]
    )
