"""Length-prefixed frames: bytes in, whole payloads out.

Source: data plane reference, 1.1.
"""

from __future__ import annotations

from streamkit.errors import RemoteProtocolError
from streamkit.limits import FRAME_BYTES_MAX, FRAME_BYTES_MIN

LENGTH_BYTES = 4


class FrameDecoder:
    """Cut a byte stream into frame payloads.

    Holds at most one incomplete frame. Memory grows with the bytes received, never with the
    length a peer announces. The first frame may have a bound of its own.
    """

    def __init__(
        self, frame_bytes_max: int = FRAME_BYTES_MAX, *, first_frame_bytes_max: int | None = None
    ) -> None:
        self._later_bytes_max = frame_bytes_max
        self._bytes_max = (
            frame_bytes_max if first_frame_bytes_max is None else first_frame_bytes_max
        )
        self._parts: list[bytes | bytearray] = []
        self._held = 0
        self._wanted = LENGTH_BYTES

    @property
    def held_bytes(self) -> int:
        """Bytes of the frame that is not complete yet."""
        return self._held

    def receive(self, data: bytes | bytearray) -> list[memoryview]:
        """Add bytes from the network and return the payloads they complete.

        They are views of what was received: a payload of megabytes is not copied here.

        Raises:
            RemoteProtocolError: A length is outside FRAME_BYTES_MIN and the bound.
                Judged from the four length bytes alone.
        """
        self._parts.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        buffer = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        view = memoryview(buffer)
        payloads: list[memoryview] = []
        start = 0
        while True:
            left = len(buffer) - start
            if left < LENGTH_BYTES:
                self._wanted = LENGTH_BYTES
                break
            body = start + LENGTH_BYTES
            length = self._checked_length(buffer[start:body])
            if left < LENGTH_BYTES + length:
                self._wanted = LENGTH_BYTES + length
                break
            payloads.append(view[body : body + length])
            self._bytes_max = self._later_bytes_max
            start = body + length
        self._held = len(buffer) - start
        self._parts = [buffer[start:]] if self._held else []
        return payloads

    def receive_eof(self) -> None:
        """Say that no more bytes will come.

        Raises:
            RemoteProtocolError: The stream ends inside a frame.
        """
        if self._held:
            raise RemoteProtocolError("stream ends inside a frame", at=self._held)

    def _checked_length(self, prefix: bytes | bytearray) -> int:
        length = int.from_bytes(prefix, "big", signed=True)
        if not FRAME_BYTES_MIN <= length <= self._bytes_max:
            what = _known_stranger(prefix)
            raise RemoteProtocolError(f"frame length {length}{what}", at=0)
        return length


def frame(payload: bytes | bytearray) -> bytes:
    """Put the length before a payload."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def _known_stranger(prefix: bytes | bytearray) -> str:
    """Name the other protocol whose first bytes these are, where it is known."""
    if prefix[:2] == b"\x16\x03":
        return ", a TLS hello: this port speaks plain Fluvio"
    if prefix[:2] == b"\x15\x03":
        return ", a TLS alert: the other side speaks TLS"
    if prefix in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI"):
        return ", an HTTP request: this port speaks Fluvio"
    if prefix == b"HTTP":
        return ", an HTTP answer: the other side is a web server"
    return ""
