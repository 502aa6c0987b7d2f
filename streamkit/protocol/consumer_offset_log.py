"""Entries of the log in which a stock SPU stores consumer offsets: values of records without a key.

Source: docs/protocol/produce-and-fetch.md, "The log of consumer offsets".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from streamkit.protocol.data_plane import ReplicaKey
from streamkit.protocol.schema import I64, U64, Str, sized, struct, union


class OffsetKey(msgspec.Struct, frozen=True):
    replica: Annotated[ReplicaKey, struct(ReplicaKey)]
    consumer_id: Str


class StoredOffset(msgspec.Struct, frozen=True):
    """A stored offset: that of the last consumed record."""

    offset: I64
    modified_time_s: U64


class Updated(msgspec.Struct, frozen=True):
    key: Annotated[OffsetKey, sized(OffsetKey)]
    value: Annotated[StoredOffset, sized(StoredOffset)]


class Deleted(msgspec.Struct, frozen=True):
    key: Annotated[OffsetKey, sized(OffsetKey)]


class Checkpoint(msgspec.Struct, frozen=True):
    """Entries before a checkpoint are obsolete; all live entries follow it."""


Entry = Updated | Deleted | Checkpoint
ENTRY = union[Any]({0: Updated, 1: Deleted, 2: Checkpoint})
