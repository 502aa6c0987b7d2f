"""Entries of the log in which a stock SPU stores consumer offsets: values of records without a key.

Source: docs/protocol/produce-and-fetch.md, "The log of consumer offsets".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from streamkit.protocol.data_plane import ReplicaKey
from streamkit.protocol.schema import I64, U64, Str, sized, struct, union


@dataclass(frozen=True, slots=True)
class OffsetKey:
    replica: Annotated[ReplicaKey, struct(ReplicaKey)]
    consumer_id: Str


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """A stored offset: that of the last consumed record."""

    offset: I64
    modified_time_s: U64


@dataclass(frozen=True, slots=True)
class Updated:
    key: Annotated[OffsetKey, sized(OffsetKey)]
    value: Annotated[StoredOffset, sized(StoredOffset)]


@dataclass(frozen=True, slots=True)
class Deleted:
    key: Annotated[OffsetKey, sized(OffsetKey)]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Entries before a checkpoint are obsolete; all live entries follow it."""


Entry = Updated | Deleted | Checkpoint
ENTRY = union[Any]({0: Updated, 1: Deleted, 2: Checkpoint})
