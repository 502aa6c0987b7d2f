"""The partitions of a producer's topic, and the choice of one for each record."""

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
    """The senders of all partitions. Partitions may be added later.

    ``layout`` is the layout number of the metadata when the partitions were last updated.
    """

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

    def refresh(self) -> None:
        """Update from the metadata: new partitions, and which of them are online."""
        self.layout = self._metadata.layout
        count = self._metadata.partition_count(self._topic)
        if count != self.count:
            self.grow(count)
        offline = self._metadata.offline_partitions(self._topic)
        # If none is online, all are used.
        every_partition = range(self.count)
        self._only = self._options.partition
        if self._only is None and self.count == 1 and self._options.partitioner is None:
            self._only = 0
        self._online = [n for n in every_partition if n not in offline] or every_partition

    def grow(self, count: int) -> None:
        """Create senders up to a number of partitions.

        Raises:
            UsageError: The producer is for a single partition that does not exist.
        """
        for number in range(len(self.senders), count):
            self.senders.append(self._new_sender(number))
        fixed = self._options.partition
        if not count:
            return  # the metadata is being loaded again, and is empty for a moment
        if fixed is not None and fixed >= count:
            raise self._no_partition(fixed)
        self.count = count

    def named(self, partition: object) -> int:
        """Check the number of a partition that a caller passed.

        Raises:
            UsageError: The partition does not exist.
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
        """Return an online partition that has room, so that a record without a key need not wait.

        If all are full, return the one whose turn it was.
        """
        at = self._online.index(full)
        for number in (*self._online[at:], *self._online[:at]):
            if not self.senders[number].is_full:
                return number
        return full

    def chosen(self, keys: list[bytes | None]) -> list[int] | None:
        """Call the user's partitioner for all rows, before any is queued: it may fail."""
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
        """Call the user's partitioner.

        Raises:
            UsageError: It does not return the number of a partition for each key.
        """
        chosen = checks.listed("the partitioner's result", partitioner(keys, self.count))
        if len(chosen) != len(keys):
            raise UsageError(
                f"the partitioner returned {len(chosen)} partitions for {len(keys)} keys"
            )
        if set(map(type, chosen)) - {int}:
            bounds = (-checks.I64_MAX, checks.I64_MAX)
            chosen = [checks.whole("the partitioner's choice", each, *bounds) for each in chosen]
        if chosen and not 0 <= min(chosen) <= max(chosen) < len(self.senders):
            low = min(chosen)
            raise self._no_partition(low if low < 0 else max(chosen))
        return chosen

    def _no_partition(self, number: int) -> UsageError:
        return UsageError(
            f"topic {self._topic!r} has no partition {number} "
            f"(partition count: {len(self.senders)})"
        )
