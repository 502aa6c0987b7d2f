"""Converts the options of a new topic to its spec. Pure."""

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
# The filter that Fluvio's documentation uses for deduplication.
DEDUP_FILTER: Final = "infinyon-labs/dedup-filter@0.0.2"


@dataclass(frozen=True, slots=True)
class Deduplication:
    """How a topic drops duplicate records.

    Args:
        count: How many of the last records a new one is compared with.
        age: Only compare with records younger than this, in seconds or as a timedelta.
        filter: The SmartModule that finds duplicates; it must exist in the cluster.
        params: Further parameters of the SmartModule.
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
        """Create a `Deduplication` from a spec."""
        age = found.age
        age_s = None if age is None else age.seconds + age.nanoseconds / 1_000_000_000
        return cls(found.count, age_s, found.uses, dict(found.params))

    def as_spec(self) -> topic_specs.Deduplication:
        """Return the spec of this deduplication.

        Raises:
            UsageError: A value is not valid.
        """
        count = checks.whole("count", self.count, 1, _U64_MAX)
        age_s = checks.optional(checks.seconds, "age", self.age, float(checks.U32_MAX))
        age = None if age_s is None else _duration(age_s)
        uses = checks.text("filter", self.filter)
        params = checks.pairs("params", self.params, MAP_ENTRIES_MAX)
        return topic_specs.Deduplication(count, age, uses, params)


def check_name(name: str, what: str) -> None:
    """Refuse a name for a topic or SmartModule that servers or other clients would refuse.

    Raises:
        UsageError: The hint shows the rule. Source: docs/protocol/admin.md, "Names and limits".
    """
    if not isinstance(name, str):
        checks.refuse(f"the name of a {what}", name, "text")
    if len(name.encode(errors="replace")) > TOPIC_NAME_BYTES_MAX:
        wrong = f"it has {len(name.encode(errors='replace'))} characters"
    elif not _NAME.fullmatch(name):
        wrong = "it is empty" if not name else _first_invalid(name)
    else:
        return
    raise UsageError(
        f"{name!r} is not a valid name for a {what}: {wrong}",
        hint=f"use 1 to {TOPIC_NAME_BYTES_MAX} characters: a-z, 0-9 and -, "
        "with no - at the start or end",
    )


def check_module_name(text: str) -> None:
    """Refuse the name of a SmartModule for which a stock SC closes the connection.

    Raises:
        UsageError: The part after the ``@`` is not a valid version.
    """
    _, at, version = checks.text("name", text).partition("@")
    if at and not SEMVER.fullmatch(version):
        raise UsageError(
            f"SmartModule {text!r}: {version!r} is not a valid version",
            hint="for example group/name@0.1.0",
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
    """Return the spec of a new topic; for the arguments see `streamkit.client.Admin.create_topic`.

    Raises:
        UsageError: A value is not valid.
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
        raise UsageError("mirrors and assignment cannot be used together")
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
    """Let the SC choose the SPUs of the partitions.

    Raises:
        UsageError: A number is out of range.
    """
    return ComputedReplicas(
        checks.whole("partitions", partitions, 0, checks.U32_MAX),
        checks.whole("replication", replication, 0, checks.U32_MAX),
        checks.flag("ignore_rack", ignore_rack),
    )


def assigned(assignment: Sequence[Sequence[int]]) -> Replicas:
    """Set the SPUs of each partition; the first one is its leader.

    Raises:
        UsageError: A number is not valid for an SPU.
    """
    maps = []
    for number, given in enumerate(checks.listed("assignment", assignment)):
        name = f"assignment[{number}]"
        spus = [checks.whole(name, spu, 0, checks.I32_MAX) for spu in checks.listed(name, given)]
        maps.append(PartitionMap(number, tuple(spus)))
    return AssignedReplicas(tuple(maps))


def mirrored(topic: str, remotes: Sequence[str], *, home_to_remote: bool = False) -> Replicas:
    """Use one partition for each remote cluster, copied from that cluster or to it."""
    checks.flag("home_to_remote", home_to_remote)
    names = [checks.text("mirrors", remote) for remote in checks.listed("mirrors", remotes)]
    partitions = tuple(HomePartition(remote, f"{topic}-0", home_to_remote) for remote in names)
    return MirrorReplicas(HomeMirror(partitions, home_to_remote))


def parse_compression(name: str) -> TopicCompression:
    """Return the compression that a topic requires, from its name.

    Raises:
        UsageError: The name is not that of a compression.
    """
    try:
        return TopicCompression[name.upper()]
    except (KeyError, AttributeError):
        known = ", ".join(each.name.lower() for each in TopicCompression)
        raise UsageError(f"{name!r} is not a valid compression", hint=f"use {known}") from None


def _first_invalid(name: str) -> str:
    for position, letter in enumerate(name):
        is_valid = "a" <= letter <= "z" or "0" <= letter <= "9" or letter == "-"
        if not is_valid:
            return f"it has {letter!r} at position {position + 1}"
    return "it has a - at the start or end"


def _duration(seconds: float) -> Duration:
    nanoseconds = round(seconds * 1_000_000_000)
    return Duration(*divmod(nanoseconds, 1_000_000_000))
