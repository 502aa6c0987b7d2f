"""From what a user asks of a new topic to its spec. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from streamkit.client import checks
from streamkit.errors import UsageError
from streamkit.limits import MAP_ENTRIES_MAX, TOPIC_NAME_BYTES_MAX
from streamkit.protocol import topic_specs
from streamkit.protocol.connection import SEMVER
from streamkit.protocol.smartmodules import Duration
from streamkit.protocol.topic_specs import (
    AssignedReplicas,
    ComputedReplicas,
    HomeMirror,
    HomePartition,
    MirrorReplicas,
    PartitionMap,
    Replicas,
    SegmentPolicy,
    TopicCompression,
    TopicSpec,
    TopicStorage,
)

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_U64_MAX: Final = 2**64 - 1
# What Fluvio's own documentation deduplicates with.
DEDUP_FILTER: Final = "infinyon-labs/dedup-filter@0.0.2"


@dataclass(frozen=True, slots=True)
class Deduplication:
    """What a topic does about records that it has seen before.

    Args:
        count: Among how many earlier records one counts as seen.
        age: Seconds, or a timedelta: only those younger than that.
        filter: The SmartModule that decides; the cluster must have it.
        params: What the module takes besides.
    """

    count: int = 5
    age: float | timedelta | None = None
    filter: str = DEDUP_FILTER
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def age_s(self) -> float | None:
        return self.age.total_seconds() if isinstance(self.age, timedelta) else self.age

    @classmethod
    def of(cls, found: topic_specs.Deduplication) -> Deduplication:
        """Read what a spec says."""
        age = found.age
        age_s = None if age is None else age.seconds + age.nanoseconds / 1_000_000_000
        return cls(found.count, age_s, found.uses, dict(found.params))

    def as_spec(self) -> topic_specs.Deduplication:
        """Write it as a spec has it.

        Raises:
            UsageError: A value means nothing.
        """
        count = checks.whole("count", self.count, 1, _U64_MAX)
        age_s = checks.optional(checks.seconds, "age", self.age, float(checks.U32_MAX))
        age = None if age_s is None else _duration(age_s)
        uses = checks.text("filter", self.filter)
        params = checks.pairs("params", self.params, MAP_ENTRIES_MAX)
        return topic_specs.Deduplication(count, age, uses, params)


def check_name(name: str, what: str) -> None:
    """Refuse the name of a new topic or SmartModule that servers or other clients refuse.

    Raises:
        UsageError: The text has the rule. Source: client semantics reference, 5.1.
    """
    if not isinstance(name, str):
        checks.refuse(f"the name of a {what}", name, "text")
    if len(name.encode(errors="replace")) > TOPIC_NAME_BYTES_MAX:
        wrong = f"it has {len(name.encode(errors='replace'))} characters"
    elif not _NAME.fullmatch(name):
        wrong = "it is empty" if not name else _first_wrong(name)
    else:
        return
    raise UsageError(
        f"no {what} can be called {name!r}: {wrong}",
        hint=f"1 to {TOPIC_NAME_BYTES_MAX} of a-z, 0-9 and -, not at the beginning or end a -",
    )


def check_module_name(text: str) -> None:
    """Refuse what stands for a SmartModule but makes a stock SC close the connection.

    Raises:
        UsageError: What follows the ``@`` is no version.
    """
    _, at, version = checks.text("name", text).partition("@")
    if at and not SEMVER.fullmatch(version):
        raise UsageError(
            f"SmartModule {text!r}: {version!r} is no version", hint="such as group/name@0.1.0"
        )


def topic_spec(
    partitions: int = 1,
    *,
    replication: int = 1,
    ignore_rack: bool = False,
    assignment: Sequence[Sequence[int]] | None = None,
    mirror: Replicas | None = None,
    retention: float | timedelta | None = None,
    segment_size_bytes: int | None = None,
    max_partition_size_bytes: int | None = None,
    compression: str = "any",
    deduplication: Deduplication | None = None,
    system: bool = False,
) -> TopicSpec:
    """Describe a topic for Create; arguments as of `streamkit.client.Admin.create_topic`.

    Raises:
        UsageError: A value means nothing.
    """
    u32 = checks.U32_MAX
    retention_s = checks.optional(checks.seconds, "retention", retention, float(u32))
    segment_size_bytes = checks.optional(
        checks.whole, "segment_size_bytes", segment_size_bytes, 0, u32
    )
    max_partition_size_bytes = checks.optional(
        checks.whole, "max_partition_size_bytes", max_partition_size_bytes, 0, _U64_MAX
    )
    has_storage = segment_size_bytes is not None or max_partition_size_bytes is not None
    if mirror is not None and assignment is not None:
        raise UsageError("a mirror topic has no assignment of its own")
    if assignment is None:
        replicas = mirror or computed(partitions, replication, ignore_rack=ignore_rack)
    else:
        replicas = assigned(assignment)
    dedup = checks.optional(checks.instance, "deduplication", deduplication, Deduplication)
    return TopicSpec(
        replicas,
        None if retention_s is None else SegmentPolicy(int(retention_s)),
        TopicStorage(segment_size_bytes, max_partition_size_bytes) if has_storage else None,
        parse_compression(compression),
        None if dedup is None else dedup.as_spec(),
        checks.flag("system", system),
    )


def computed(partitions: int, replication: int, *, ignore_rack: bool = False) -> Replicas:
    """Leave it to the SC which SPUs have the partitions.

    Raises:
        UsageError: A number does not fit.
    """
    return ComputedReplicas(
        checks.whole("partitions", partitions, 0, checks.U32_MAX),
        checks.whole("replication", replication, 0, checks.U32_MAX),
        checks.flag("ignore_rack", ignore_rack),
    )


def assigned(assignment: Sequence[Sequence[int]]) -> Replicas:
    """Name the SPUs of each partition; the first one leads it.

    Raises:
        UsageError: A number is none of an SPU.
    """
    maps = []
    for number, given in enumerate(checks.listed("assignment", assignment)):
        name = f"assignment[{number}]"
        spus = [checks.whole(name, spu, 0, checks.I32_MAX) for spu in checks.listed(name, given)]
        maps.append(PartitionMap(number, tuple(spus)))
    return AssignedReplicas(tuple(maps))


def mirrored(topic: str, remotes: Sequence[str], *, home_to_remote: bool = False) -> Replicas:
    """Give each remote cluster a partition, filled from there, or copied to there."""
    checks.flag("home_to_remote", home_to_remote)
    names = [checks.text("mirrors", remote) for remote in checks.listed("mirrors", remotes)]
    partitions = tuple(HomePartition(remote, f"{topic}-0", home_to_remote) for remote in names)
    return MirrorReplicas(HomeMirror(partitions, home_to_remote))


def parse_compression(name: str) -> TopicCompression:
    """Read what a topic asks of its batches.

    Raises:
        UsageError: There is no such compression.
    """
    try:
        return TopicCompression[name.upper()]
    except (KeyError, AttributeError):
        known = ", ".join(each.name.lower() for each in TopicCompression)
        raise UsageError(f"no compression is called {name!r}", hint=f"use {known}") from None


def _first_wrong(name: str) -> str:
    for position, letter in enumerate(name):
        is_good = "a" <= letter <= "z" or "0" <= letter <= "9" or letter == "-"
        if not is_good:
            return f"{letter!r} at position {position + 1}"
    return "a - at its beginning or end"


def _duration(seconds: float) -> Duration:
    nanoseconds = round(seconds * 1_000_000_000)
    return Duration(*divmod(nanoseconds, 1_000_000_000))
