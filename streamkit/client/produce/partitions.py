"""The partitions of a topic as a producer sees them, and which one a record goes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from streamkit.client import checks
from streamkit.client.metadata import MetadataStore
from streamkit.client.options import Partitioner, ProducerOptions
from streamkit.client.produce.partition_sender import PartitionSender
from streamkit.errors import UsageError
from streamkit.protocol import codec

UNKNOWN: Final = -1


class Partitions:
    """There may be more of them later. ``layout`` is that of the metadata when it was looked at."""

    def __init__(
        self,
        topic: str,
        options: ProducerOptions,
        metadata: MetadataStore,
        new_sender: Callable[[int], PartitionSender],
    ) -> None:
        self._topic = topic
        self._options = options
        self._metadata = metadata
        self._new_sender = new_sender
        self.senders: list[PartitionSender] = []
        self.count = 0
        self.layout = UNKNOWN
        self._online: Sequence[int] = ()
        self._only: int | None = options.partition
        self._turn = 0

    def learn(self) -> None:
        """Take note of partitions that are new, and of those nobody can write to now."""
        self.layout = self._metadata.layout
        count = self._metadata.partition_count(self._topic)
        if count != self.count:
            self.grow(count)
        offline = self._metadata.offline_partitions(self._topic)
        # Where none is online, all are as good as any.
        everything = range(self.count)
        self._only = self._options.partition
        if self._only is None and self.count == 1 and self._options.partitioner is None:
            self._only = 0
        self._online = [number for number in everything if number not in offline] or everything

    def grow(self, count: int) -> None:
        """Learn how many there are.

        Raises:
            UsageError: The one that everything is for is not among them.
        """
        for number in range(len(self.senders), count):
            self.senders.append(self._new_sender(number))
        fixed = self._options.partition
        if not count:
            return  # a store that is being filled again knows nothing for a moment
        if fixed is not None and fixed >= count:
            raise self._no_partition(fixed)
        self.count = count

    def named(self, partition: object) -> int:
        """Return the number of a partition that a caller names.

        Raises:
            UsageError: There is no such partition.
        """
        number = checks.whole("partition", partition, -checks.I64_MAX, checks.I64_MAX)
        if not 0 <= number < len(self.senders):
            raise self._no_partition(number)
        return number

    def choose(self, key: bytes | None) -> int:
        """Return the partition for one record."""
        if self._only is not None:
            return self._only
        options = self._options
        if options.partitioner is not None:
            return self._chosen_by(options.partitioner, (key,))[0]
        if key is not None:
            return codec.siphash(key) % self.count
        chosen = self._online[self._turn % len(self._online)]
        self._turn = (self._turn + 1) & 0xFFFFFFFF
        return self._next_with_room(chosen) if self.senders[chosen].is_full else chosen

    def _next_with_room(self, full: int) -> int:
        """Return an online partition that has room: a record without a key need not wait.

        Where all are full, it waits for the one whose turn it was.
        """
        at = self._online.index(full)
        for number in (*self._online[at:], *self._online[:at]):
            if not self.senders[number].is_full:
                return number
        return full

    def chosen(self, keys: list[bytes | None]) -> list[int] | None:
        """Ask the user's partitioner for all rows, before any is taken: it may fail."""
        if self._options.partitioner is None or self.count == 1:
            return None
        return self._chosen_by(self._options.partitioner, keys)

    def choose_rows(self, keys: list[bytes | None]) -> Sequence[int]:
        """Return the partition for each record of a column, without the user's partitioner."""
        if len(self._online) < self.count or any(each.is_full for each in self.senders):
            return [self.choose(key) for key in keys]
        chosen, self._turn = codec.partition_rows(keys, self.count, self._turn)
        return chosen

    def _chosen_by(self, partitioner: Partitioner, keys: Sequence[bytes | None]) -> list[int]:
        """Ask a partitioner of the user's.

        Raises:
            UsageError: It returns something else than the number of a partition for each key.
        """
        chosen = checks.listed("the partitioner's result", partitioner(keys, self.count))
        if len(chosen) != len(keys):
            raise UsageError(f"the partitioner chose {len(chosen)} partitions for {len(keys)} keys")
        if set(map(type, chosen)) - {int}:
            bounds = (-checks.I64_MAX, checks.I64_MAX)
            chosen = [checks.whole("the partitioner's choice", each, *bounds) for each in chosen]
        if chosen and not 0 <= min(chosen) <= max(chosen) < len(self.senders):
            low = min(chosen)
            raise self._no_partition(low if low < 0 else max(chosen))
        return chosen

    def _no_partition(self, number: int) -> UsageError:
        return UsageError(
            f"topic {self._topic!r} has no partition {number}, it has {len(self.senders)}"
        )
