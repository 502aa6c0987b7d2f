"""The stored offsets of consumers, in their own journal; a crash never resets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from streamkit.broker.journal import FULL_DISK, Journal
from streamkit.env import Disk

Key = tuple[str, str, int]


class Stored(msgspec.Struct, tag="stored", frozen=True):
    """The entry of a stored position. ``offset`` is that of the last consumed record."""

    consumer: str
    topic: str
    partition: int
    incarnation: str
    offset: int
    time_s: int


class Dropped(msgspec.Struct, tag="dropped", frozen=True):
    consumer: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class ConsumerPosition:
    """The position of a consumer. It does not apply to a later topic of the same name."""

    offset: int
    time_s: int
    incarnation: str


class ConsumerOffsets:
    """Positions by consumer, topic and partition.

    `store` and `drop` run on the writer's thread and return when they are durable; the table
    is read on the event loop.
    """

    def __init__(self, disk: Disk, path: Path, *, is_durable: bool) -> None:
        self._journal = Journal(disk, path)
        self._is_durable = is_durable
        self.table: dict[Key, ConsumerPosition] = {}

    def open(self) -> bool:
        """Read the journal. Return whether all of it was valid."""
        content = self._journal.open()
        decoder = msgspec.json.Decoder(Stored | Dropped)
        for payload in content.entries:
            match decoder.decode(payload):
                case Stored(consumer, topic, partition, incarnation, offset, time_s):
                    position = ConsumerPosition(offset, time_s, incarnation)
                    self.table[consumer, topic, partition] = position
                case Dropped(consumer, topic, partition):
                    self.table.pop((consumer, topic, partition), None)
        return not content.is_damaged

    def store(self, key: Key, position: ConsumerPosition) -> None:
        """Store a position.

        Raises:
            OSError: It is not durable.
        """
        entry = Stored(*key, position.incarnation, position.offset, position.time_s)
        self._append(msgspec.json.encode(entry))
        self.table[key] = position

    def drop(self, keys: list[Key]) -> None:
        """Delete positions; unknown keys are ignored.

        Raises:
            OSError: It is not durable.
        """
        known = [key for key in keys if key in self.table]
        for key in known:
            self._append(msgspec.json.encode(Dropped(*key)), sync=False)
            del self.table[key]
        if known and self._is_durable:
            self._journal.sync()

    def close(self) -> None:
        self._journal.close()

    def _append(self, payload: bytes, *, sync: bool = True) -> None:
        if self._journal.needs_compaction:
            self._compact()
        self._journal.append(payload)
        if sync and self._is_durable:
            self._journal.sync()

    def _compact(self) -> None:
        try:
            self._journal.replace_all(
                msgspec.json.encode(Stored(*key, held.incarnation, held.offset, held.time_s))
                for key, held in list(self.table.items())
            )
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            # The long file is still valid; compaction is tried again at the next entry.
