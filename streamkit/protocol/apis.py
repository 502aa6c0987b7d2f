"""All request types: key, versions, layouts of request and response, number of responses.

The SC and the SPU use the same keys for different requests, so each port has its own table.

Source: docs/protocol/frames.md, "Requests to an SPU" and "Requests to the SC".
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Generic, TypeVar

import msgspec

from streamkit.protocol import control_layouts
from streamkit.protocol import control_plane as sc
from streamkit.protocol import data_plane as spu
from streamkit.protocol.schema import Wire, struct

Q = TypeVar("Q")
A = TypeVar("A")

SPU_VERSION = 25
ADMIN_VERSION = 19
STREAM_FETCH_OLDEST = 17
PLATFORM_VERSION_MIN = (0, 9, 0)


class ResponseCount(Enum):
    """How many responses a request gets."""

    ONE = "one"
    STREAM = "stream"  # until the connection ends; the protocol has no cancel


class Api(msgspec.Struct, Generic[Q, A], frozen=True):
    """A request type. The client of streamkit speaks ``min_version`` to ``max_version``."""

    name: str
    key: int
    min_version: int
    max_version: int
    request: Wire[Q]
    response: Wire[A]
    response_count: ResponseCount = ResponseCount.ONE
    # Every SPU serves the requests for consumer offsets, but none advertises them.
    is_unlisted: bool = False
    # For FetchOffsets every SPU advertises only its newest version, but serves older ones too.
    has_real_minimum: bool = True

    def range_of(self, advertised: dict[int, tuple[int, int]]) -> tuple[int, int] | None:
        """Return the oldest and newest version that a server speaks, or None if it speaks none."""
        if self.is_unlisted:
            # They exist in the same versions as StreamFetch, whose streams store such offsets.
            return STREAM_FETCH.range_of(advertised)
        if self.key not in advertised:
            return None
        low, high = advertised[self.key]
        return (low if self.has_real_minimum else 0), high

    def negotiate(self, advertised: dict[int, tuple[int, int]]) -> int | None:
        """Return the newest version that both sides speak, or None."""
        low, high = self.range_of(advertised) or (0, -1)
        if high < self.min_version or low > self.max_version:
            return None
        return min(self.max_version, high)


API_VERSIONS = Api(
    "ApiVersions", 18, 0, 2, struct(sc.ApiVersionsRequest), struct(sc.ApiVersionsResponse)
)

PRODUCE = Api("Produce", 0, 0, SPU_VERSION, struct(spu.ProduceRequest), struct(spu.ProduceResponse))
FETCH = Api("Fetch", 1, 0, SPU_VERSION, struct(spu.FetchRequest), struct(spu.FetchResponse))
FETCH_OFFSETS = Api(
    "FetchOffsets",
    1002,
    23,
    SPU_VERSION,
    struct(spu.FetchOffsetsRequest),
    struct(spu.FetchOffsetsResponse),
    has_real_minimum=False,
)
STREAM_FETCH = Api(
    "StreamFetch",
    1003,
    STREAM_FETCH_OLDEST,
    SPU_VERSION,
    struct(spu.StreamFetchRequest),
    struct(spu.StreamFetchResponse),
    ResponseCount.STREAM,
)
UPDATE_OFFSETS = Api(
    "UpdateOffsets",
    1005,
    0,
    0,
    struct(spu.UpdateOffsetsRequest),
    struct(spu.UpdateOffsetsResponse),
)
UPDATE_CONSUMER_OFFSET = Api(
    "UpdateConsumerOffset",
    1006,
    23,
    SPU_VERSION,
    struct(spu.UpdateConsumerOffsetRequest),
    struct(spu.UpdateConsumerOffsetResponse),
    is_unlisted=True,
)
DELETE_CONSUMER_OFFSET = Api(
    "DeleteConsumerOffset",
    1007,
    23,
    SPU_VERSION,
    struct(spu.DeleteConsumerOffsetRequest),
    struct(spu.DeleteConsumerOffsetResponse),
    is_unlisted=True,
)
FETCH_CONSUMER_OFFSETS = Api(
    "FetchConsumerOffsets",
    1008,
    23,
    SPU_VERSION,
    struct(spu.FetchConsumerOffsetsRequest),
    struct(spu.FetchConsumerOffsetsResponse),
    is_unlisted=True,
)

CREATE = Api(
    "Create",
    1001,
    9,
    ADMIN_VERSION,
    control_layouts.CREATE_REQUEST,
    control_layouts.STATUS_RESPONSE,
)
DELETE = Api(
    "Delete",
    1002,
    1,
    ADMIN_VERSION,
    control_layouts.DELETE_REQUEST,
    control_layouts.STATUS_RESPONSE,
)
LIST = Api(
    "List", 1003, 15, ADMIN_VERSION, control_layouts.LIST_REQUEST, control_layouts.LIST_RESPONSE
)
WATCH = Api(
    "Watch",
    1004,
    15,
    ADMIN_VERSION,
    control_layouts.WATCH_REQUEST,
    control_layouts.WATCH_RESPONSE,
    ResponseCount.STREAM,
)
UPDATE = Api(
    "Update",
    1006,
    11,
    ADMIN_VERSION,
    control_layouts.UPDATE_REQUEST,
    control_layouts.STATUS_RESPONSE,
)


def _table(*apis: Api[Any, Any]) -> dict[int, Api[Any, Any]]:
    return {api.key: api for api in apis}


SPU_APIS = _table(
    API_VERSIONS,
    PRODUCE,
    FETCH,
    FETCH_OFFSETS,
    STREAM_FETCH,
    UPDATE_OFFSETS,
    UPDATE_CONSUMER_OFFSET,
    DELETE_CONSUMER_OFFSET,
    FETCH_CONSUMER_OFFSETS,
)
SC_APIS = _table(API_VERSIONS, CREATE, DELETE, LIST, WATCH, UPDATE)
