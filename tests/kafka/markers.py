"""Writes the marker that ends a transaction, which the mock cluster itself never writes.

Sources: the protocol guide of Kafka, "Produce"; "Control Batches" in its documentation of messages.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

import google_crc32c

_PRODUCE: Final = 0
_VERSION: Final = 3
_ALL: Final = -1
_COMMIT: Final = 1
_CONTROL_OF_TRANSACTION: Final = 0x30


def write_marker(servers: str, topic: str, partition: int) -> None:
    """Write a commit marker, which takes one offset."""
    batch = _batch(_record(struct.pack(">hh", 0, _COMMIT), struct.pack(">hi", 0, 0)))
    body = struct.pack(">hhii", -1, _ALL, 5_000, 1) + _text(topic)
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    request = struct.pack(">hhi", _PRODUCE, _VERSION, 1) + _text("test") + body
    host, _, port = servers.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            response = stream.read(size)
    at = 4 + 4 + len(_text(topic)) + 4 + 4  # correlation id, topics, name, partitions, number
    (code,) = struct.unpack_from(">h", response, at)
    assert code == 0, f"the mock cluster refused the marker with {code}"


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _record(key: bytes, value: bytes) -> bytes:
    # Attributes, timestamp, offset; lengths are zigzag varints, which have one byte here.
    inner = bytes([0, 0, 0, 2 * len(key)]) + key + bytes([2 * len(value)]) + value + b"\0"
    return bytes([2 * len(inner)]) + inner


def _batch(record: bytes) -> bytes:
    checked = struct.pack(">hiqqqhii", _CONTROL_OF_TRANSACTION, 0, 0, 0, 1, 0, -1, 1) + record
    tail = struct.pack(">ibI", 0, 2, google_crc32c.value(checked)) + checked
    return struct.pack(">qi", 0, len(tail)) + tail
