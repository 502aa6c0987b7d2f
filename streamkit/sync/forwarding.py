"""Parcels are handed over to the async producer; each record is taken, or told why not."""

from __future__ import annotations

from streamkit.client import ManyHandle, RecordHandle
from streamkit.client.produce.producer import Producer
from streamkit.errors import NotFlushed
from streamkit.protocol.batch import Columns
from streamkit.sync.send_batch import Parcel, Part


class Handing:
    """Hands over the records of one producer. ``refusal`` is the first one that was not taken."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.refusal: Exception | None = None

    def take_refusal(self) -> Exception | None:
        """Return the first refusal since the last call."""
        refusal, self.refusal = self.refusal, None
        return refusal

    def gone(self) -> NotFlushed:
        """Return the error of a record that was accepted and never handed over."""
        return NotFlushed(
            f"the producer for {self._producer.topic!r} was closed before the record was sent"
        )

    async def hand_over(self, parcel: Parcel) -> None:
        """Hand over a parcel; it knows what became of each record, however this ends."""
        parts: list[Part] = []
        try:
            await self._hand_over_parts(parcel, parts)
        except Exception as error:  # whatever it is must reach whoever waits for the records
            self.refusal = self.refusal or error
            parcel.settle(parts, rest=error)
        except BaseException:
            parcel.settle(parts, rest=self.gone())
            raise
        else:
            parcel.settle(parts)

    async def _hand_over_parts(self, parcel: Parcel, parts: list[Part]) -> None:
        start = 0
        for row, partition in (*parcel.partitions.items(), (len(parcel), None)):
            if start < row:
                await self._together(parcel, start, row, parts)
            if partition is not None:
                parts.append((row, await self._to_partition(partition, parcel, row)))
            start = row + 1

    async def _together(self, parcel: Parcel, start: int, stop: int, parts: list[Part]) -> None:
        """Hand over neighbours in one call; where it refuses them, one after another."""
        many = ManyHandle(stop - start)
        parts.append((start, many))
        try:
            await self._producer.send_columns(_rows(parcel, start, stop), many)
        except Exception:
            if many.taken or stop - start == 1:
                raise
            parts.pop()  # a partitioner may have failed for one of them only
            for row in range(start, stop):
                parts.append((row, await self._alone(parcel, row)))

    async def _alone(self, parcel: Parcel, row: int) -> ManyHandle | Exception:
        one = ManyHandle(1)
        try:
            await self._producer.send_columns(_rows(parcel, row, row + 1), one)
        except Exception as error:
            self.refusal = self.refusal or error
            return error
        return one

    async def _to_partition(
        self, partition: int, parcel: Parcel, row: int
    ) -> RecordHandle | Exception:
        try:
            return await self._producer.send(
                parcel.values[row],
                parcel.keys[row],
                timestamp_ms=parcel.timestamps_ms[row],
                partition=partition,
            )
        except Exception as error:
            self.refusal = self.refusal or error
            return error


def _rows(parcel: Parcel, start: int, stop: int) -> Columns:
    return Columns(
        parcel.values[start:stop], parcel.keys[start:stop], parcel.timestamps_ms[start:stop]
    )
