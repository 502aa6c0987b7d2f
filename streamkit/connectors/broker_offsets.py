"""Positions of a job in a topic, and their copies on the broker."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from streamkit.client.consume.consumer import Consumer
from streamkit.dataflow.contracts import Positions
from streamkit.errors import StreamKitError


class Mark(msgspec.Struct, frozen=True):
    """A position in a partition, with timestamp and checksum of the record before it.

    They are None if nothing has been read yet.
    """

    next_offset: int
    timestamp_ms: int | None = None
    crc: int | None = None


encode_mark = msgspec.json.Encoder().encode
decode_mark = msgspec.json.Decoder(Mark).decode


class BrokerOffsets:
    """Copies of the positions as consumer offsets on the broker, under the app's name.

    Tools can show the lag from them. The broker has one offset per topic and partition, even if
    several sources read it, so it gets the lowest one: a job that has lost its state then reads
    some records again, but skips none.
    """

    def __init__(self, app: str) -> None:
        self.app = app
        self._next: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        self._stored: dict[tuple[str, int], int] = {}

    def update(self, source: str, topic: str, positions: Positions) -> None:
        """Remember the positions of a source."""
        for number, text in positions.items():
            self._next[topic, int(number)][source] = decode_mark(text).next_offset

    async def store(self, consumer: Consumer, topic: str, positions: Positions) -> None:
        """Store the changed positions; ignore failures, because the job's state has them too."""
        for number in map(int, positions):
            offset = min(self._next[topic, number].values())
            if offset == 0 or self._stored.get((topic, number)) == offset:
                continue
            try:
                await consumer.store(number, offset - 1)
            except StreamKitError:
                return
            self._stored[topic, number] = offset
