"""The journal of topics, SmartModules and the durable end of each partition.

Order: sync the data, write the entry, acknowledge. So the journal is never ahead of the
data, and after a power cut it lacks at most one group.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from streamkit.broker.journal import FULL_DISK, Journal
from streamkit.broker.partition_log import LogEnd, PartitionLog
from streamkit.env import Disk
from streamkit.protocol import specs
from streamkit.protocol.apis import ADMIN_VERSION
from streamkit.protocol.schema import decode, encode
from streamkit.protocol.topic_specs import TopicSpec


class TopicCreated(msgspec.Struct, tag="topic", frozen=True):
    """A topic exists, or has more partitions than before. ``spec`` is its wire encoding."""

    name: str
    incarnation: str
    spec: bytes


class TopicDropped(msgspec.Struct, tag="gone", frozen=True):
    name: str


class SmartModuleCreated(msgspec.Struct, tag="module", frozen=True):
    """A SmartModule exists, in its own file; it replaces an earlier one of the same name."""

    name: str
    file: str
    size_bytes: int
    crc32c: int


class SmartModuleDeleted(msgspec.Struct, tag="module-gone", frozen=True):
    name: str


# One row is a name of up to 80 characters and four numbers.
_ROW_BYTES_MAX = 200
_ROWS_PER_ENTRY_MAX = 1_000


class Ends(msgspec.Struct, tag="ends", frozen=True):
    """Durable ends: incarnation and partition, offset, segment, position."""

    ends: list[tuple[str, int, int, int, int]]


Entry = TopicCreated | TopicDropped | SmartModuleCreated | SmartModuleDeleted | Ends


class CatalogJournal:
    """The journal, and the state that results from its entries.

    After the writer's thread has started, only that thread uses it.
    """

    def __init__(self, disk: Disk, path: Path, *, is_durable: bool) -> None:
        self._journal = Journal(disk, path)
        self._is_durable = is_durable
        self._topics: dict[str, TopicCreated] = {}
        self._modules: dict[str, SmartModuleCreated] = {}
        self._ends: dict[tuple[str, int], LogEnd] = {}

    @property
    def is_dirty(self) -> bool:
        """Whether some entries must still be synced; always false without fsync."""
        return self._is_durable and self._journal.is_dirty

    @property
    def failure(self) -> OSError | None:
        """The error after which the journal accepts no more entries, if any."""
        return self._journal.failure

    def open(self) -> bool:
        """Read every entry. Return whether the whole file was valid.

        Raises:
            StateError: The file has another format.
        """
        content = self._journal.open()
        decoder = msgspec.json.Decoder(Entry)
        for payload in content.entries:
            match decoder.decode(payload):
                case TopicCreated() as created:
                    self._topics[created.name] = created
                case TopicDropped(name):
                    self._topics.pop(name, None)
                case SmartModuleCreated() as module:
                    self._modules[module.name] = module
                case SmartModuleDeleted(name):
                    self._modules.pop(name, None)
                case Ends(ends):
                    for incarnation, partition, *end in ends:
                        self._ends[incarnation, partition] = LogEnd(*end)
        return not content.is_damaged

    def topics(self) -> list[tuple[str, str, TopicSpec]]:
        """Return name, incarnation and spec of every topic."""
        return [
            (
                created.name,
                created.incarnation,
                decode(specs.TOPIC.spec, created.spec, ADMIN_VERSION),
            )
            for created in self._topics.values()
        ]

    def modules(self) -> list[SmartModuleCreated]:
        """Return the entry of every SmartModule."""
        return list(self._modules.values())

    def end_of(self, incarnation: str, partition: int) -> LogEnd | None:
        """Return the durable end of a partition; None if it has no entry."""
        return self._ends.get((incarnation, partition))

    def store_topic(self, name: str, incarnation: str, spec: TopicSpec) -> None:
        """Store durably that a topic exists with this spec."""
        created = TopicCreated(name, incarnation, encode(specs.TOPIC.spec, spec, ADMIN_VERSION))
        self._append(created)
        self._topics[name] = created
        self.sync()

    def store_topic_deleted(self, name: str) -> None:
        """Store durably that a topic is deleted."""
        self._append(TopicDropped(name))
        self._topics.pop(name, None)
        self.sync()

    def store_module(self, created: SmartModuleCreated) -> SmartModuleCreated | None:
        """Store durably that a module exists; return the entry that it replaces."""
        self._append(created)
        before = self._modules.get(created.name)
        self._modules[created.name] = created
        self.sync()
        return before

    def store_module_deleted(self, name: str) -> SmartModuleCreated:
        """Store durably that a module is deleted; return its last entry."""
        self._append(SmartModuleDeleted(name))
        before = self._modules.pop(name)
        self.sync()
        return before

    def reserve_space(self, logs: int) -> None:
        """Reserve disk space for the ends of this many logs.

        Raises:
            OSError: The disk is full.
        """
        self._journal.reserve_space((1 + logs) * _ROW_BYTES_MAX)

    def store_ends(self, ends: dict[PartitionLog, LogEnd]) -> None:
        """Store the durable ends after a sync. The entry itself is synced later."""
        rows = [
            (log.incarnation, log.partition, end.offset, end.segment, end.position)
            for log, end in ends.items()
        ]
        for incarnation, partition, *end in rows:
            self._ends[incarnation, partition] = LogEnd(*end)
        for entry in _entries_of(rows):
            self._append(entry)

    def sync(self) -> None:
        """Return when every entry is on disk."""
        if self._is_durable:
            self._journal.sync()

    def close(self) -> None:
        self._journal.close()

    def _append(self, entry: Entry) -> None:
        if self._journal.needs_compaction:
            self._compact()
        self._journal.append(msgspec.json.encode(entry))

    def _compact(self) -> None:
        try:
            self._journal.replace_all(self._table())
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            # The long file is still valid; compaction is tried again at the next entry.

    def _table(self) -> list[bytes]:
        """Return entries for the current state, without the ends of deleted topics."""
        living = {created.incarnation for created in self._topics.values()}
        self._ends = {key: end for key, end in self._ends.items() if key[0] in living}
        rows = [
            (incarnation, partition, end.offset, end.segment, end.position)
            for (incarnation, partition), end in self._ends.items()
        ]
        entries = [*self._topics.values(), *self._modules.values(), *_entries_of(rows)]
        return [msgspec.json.encode(each) for each in entries]


def _entries_of(rows: list[tuple[str, int, int, int, int]]) -> list[Ends]:
    """Split a long list into entries below the size limit of the journal."""
    starts = range(0, len(rows), _ROWS_PER_ENTRY_MAX)
    return [Ends(rows[start : start + _ROWS_PER_ENTRY_MAX]) for start in starts]
