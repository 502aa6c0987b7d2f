"""ApiVersions, and Create, Delete, List, Watch and Update of the SC.

Since version 11 every body is in an envelope: the object type as text, a u32 length, then the
body. In older versions Create has a number instead of the text, and no body has a length.

Source: docs/protocol/admin.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

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


@dataclass(frozen=True, slots=True)
class ApiVersionsRequest:
    client_version: Annotated[Str, since(1)] = ""
    client_os: Annotated[Str, since(1)] = ""
    client_arch: Annotated[Str, since(1)] = ""


@dataclass(frozen=True, slots=True)
class ApiRange:
    api_key: I16
    min_version: I16
    max_version: I16


@dataclass(frozen=True, slots=True)
class ApiVersionsResponse:
    error: ErrorCodeField
    api_keys: Annotated[tuple[ApiRange, ...], vec(ApiRange)]
    platform_version: Str


# --- Objects ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metadata:
    """One object: its name, its desired state (spec) and its actual state (status)."""

    name: str
    spec: Any
    status: Any


@dataclass(frozen=True, slots=True)
class StatusResponse:
    """The response to Create, Delete and Update."""

    name: Str
    error: ErrorCodeField = NO_ERROR
    error_message: Annotated[str | None, option(STRING)] = None


@dataclass(frozen=True, slots=True)
class CreateRequest:
    kind: ObjectKind
    name: str
    spec: Any
    dry_run: bool = False
    timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SpuName:
    """Identifies a custom SPU by its object name."""

    name: str


@dataclass(frozen=True, slots=True)
class SpuId:
    """Identifies a custom SPU by its number."""

    id: int


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    kind: ObjectKind
    key: str | SpuName | SpuId
    force: bool = False


@dataclass(frozen=True, slots=True)
class UnknownObject:
    """A Create, Delete or Update of an unknown object type. Servers respond with an error."""

    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class ListRequest:
    kind: ObjectKind
    filters: tuple[str, ...] = ()
    summary: bool = False
    system: bool = False


@dataclass(frozen=True, slots=True)
class ListResponse:
    kind: ObjectKind
    items: tuple[Metadata, ...]


@dataclass(frozen=True, slots=True)
class WatchRequest:
    kind: ObjectKind
    epoch: int = 0
    summary: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One object of a delta. For a deleted object only the name is meaningful."""

    item: Metadata
    is_delete: bool = False


@dataclass(frozen=True, slots=True)
class WatchResponse:
    """Either the full list or the changes since the last message."""

    kind: ObjectKind
    epoch: int
    changes: tuple[Change, ...] = ()
    all: tuple[Metadata, ...] = ()


@dataclass(frozen=True, slots=True)
class AddPartitions:
    """The request to add partitions. ``count`` is the number to add, not the new total."""

    count: U32


@dataclass(frozen=True, slots=True)
class AddMirror:
    remote_cluster: Str
    home_to_mirror: Bool = False


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    kind: ObjectKind
    key: str
    action: AddPartitions | AddMirror
