"""What is known of topics, partitions and SPUs: a copy kept by the SC's watches. Pure."""

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

    Unlike the stock client's, a store with an empty first list counts as filled. ``layout``
    is another number whenever a topic, an SPU, or a partition's leader or state has changed;
    offsets, which move all the time, do not count.
    """

    layout: int = 0

    _objects: dict[str, dict[str, Metadata]] = field(
        default_factory=lambda: {kind.name: {} for kind in WATCHED}
    )
    _filled: set[str] = field(default_factory=set)

    @property
    def is_filled(self) -> bool:
        """Whether every watch has had its first answer."""
        return len(self._filled) == len(WATCHED)

    def apply(self, response: WatchResponse) -> None:
        """Take a watch response: the full list, or what has changed."""
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
        """Learn that the watches have ended; what is known may be stale until they are back."""
        self._filled.clear()

    def topic(self, name: str) -> Metadata | None:
        return self._objects[specs.TOPIC.name].get(name)

    def topic_names(self) -> list[str]:
        return sorted(self._objects[specs.TOPIC.name])

    def partition(self, topic: str, number: int) -> Metadata | None:
        return self._objects[specs.PARTITION.name].get(f"{topic}-{number}")

    def partition_count(self, topic: str) -> int:
        """Return the count that every client goes by: the one in the topic's spec."""
        found = self.topic(topic)
        return 0 if found is None else int(found.spec.partition_count)

    def segment_bytes(self, topic: str) -> int | None:
        """Return the size of a segment where the topic's spec names one; no batch may be larger."""
        found = self.topic(topic)
        storage = None if found is None else found.spec.storage
        return None if storage is None else storage.segment_size_bytes

    def offline_partitions(self, topic: str) -> frozenset[int]:
        """Return the partitions of a topic that the SC says nobody can write to now."""
        found = ((n, self.partition(topic, n)) for n in range(self.partition_count(topic)))
        return frozenset(
            number
            for number, each in found
            if each is not None and each.status.resolution is not specs.PartitionResolution.ONLINE
        )

    def leader_address(
        self, topic: str, number: int, *, local: bool, domain: str | None = None
    ) -> str | None:
        """Return ``host:port`` of the SPU that leads a partition; None while it is unknown.

        With a domain it is ``name@host:port``, where name is the SPU's within the domain.
        Source: control plane reference, 2.4 and 6.3.
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
        """Return a sentence that helps with a name no topic has."""
        names = [name for name in self.topic_names() if not self._is_system(name)]
        close = difflib.get_close_matches(topic, names, 1, 0.6)
        if close:
            return f"did you mean {close[0]!r}?"
        return f"there are: {', '.join(names[:8])}" if names else "there are no topics yet"

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
