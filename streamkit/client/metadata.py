"""The client's copy of topics, partitions and SPUs, kept up to date by watches of the SC. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from streamkit.protocol import specs
from streamkit.protocol.control_plane import Metadata, WatchResponse
from streamkit.protocol.specs import ObjectKind

WATCHED: tuple[ObjectKind, ...] = (specs.SPU, specs.PARTITION, specs.TOPIC)


@dataclass(slots=True)
class MetadataStore:
    """Objects by kind and name.

    An empty first list counts as filled, unlike in the stock client. ``layout`` increases
    whenever a topic, an SPU, or the leader or state of a partition changes. Offsets change all
    the time and do not count.
    """

    layout: int = 0

    _objects: dict[str, dict[str, Metadata]] = field(
        default_factory=lambda: {kind.name: {} for kind in WATCHED}
    )
    _filled: set[str] = field(default_factory=set)

    @property
    def is_filled(self) -> bool:
        """Whether every watch has received its first response."""
        return len(self._filled) == len(WATCHED)

    def apply(self, response: WatchResponse) -> None:
        """Apply a watch response: the full list, or the changes."""
        name = response.kind.name
        if response.all or name not in self._filled:
            self._objects[name] = {item.name: item for item in response.all}
            self._filled.add(name)
            self.layout += 1
        objects = self._objects[name]
        for change in response.changes:
            before = objects.get(change.item.name)
            if change.is_delete:
                objects.pop(change.item.name, None)
            else:
                objects[change.item.name] = change.item
            if change.is_delete or before is None or not _only_offsets_differ(before, change.item):
                self.layout += 1

    def forget(self) -> None:
        """Mark the store as not filled, because the watches have ended and it may be stale."""
        self._filled.clear()

    def topic(self, name: str) -> Metadata | None:
        return self._objects[specs.TOPIC.name].get(name)

    def topic_names(self) -> list[str]:
        return sorted(self._objects[specs.TOPIC.name])

    def partition(self, topic: str, number: int) -> Metadata | None:
        return self._objects[specs.PARTITION.name].get(f"{topic}-{number}")

    def partition_count(self, topic: str) -> int:
        """Return the number of partitions from the topic's spec, as every client does."""
        found = self.topic(topic)
        return 0 if found is None else int(found.spec.partition_count)

    def segment_bytes(self, topic: str) -> int | None:
        """Return the segment size if the topic's spec has one; no batch may be larger."""
        found = self.topic(topic)
        storage = None if found is None else found.spec.storage
        return None if storage is None else storage.segment_size_bytes

    def offline_partitions(self, topic: str) -> frozenset[int]:
        """Return the partitions of a topic that the SC does not report as online."""
        found = ((n, self.partition(topic, n)) for n in range(self.partition_count(topic)))
        return frozenset(
            number
            for number, each in found
            if each is not None and each.status.resolution is not specs.PartitionResolution.ONLINE
        )

    def leader_address(
        self, topic: str, number: int, *, local: bool, domain: str | None = None
    ) -> str | None:
        """Return ``host:port`` of the SPU that leads a partition; None if it is not known yet.

        With a domain the result is ``name@host:port``; the name is that of the SPU in the domain.
        Source: docs/protocol/admin.md, "The address of an SPU".
        """
        partition = self.partition(topic, number)
        if partition is None:
            return None
        for spu in self._objects[specs.SPU.name].values():
            if spu.spec.id == partition.spec.leader:
                address = _address_of(spu.spec, local=local)
                return f"{spu.name}.{domain}@{address}" if domain and address else address
        return None

    def did_you_mean(self, topic: str) -> str:
        """Return a hint for a topic name that does not exist."""
        names = [name for name in self.topic_names() if not self._is_system(name)]
        close = difflib.get_close_matches(topic, names, 1, 0.6)
        if close:
            return f"did you mean {close[0]!r}?"
        return f"existing topics: {', '.join(names[:8])}" if names else "there are no topics yet"

    def _is_system(self, name: str) -> bool:
        found = self.topic(name)
        return found is not None and bool(found.spec.system)


def _only_offsets_differ(before: Metadata, after: Metadata) -> bool:
    return (
        isinstance(after.status, specs.PartitionStatus)
        and before.spec == after.spec
        and before.status.resolution is after.status.resolution
    )


def _address_of(spec: specs.SpuSpec, *, local: bool) -> str | None:
    if local and spec.public_endpoint_local is not None:
        return f"{spec.public_endpoint_local.host}:{spec.public_endpoint_local.port}"
    if not spec.public_endpoint.ingress:
        return None
    first = spec.public_endpoint.ingress[0]
    return f"{first.hostname or first.ip}:{spec.public_endpoint.port}"
