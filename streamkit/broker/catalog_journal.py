"""What the journal keeps: topics, SmartModules, and how far each partition is durable.

Order: sync the data, write the entry, acknowledge. So the journal is never ahead of the
data, and after a power cut at most one group behind.
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
    """A topic is there, or has more partitions than before. ``spec`` is its wire form."""

    name: str
    incarnation: str
    spec: bytes


class TopicDropped(msgspec.Struct, tag="gone", frozen=True):
    name: str


class SmartModuleCreated(msgspec.Struct, tag="module", frozen=True):
    """A SmartModule is there, in a file of its own, in place of one of that name."""

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
    """The journal and the table it adds up to. Belongs to the writer's thread once started."""

    def __init__(self, disk: Disk, path: Path, *, is_durable: bool) -> None:
        self._journal = Journal(disk, path)
        self._is_durable = is_durable
        self._topics: dict[str, TopicCreated] = {}
        self._modules: dict[str, SmartModuleCreated] = {}
        self._ends: dict[tuple[str, int], LogEnd] = {}

    @property
    def is_dirty(self) -> bool:
        """Whether there are entries that a sync would make durable."""
        return self._is_durable and self._journal.is_dirty

    @property
    def failure(self) -> OSError | None:
        """Why nothing can be noted any more, if that is so."""
        return self._journal.failure

    def open(self) -> bool:
        """Read every entry. Tell whether all of the file was sound.

        Raises:
            StateError: The file is of another format.
        """
        content = self._journal.open()
        decoder = msgspec.json.Decoder(Entry)
        for payload in content.entries:
            match decoder.decode(payload):
                case TopicCreated() as made:
                    self._topics[made.name] = made
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
            (made.name, made.incarnation, decode(specs.TOPIC.spec, made.spec, ADMIN_VERSION))
            for made in self._topics.values()
        ]

    def modules(self) -> list[SmartModuleCreated]:
        """Return what is known of every SmartModule."""
        return list(self._modules.values())

    def end_of(self, incarnation: str, partition: int) -> LogEnd | None:
        """Return how far a partition was durable; None where nothing was ever noted."""
        return self._ends.get((incarnation, partition))

    def note_topic(self, name: str, incarnation: str, spec: TopicSpec) -> None:
        """Keep, durably, that a topic exists as it is now."""
        made = TopicCreated(name, incarnation, encode(specs.TOPIC.spec, spec, ADMIN_VERSION))
        self._append(made)
        self._topics[name] = made
        self.sync()

    def note_gone(self, name: str) -> None:
        """Keep, durably, that a topic does not exist any more."""
        self._append(TopicDropped(name))
        self._topics.pop(name, None)
        self.sync()

    def note_module(self, made: SmartModuleCreated) -> SmartModuleCreated | None:
        """Keep, durably, that a module exists; return the one it takes the place of."""
        self._append(made)
        before = self._modules.get(made.name)
        self._modules[made.name] = made
        self.sync()
        return before

    def note_module_gone(self, name: str) -> SmartModuleCreated:
        """Keep, durably, that a module does not exist any more; return what was known of it."""
        self._append(SmartModuleDeleted(name))
        before = self._modules.pop(name)
        self.sync()
        return before

    def make_room(self, logs: int) -> None:
        """See to it that `note_ends` of so many logs finds room on any disk.

        Raises:
            OSError: There is none.
        """
        self._journal.make_room((1 + logs) * _ROW_BYTES_MAX)

    def note_ends(self, ends: dict[PartitionLog, LogEnd]) -> None:
        """Keep what a sync has made durable. The entry itself is synced later."""
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
        if self._journal.wants_compaction:
            self._compact()
        self._journal.append(msgspec.json.encode(entry))

    def _compact(self) -> None:
        try:
            self._journal.replace_all(self._table())
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            # The long file does as well, until there is room for another one.

    def _table(self) -> list[bytes]:
        """Return entries that say everything, without what belongs to topics long gone."""
        living = {made.incarnation for made in self._topics.values()}
        self._ends = {key: end for key, end in self._ends.items() if key[0] in living}
        rows = [
            (incarnation, partition, end.offset, end.segment, end.position)
            for (incarnation, partition), end in self._ends.items()
        ]
        entries = [*self._topics.values(), *self._modules.values(), *_entries_of(rows)]
        return [msgspec.json.encode(each) for each in entries]


def _entries_of(rows: list[tuple[str, int, int, int, int]]) -> list[Ends]:
    """Cut a long list into entries that are read again."""
    starts = range(0, len(rows), _ROWS_PER_ENTRY_MAX)
    return [Ends(rows[start : start + _ROWS_PER_ENTRY_MAX]) for start in starts]
