"""The checks of a new topic by the SC. Pure.

Source: docs/protocol/admin.md, "Names and limits" and "Checks of a new topic". The order of the
checks is part of the protocol.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from streamkit.broker.module_names import parse_module_name
from streamkit.limits import (
    PARTITION_BYTES_MIN,
    PARTITIONS_MAX,
    RETENTION_S_MIN,
    SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MIN,
    TOPIC_NAME_BYTES_MAX,
    TOPICS_MAX,
)
from streamkit.protocol.connection import SEMVER
from streamkit.protocol.error_codes import Code, ErrorCode, TextPayload
from streamkit.protocol.topic_specs import AssignedReplicas, ComputedReplicas, TopicSpec

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_MODULE_NAME = re.compile(rf"(?:[^/@\s]+/)?[^/@\s]+(?:@{SEMVER.pattern})?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The response to a refused request. ``name`` is the object that the error is about."""

    name: str
    error: ErrorCode
    message: str | None = None


def check_topic_name(name: str) -> str | None:
    """Return the error of an invalid name, or None."""
    if len(name.encode()) > TOPIC_NAME_BYTES_MAX:
        return (
            f"Invalid topic name: '{name}'. "
            f"Name exceeds max characters allowed {TOPIC_NAME_BYTES_MAX}"
        )
    if not _NAME.fullmatch(name):
        return (
            f"Invalid topic name: '{name}'. Contain only lowercase alphanumeric characters or '-'"
        )
    return None


def check_new_topic(
    name: str,
    spec: TopicSpec,
    *,
    topics: Collection[str],
    partitions_used: int,
    spu_id: int,
    modules: Collection[str] = (),
) -> Refusal | None:
    """Return why a topic cannot be created, or None.

    Args:
        name: Name of the new topic.
        spec: Requested spec.
        topics: Names in use.
        partitions_used: Number of partitions that the broker already has.
        spu_id: Id of the only SPU.
        modules: Names under which SmartModules are stored.
    """
    if wrong := check_topic_name(name):
        return Refusal(name, ErrorCode(Code.TOPIC_INVALID_NAME), wrong)
    if name in topics:
        return Refusal(name, ErrorCode(Code.TOPIC_ALREADY_EXISTS), f"Topic '{name}' already exists")
    if wrong := _storage_problem(spec):
        return Refusal(name, ErrorCode(Code.TOPIC_INVALID_CONFIGURATION), wrong)
    if spec.deduplication is not None:
        return _deduplication_refusal(spec.deduplication.uses, modules)
    if wrong := _replicas_problem(spec, spu_id):
        return Refusal(name, ErrorCode(Code.TOPIC_ERROR), wrong)
    if len(topics) >= TOPICS_MAX:
        return Refusal(name, ErrorCode(Code.TOPIC_ERROR), f"{TOPICS_MAX} topics already exist")
    if partitions_used + spec.partition_count > PARTITIONS_MAX:
        return Refusal(
            name, ErrorCode(Code.TOPIC_ERROR), f"more than {PARTITIONS_MAX} partitions in total"
        )
    if isinstance(spec.replicas, ComputedReplicas) and spec.replicas.replication_factor > 1:
        count = spec.replicas.partitions
        return Refusal(
            name, ErrorCode(Code.TOPIC_NOT_PROVISIONED), f"only 0 out of {count} provisioned"
        )
    return None


def _storage_problem(spec: TopicSpec) -> str | None:
    if spec.cleanup_policy and spec.cleanup_policy.time_in_seconds < RETENTION_S_MIN:
        seconds = spec.cleanup_policy.time_in_seconds
        return f"retention_secs {seconds} is less than minimum {RETENTION_S_MIN}"
    if spec.storage is None:
        return None
    segment = spec.storage.segment_size_bytes
    if segment is not None and segment < SEGMENT_BYTES_MIN:
        return f"segment_size {segment} is less than minimum {SEGMENT_BYTES_MIN}"
    partition = spec.storage.max_partition_size_bytes
    if partition is None:
        return None
    if partition < PARTITION_BYTES_MIN:
        return f"max_partition_size {partition} is less than minimum {PARTITION_BYTES_MIN}"
    segment = SEGMENT_BYTES_DEFAULT if segment is None else segment
    if partition < segment:
        return f"max_partition_size {partition} is less than segment size {segment}"
    return None


def _deduplication_refusal(module: str, modules: Collection[str]) -> Refusal:
    """Return why deduplication is refused: the broker stores SmartModules but runs none."""
    if not _MODULE_NAME.fullmatch(module):
        text = f"invalid module name: {module!r}"
        return Refusal(
            module, ErrorCode(Code.DEDUPLICATION_SMARTMODULE_NAME_INVALID, TextPayload(text)), text
        )
    if parse_module_name(module).key in modules:
        # A topic without deduplication is not what the client requested.
        text = "the embedded broker does not run SmartModules yet, so it cannot deduplicate"
        return Refusal(module, ErrorCode(Code.DEDUPLICATION_SMARTMODULE_NOT_LOADED), text)
    text = (
        "Deduplication SmartModule is not loaded into the cluster\n"
        f"Hint: try `fluvio hub sm download {module}` and repeat this operation"
    )
    return Refusal(module, ErrorCode(Code.DEDUPLICATION_SMARTMODULE_NOT_LOADED), text)


def _replicas_problem(spec: TopicSpec, spu_id: int) -> str | None:
    match spec.replicas:
        case ComputedReplicas(partitions=0):
            return "partition must be greater than 0"
        case ComputedReplicas(replication_factor=0):
            return "replication factor must be greater than 0"
        case ComputedReplicas():
            return None
        case AssignedReplicas():
            return _assignment_problem(spec.replicas, spu_id)
        case _:
            return "mirror topics need a cluster"


def _assignment_problem(assigned: AssignedReplicas, spu_id: int) -> str | None:
    maps = assigned.maps
    if not maps:
        return "no assigned partitions found"
    if maps[0].id != 0:
        return "assigned partitions must start with id 0"
    width = len(maps[0].replicas)
    for position, each in enumerate(maps):
        if not each.replicas:
            return "assigned replicas must have at least one spu id"
        if each.id != position:
            return "assigned partition ids must be in sequence and without gaps"
        if len(each.replicas) != width:
            return f"all assigned replicas must have the same number of spu ids: {width}"
        if len(set(each.replicas)) != width:
            return f"duplicate spu ids found in assigned partition with id: {each.id}"
        if negative := [spu for spu in each.replicas if spu < 0]:
            return f"invalid spu id: {negative[0]} in assigned partition with id: {each.id}"
    unknown = [spu for each in maps for spu in each.replicas if spu != spu_id]
    return f"invalid spu id: {unknown[0]}" if unknown else None
