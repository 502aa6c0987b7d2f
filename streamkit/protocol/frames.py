"""Length-prefixed frames: bytes in, complete payloads out.

Source: docs/protocol/frames.md, "Frames".
"""

from __future__ import annotations

from streamkit.errors import RemoteProtocolError
from streamkit.limits import FRAME_BYTES_MAX, FRAME_BYTES_MIN

LENGTH_BYTES = 4


class FrameDecoder:
    """Cut a byte stream into frame payloads.

    Holds at most one incomplete frame. Memory grows with the bytes received, never with the
    length a peer announces. The first frame may have its own size limit.
    """

    def __init__(
        self, frame_bytes_max: int = FRAME_BYTES_MAX, *, first_frame_bytes_max: int | None = None
    ) -> None:
        self._later_bytes_max = frame_bytes_max
        self._bytes_max = (
            frame_bytes_max if first_frame_bytes_max is None else first_frame_bytes_max
        )
        self._parts: list[bytes | bytearray] = []
        self._received = 0
        self._needed = LENGTH_BYTES

    @property
    def held_bytes(self) -> int:
        """Number of bytes received of an incomplete frame."""
        return self._received

    def receive(self, data: bytes | bytearray) -> list[memoryview]:
        """Add bytes from the network and return the payloads they complete.

        The payloads are views of the received bytes, so large ones are not copied.

        Raises:
            RemoteProtocolError: A length is below FRAME_BYTES_MIN or above the limit.
                Raised as soon as the four bytes of the length are received.
        """
        self._parts.append(data)
        self._received += len(data)
        if self._received < self._needed:
            return []
        buffer = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        view = memoryview(buffer)
        payloads: list[memoryview] = []
        start = 0
        while True:
            left = len(buffer) - start
            if left < LENGTH_BYTES:
                self._needed = LENGTH_BYTES
                break
            body = start + LENGTH_BYTES
            length = self._checked_length(buffer[start:body])
            if left < LENGTH_BYTES + length:
                self._needed = LENGTH_BYTES + length
                break
            payloads.append(view[body : body + length])
            self._bytes_max = self._later_bytes_max
            start = body + length
        self._received = len(buffer) - start
        self._parts = [buffer[start:]] if self._received else []
        return payloads

    def receive_eof(self) -> None:
        """Signal that the stream has ended.

        Raises:
            RemoteProtocolError: The stream ends inside a frame.
        """
        if self._received:
            raise RemoteProtocolError("stream ends inside a frame", at=self._received)

    def _checked_length(self, prefix: bytes | bytearray) -> int:
        length = int.from_bytes(prefix, "big", signed=True)
        if not FRAME_BYTES_MIN <= length <= self._bytes_max:
            other = _other_protocol(prefix)
            raise RemoteProtocolError(f"invalid frame length {length}{other}", at=0)
        return length


def frame(payload: bytes | bytearray) -> bytes:
    """Return a payload with its length before it."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def _other_protocol(prefix: bytes | bytearray) -> str:
    """Name the other protocol that begins with these bytes, if it is a known one."""
    if prefix[:2] == b"\x16\x03":
        return ", a TLS hello: this port speaks plain Fluvio"
    if prefix[:2] == b"\x15\x03":
        return ", a TLS alert: the other side speaks TLS"
    if prefix in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI"):
        return ", an HTTP request: this port speaks Fluvio"
    if prefix == b"HTTP":
        return ", an HTTP response: the other side is a web server"
    return ""
