"""ApiVersions, and Create, Delete, List, Watch and Update of the SC.

Since version 11 every body is in an envelope: the object type as text, a u32 length, then the
body. In older versions Create has a number instead of the text, and no body has a length.

Source: docs/protocol/admin.md.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from streamkit.protocol.error_codes import NO_ERROR, ErrorCodeField
from streamkit.protocol.schema import (
    I16,
    STRING,
    U32,
    Bool,
    Str,
    option,
    since,
    vec,
)
from streamkit.protocol.specs import ObjectKind

# --- ApiVersions -----------------------------------------------------------


class ApiVersionsRequest(msgspec.Struct, frozen=True):
    client_version: Annotated[Str, since(1)] = ""
    client_os: Annotated[Str, since(1)] = ""
    client_arch: Annotated[Str, since(1)] = ""


class ApiRange(msgspec.Struct, frozen=True):
    api_key: I16
    min_version: I16
    max_version: I16


class ApiVersionsResponse(msgspec.Struct, frozen=True):
    error: ErrorCodeField
    api_keys: Annotated[tuple[ApiRange, ...], vec(ApiRange)]
    platform_version: Str


# --- Objects ---------------------------------------------------------------


class Metadata(msgspec.Struct, frozen=True):
    """One object: its name, its desired state (spec) and its actual state (status)."""

    name: str
    spec: Any
    status: Any


class StatusResponse(msgspec.Struct, frozen=True):
    """The response to Create, Delete and Update."""

    name: Str
    error: ErrorCodeField = NO_ERROR
    error_message: Annotated[str | None, option(STRING)] = None


class CreateRequest(msgspec.Struct, frozen=True):
    kind: ObjectKind
    name: str
    spec: Any
    dry_run: bool = False
    timeout_ms: int | None = None


class SpuName(msgspec.Struct, frozen=True):
    """Identifies a custom SPU by its object name."""

    name: str


class SpuId(msgspec.Struct, frozen=True):
    """Identifies a custom SPU by its number."""

    id: int


class DeleteRequest(msgspec.Struct, frozen=True):
    kind: ObjectKind
    key: str | SpuName | SpuId
    force: bool = False


class UnknownObject(msgspec.Struct, frozen=True):
    """A Create, Delete or Update of an unknown object type. Servers respond with an error."""

    kind: str
    body: bytes


class ListRequest(msgspec.Struct, frozen=True):
    kind: ObjectKind
    filters: tuple[str, ...] = ()
    summary: bool = False
    system: bool = False


class ListResponse(msgspec.Struct, frozen=True):
    kind: ObjectKind
    items: tuple[Metadata, ...]


class WatchRequest(msgspec.Struct, frozen=True):
    kind: ObjectKind
    epoch: int = 0
    summary: bool = False


class Change(msgspec.Struct, frozen=True):
    """One object of a delta. For a deleted object only the name is meaningful."""

    item: Metadata
    is_delete: bool = False


class WatchResponse(msgspec.Struct, frozen=True):
    """Either the full list or the changes since the last message."""

    kind: ObjectKind
    epoch: int
    changes: tuple[Change, ...] = ()
    all: tuple[Metadata, ...] = ()


class AddPartitions(msgspec.Struct, frozen=True):
    """The request to add partitions. ``count`` is the number to add, not the new total."""

    count: U32


class AddMirror(msgspec.Struct, frozen=True):
    remote_cluster: Str
    home_to_mirror: Bool = False


class UpdateRequest(msgspec.Struct, frozen=True):
    kind: ObjectKind
    key: str
    action: AddPartitions | AddMirror
