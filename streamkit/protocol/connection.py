"""The protocol of a connection, for client and server, without I/O.

Source: docs/protocol/frames.md.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import msgspec

from streamkit.errors import LocalProtocolError, RemoteProtocolError, UnsupportedServer
from streamkit.limits import (
    FIRST_FRAME_BYTES_MAX,
    FRAME_BYTES_MAX,
    PENDING_REQUESTS_MAX,
    STREAMS_PER_CONNECTION_MAX,
)
from streamkit.protocol.apis import (
    API_VERSIONS,
    PLATFORM_VERSION_MIN,
    PRODUCE,
    Api,
    ResponseCount,
)
from streamkit.protocol.control_plane import ApiVersionsRequest, ApiVersionsResponse
from streamkit.protocol.frames import LENGTH_BYTES, FrameDecoder
from streamkit.protocol.schema import STRING, Reader

# The version of the stock client's socket crate; the stock SC requires semver here.
CLIENT_VERSION = "0.50.2"
_REQUEST_HEAD = struct.Struct(">Hhi")
_CORRELATION = struct.Struct(">i")
_ID_MAX = 0x7FFFFFFF
# Strict semver, as the stock client reads it: no leading zeros, numbers of 64 bits.
_NUMBER = r"(0|[1-9][0-9]{0,18})"
_PRERELEASE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRERELEASE}(?:\.{_PRERELEASE})*)?"
    r"(\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


class Pending(msgspec.Struct, frozen=True):
    """What is needed to decode the responses to an open request."""

    api: Api[Any, Any]
    version: int


class DecodedResponse(msgspec.Struct, frozen=True):
    """A decoded response, and the correlation id of its request."""

    correlation_id: int
    body: Any
    is_last: bool


class ClientConnection:
    """Number requests, match and decode responses. Does no I/O.

    First write the frame that `hello` returns, then pass received bytes to `receive`. The first
    response makes the connection ready, unless the server refuses it: then ``refusal`` is the
    reason. After a ProtocolError the connection is unusable: close the socket.
    """

    def __init__(self, client_id: str = "streamkit", *, server: str = "the server") -> None:
        self._server = server
        self._client_id = bytearray()
        STRING.write(self._client_id, client_id, 0)
        self._frames = FrameDecoder()
        self._pending: dict[int, Pending] = {}
        self._forgotten: set[int] = set()
        self._next_id = 1
        self._advertised: dict[int, tuple[int, int]] | None = None
        self._streams = 0
        self.platform_version = ""
        self.refusal = ""

    @property
    def is_ready(self) -> bool:
        """Whether the server has sent its versions."""
        return self._advertised is not None

    @property
    def unanswered(self) -> int:
        """Number of requests without a response, not counting streams."""
        return len(self._pending) - self._streams

    def hello(self) -> bytearray:
        """Return the frame that opens the connection."""
        request = ApiVersionsRequest(CLIENT_VERSION, "linux", "x86_64")
        self._pending[1] = Pending(API_VERSIONS, API_VERSIONS.max_version)
        return self._encode(API_VERSIONS, API_VERSIONS.max_version, 1, request)

    def version_of(self, api: Api[Any, Any]) -> int:
        """Return the version to use for a request type.

        Raises:
            UnsupportedServer: Both sides speak no common version; the message names both ranges.
        """
        assert self._advertised is not None, "the versions come with the first response"
        version = api.negotiate(self._advertised)
        if version is None:
            raise self._refusal(api, api.range_of(self._advertised))
        return version

    def send(self, api: Api[Any, Any], request: Any) -> tuple[int, bytearray]:
        """Encode a request; return its correlation id and the frame to write.

        Raises:
            LocalProtocolError: PENDING_REQUESTS_MAX requests or
                STREAMS_PER_CONNECTION_MAX streams are already open, a value of the
                request does not fit its layout, or the request exceeds FRAME_BYTES_MAX.
            UnsupportedServer: Both sides speak no common version of this request.
        """
        if api.response_count is ResponseCount.STREAM:
            if self._streams >= STREAMS_PER_CONNECTION_MAX:
                raise LocalProtocolError(f"{STREAMS_PER_CONNECTION_MAX} streams are already open")
        elif self.unanswered >= PENDING_REQUESTS_MAX:
            raise LocalProtocolError(f"{PENDING_REQUESTS_MAX} requests are already open")
        version = self.version_of(api)
        correlation_id = self._next_id
        data = self._encode(api, version, correlation_id, request)
        self._next_id = following_id(correlation_id)
        self._pending[correlation_id] = Pending(api, version)
        self._streams += api.response_count is ResponseCount.STREAM
        return correlation_id, data

    def receive(self, data: bytes | bytearray) -> list[DecodedResponse]:
        """Add bytes from the network and return the responses they complete.

        Raises:
            RemoteProtocolError: A bad frame, a body that cannot be decoded, or a response to
                a request that was never sent or already has its response.
        """
        responses: list[DecodedResponse] = []
        for payload in self._frames.receive(data):
            response = self._match(payload)
            if response is not None:
                responses.append(response)
        return responses

    def receive_eof(self) -> None:
        """Signal that the server has closed the stream.

        Raises:
            RemoteProtocolError: The stream ends inside a frame.
        """
        self._frames.receive_eof()

    def forget(self, correlation_id: int) -> None:
        """Ignore further responses to a request; a stream cannot be cancelled."""
        pending = self._pending.pop(correlation_id, None)
        if pending is not None:
            self._forgotten.add(correlation_id)
            self._streams -= pending.api.response_count is ResponseCount.STREAM

    def _encode(
        self, api: Api[Any, Any], version: int, correlation_id: int, request: Any
    ) -> bytearray:
        out = bytearray(LENGTH_BYTES)
        out += _REQUEST_HEAD.pack(api.key, version, correlation_id)
        out += self._client_id
        api.request.write(out, request, version)
        length = len(out) - LENGTH_BYTES
        if length > FRAME_BYTES_MAX:
            raise LocalProtocolError(
                f"a {api.name} request has {length:,} bytes, the limit is {FRAME_BYTES_MAX:,}"
            )
        out[:LENGTH_BYTES] = length.to_bytes(LENGTH_BYTES, "big")
        return out

    def _refusal(self, api: Api[Any, Any], theirs: tuple[int, int] | None) -> UnsupportedServer:
        who = f"{self._server} (version {self.platform_version})"
        ours = _versions(api.min_version, api.max_version)
        if theirs is None:
            return UnsupportedServer(
                f"{who} does not serve {api.name}; this client speaks {ours}",
                hint="use the port of the SC, not that of an SPU",
            )
        return UnsupportedServer(
            f"{who} speaks {_versions(*theirs)} of {api.name}, this client speaks {ours}",
            hint="upgrade streamkit" if theirs[0] > api.max_version else "upgrade the cluster",
        )

    def _match(self, payload: memoryview) -> DecodedResponse | None:
        (correlation_id,) = _CORRELATION.unpack_from(payload)
        pending = self._pending.get(correlation_id)
        if pending is None:
            if correlation_id not in self._forgotten:
                raise RemoteProtocolError(f"response to unknown request {correlation_id}", at=0)
            return None
        body = pending.api.response.read(Reader(payload, _CORRELATION.size), pending.version)
        is_last = pending.api.response_count is ResponseCount.ONE
        if is_last:
            del self._pending[correlation_id]
        if not self.is_ready:
            self._store_versions(body)
        return DecodedResponse(correlation_id, body, is_last)

    def _store_versions(self, hello: ApiVersionsResponse) -> None:
        self.refusal = hello.error.text if hello.error else ""
        self.platform_version = hello.platform_version
        self._advertised = {
            api.api_key: (api.min_version, api.max_version) for api in hello.api_keys
        }


def following_id(correlation_id: int) -> int:
    """Return the correlation id of the next request; 1 follows the largest 32-bit id."""
    return correlation_id + 1 if correlation_id < _ID_MAX else 1


def _versions(low: int, high: int) -> str:
    return f"version {low}" if low == high else f"versions {low} to {high}"


def check_platform(platform_version: str) -> None:
    """Refuse an SC that is older than the oldest supported version.

    Raises:
        UnsupportedServer: The version is below 0.9.0, or is not a valid version.
    """
    found = SEMVER.fullmatch(platform_version)
    if found is None:
        raise UnsupportedServer(f"the server version {platform_version!r} is not valid")
    numbers = tuple(int(part) for part in found.groups()[:3])
    is_prerelease = found.group(4) is not None
    if numbers < PLATFORM_VERSION_MIN or (numbers == PLATFORM_VERSION_MIN and is_prerelease):
        raise UnsupportedServer(
            f"the cluster runs Fluvio {platform_version}, the oldest supported is 0.9.0",
            hint="upgrade the cluster",
        )


class IncomingRequest(msgspec.Struct, frozen=True):
    """A decoded request, on the server."""

    api: Api[Any, Any]
    version: int
    correlation_id: int
    client_id: str
    body: Any
    size_bytes: int


class ServerConnection:
    """Decode requests. Does no I/O.

    After a RemoteProtocolError the connection is unusable: close it without a response, as
    every Fluvio server does.
    """

    def __init__(
        self,
        apis: dict[int, Api[Any, Any]],
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        first_frame_bytes_max: int = FIRST_FRAME_BYTES_MAX,
    ) -> None:
        self._apis = apis
        self._frames = FrameDecoder(frame_bytes_max, first_frame_bytes_max=first_frame_bytes_max)
        self.has_received_request = False

    @property
    def held_bytes(self) -> int:
        """Number of bytes received of an incomplete frame."""
        return self._frames.held_bytes

    def receive(self, data: bytes | bytearray) -> list[IncomingRequest]:
        """Add bytes from the network and return the requests they complete.

        Raises:
            RemoteProtocolError: A bad frame, an unknown request, or a body that cannot be
                decoded.
        """
        requests = [self._decode(payload) for payload in self._frames.receive(data)]
        self.has_received_request = self.has_received_request or bool(requests)
        return requests

    def _decode(self, payload: memoryview) -> IncomingRequest:
        if len(payload) < _REQUEST_HEAD.size:
            raise RemoteProtocolError("request header cut short", at=len(payload))
        key, version, correlation_id = _REQUEST_HEAD.unpack_from(payload)
        if key not in self._apis:
            raise RemoteProtocolError(f"unknown request {key}", at=0)
        if version < 0:
            raise RemoteProtocolError(f"invalid request version {version}", at=2)
        api = self._apis[key]
        reader = Reader(payload, _REQUEST_HEAD.size)
        client_id = STRING.read(reader, version)
        body = api.request.read(reader, version)
        if api is PRODUCE and reader.at < reader.end:
            # A damaged length hides records, and the response would confirm them as stored.
            left = reader.end - reader.at
            raise RemoteProtocolError(f"{left} bytes left after the request", at=reader.at)
        return IncomingRequest(api, version, correlation_id, client_id, body, len(payload))


def encode_response(request: IncomingRequest, body: Any) -> bytearray:
    """Encode the response to a request as a frame, in the version of the request."""
    out = bytearray(LENGTH_BYTES)
    out += _CORRELATION.pack(request.correlation_id)
    request.api.response.write(out, body, request.version)
    out[:LENGTH_BYTES] = (len(out) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return out
