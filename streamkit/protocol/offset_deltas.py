"""The offset deltas of a batch's records, which only SmartModule output needs.

A stored batch counts its records, so the codec skips them. What a chain has left of a batch has
gaps, and the deltas are all that tells where. Source: data plane reference, 3.3 and 9.7.
"""

from __future__ import annotations

from streamkit.protocol.codec import read_record_count

_COUNT_BYTES = 4


def read_offset_deltas(data: bytes, at: int, end: int) -> list[int]:
    """Return the delta of each record.

    Args:
        data: Records, already decompressed, that `codec.decode_records` has accepted.
        at: Where their count stands.
        end: Where they end.

    Raises:
        RemoteProtocolError: The bytes cannot hold so many records.
    """
    count = read_record_count(data, at, end)
    at += _COUNT_BYTES
    deltas = []
    for _ in range(count):
        length, at = _varint(data, at)
        _, after = _varint(data, at + 1)  # behind the attributes: the timestamp delta
        deltas.append(_varint(data, after)[0])
        at += length
    return deltas


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    bits, shift = byte & 0x7F, 7
    while byte >= 0x80:
        at += 1
        byte = data[at]
        bits |= (byte & 0x7F) << shift
        shift += 7
    return (bits >> 1) ^ -(bits & 1), at + 1
