# cython: language_level=3, annotation_typing=False, boundscheck=False, wraparound=False
# cython: initializedcheck=False, cdivision=True
"""The records of a batch as columns. On the wire: a u32 count, then one record after another.

Cython compiles this module with the C types in codec.pxd; without a compiler it is interpreted.
Both builds write and accept the same bytes, and refuse invalid bytes at the same position.

Source: docs/protocol/batches.md, "Records" and "Partition of a key".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamkit.errors import RemoteProtocolError
from streamkit.limits import RECORDS_PER_BATCH_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

try:
    import cython
except ImportError:  # the interpreted build only needs `compiled`
    from streamkit.protocol import uncompiled as cython


COMPILED: bool = cython.compiled

# The smallest record: length, attributes, two deltas, key flag, value length, header count.
RECORD_BYTES_MIN = 7
_COUNT_BYTES = 4
_MASK = 0xFFFFFFFFFFFFFFFF
_TOP_BIT = 63
_TIME_MAX = 0x7FFFFFFFFFFFFFFF


if not cython.compiled:
    from siphash24 import siphash24

    def copy_bytes(out: bytearray, at: int, value: bytes, size: int) -> None:
        out[at : at + size] = value

    def hash_key(key: bytes) -> int:
        """Return the same hash as `siphash`, which is ten times slower when interpreted."""
        hashed = siphash24(len(key).to_bytes(8, "little") + key, key=bytes(16))
        return int.from_bytes(hashed.digest(), "little")


class Cursor:
    """Read bytes in order; ``at`` is the position of the next one."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.keep = data
        self.p = data
        self.at = at
        self.end = end

    def byte(self) -> int:
        at = self.at
        if at >= self.end:
            raise RemoteProtocolError("records cut short", at=at)
        self.at = at + 1
        return self.p[at]

    def varint(self) -> int:
        """Read a zigzag-encoded number of up to 64 bits, seven bits per byte, lowest first."""
        at = self.at
        end = self.end
        if at >= end:
            raise RemoteProtocolError("records cut short", at=at)
        byte = self.p[at]
        bits = byte & 0x7F
        shift = 7
        while byte >= 0x80:
            at += 1
            if at >= end:
                raise RemoteProtocolError("records cut short", at=end)
            byte = self.p[at]
            if shift == _TOP_BIT and byte > 1:
                raise RemoteProtocolError("number of more than 64 bits", at=at)
            bits |= (byte & 0x7F) << shift
            shift += 7
        self.at = at + 1
        half = bits >> 1
        if bits & 1:
            return -half - 1
        return half

    def skip(self) -> int:
        """Read a length and skip that many bytes; return the position where they start."""
        before = self.at
        length = self.varint()
        start = self.at
        if length < 0 or length > self.end - start:
            raise RemoteProtocolError(f"{length} bytes announced", at=before)
        self.at = start + length
        return start


def read_record_count(data: bytes, at: int, end: int) -> int:
    """Read the record count and check that the bytes after it can hold that many records.

    Raises:
        RemoteProtocolError: There are too few bytes for that many records.
    """
    if end > len(data) or end - at < _COUNT_BYTES:
        raise RemoteProtocolError("records cut short", at=at)
    count = int.from_bytes(data[at : at + _COUNT_BYTES], "big")
    if count > RECORDS_PER_BATCH_MAX or count > (end - at - _COUNT_BYTES) // RECORD_BYTES_MIN:
        raise RemoteProtocolError(f"{count} records announced", at=at)
    return count


def decode_records(
    data: bytes, at: int, end: int, first_timestamp_ms: int
) -> tuple[list[bytes], list[bytes | None], list[int]]:
    """Decode the uncompressed records of one batch, from ``at`` up to ``end``.

    Returns:
        Values, keys and timestamps in ms. If the first timestamp of the batch is not positive,
        the batch has no times and all timestamps are -1. A time above 64 bits is -1 too.

    Raises:
        RemoteProtocolError: The data end inside a record, a record does not have the length
            it announces, or bytes are left. ``error.at`` is the position of the wrong byte.
    """
    count = read_record_count(data, at, end)
    values: list[bytes] = [b""] * count
    keys: list[bytes | None] = [None] * count
    has_time = first_timestamp_ms > 0
    stamp = first_timestamp_ms if has_time else -1
    stamps: list[int] = [stamp] * count
    cursor = Cursor(data, at + _COUNT_BYTES, end)
    p = cursor.p
    last_delta = 0
    row = 0
    while row < count:
        start = cursor.skip()
        record_end = cursor.at
        cursor.at = start
        cursor.byte()  # attributes
        delta = cursor.varint()
        cursor.varint()  # offset delta: ignored, the position in the list is used instead
        if delta != last_delta:
            last_delta = delta
            # The two builds would compute a sum above 64 bits differently.
            fits = has_time and delta <= _TIME_MAX - first_timestamp_ms
            stamp = first_timestamp_ms + delta if fits else -1
        if delta != 0 and has_time:
            stamps[row] = stamp
        flag = cursor.byte()
        if flag > 1:
            raise RemoteProtocolError(f"key flag {flag}", at=cursor.at - 1)
        if flag == 1:
            start = cursor.skip()
            keys[row] = p[start : cursor.at]
        start = cursor.skip()
        values[row] = p[start : cursor.at]
        cursor.varint()  # header count: no client writes headers
        if cursor.at != record_end:
            raise RemoteProtocolError("record does not have the announced length", at=cursor.at)
        row += 1
    if cursor.at != end:
        raise RemoteProtocolError(f"{end - cursor.at} bytes after the last record", at=cursor.at)
    return values, keys, stamps


def check_records(data: bytes, at: int, end: int) -> int:
    """Check the records as `decode_records` does, without decoding them; return their count.

    Raises:
        RemoteProtocolError: See `decode_records`.
    """
    count = read_record_count(data, at, end)
    cursor = Cursor(data, at + _COUNT_BYTES, end)
    row = 0
    while row < count:
        start = cursor.skip()
        record_end = cursor.at
        cursor.at = start
        cursor.byte()
        cursor.varint()
        cursor.varint()
        flag = cursor.byte()
        if flag > 1:
            raise RemoteProtocolError(f"key flag {flag}", at=cursor.at - 1)
        if flag == 1:
            cursor.skip()
        cursor.skip()
        cursor.varint()
        if cursor.at != record_end:
            raise RemoteProtocolError("record does not have the announced length", at=cursor.at)
        row += 1
    if cursor.at != end:
        raise RemoteProtocolError(f"{end - cursor.at} bytes after the last record", at=cursor.at)
    return count


def read_offset_deltas(data: bytes, at: int, end: int) -> list[int]:
    """Read the offset delta of each record that `decode_records` has accepted.

    Only the output of SmartModules needs them: in a stored batch, the offset delta of a record
    is its position.

    Raises:
        RemoteProtocolError: There are too few bytes for the announced number of records.
    """
    count = read_record_count(data, at, end)
    deltas: list[int] = [0] * count
    cursor = Cursor(data, at + _COUNT_BYTES, end)
    row = 0
    while row < count:
        start = cursor.skip()
        record_end = cursor.at
        cursor.at = start
        cursor.byte()  # attributes
        cursor.varint()  # timestamp delta
        deltas[row] = cursor.varint()
        cursor.at = record_end
        row += 1
    return deltas


def varint_bytes(value: int) -> int:
    """Return how many bytes `put_varint` writes for a number."""
    bits = value * 2 if value >= 0 else value * -2 - 1
    size = 1
    while bits > 0x7F:
        bits >>= 7
        size += 1
    return size


def put_varint(out: bytearray, at: int, value: int) -> int:
    """Write a zigzag-encoded number at ``at`` and return the position after it."""
    bits = value * 2 if value >= 0 else value * -2 - 1
    while bits > 0x7F:
        out[at] = (bits & 0x7F) | 0x80
        at += 1
        bits >>= 7
    out[at] = bits
    return at + 1


def body_bytes(row: int, delta_ms: int, key: bytes | None, value: bytes) -> int:
    """Return the size of a record without its length field.

    Source: docs/protocol/batches.md, "Size of a record".
    """
    size = len(value)
    total = 3 + varint_bytes(delta_ms) + varint_bytes(row) + varint_bytes(size) + size
    if key is not None:
        size = len(key)
        total += varint_bytes(size) + size
    return total


def record_bytes(row: int, delta_ms: int, key: bytes | None, value: bytes) -> int:
    """Return the size of a record in a batch, including its length field."""
    size = body_bytes(row, delta_ms, key, value)
    return varint_bytes(size) + size


def fit_rows(
    values: list[bytes],
    keys: list[bytes | None],
    stamps: list[int],
    start: int,
    budget_bytes: int,
    rows_max: int,
) -> tuple[int, int]:
    """Find how many rows, beginning with ``start``, fit in one batch.

    Args:
        values: Columns of equal length, with ``keys`` and ``stamps``.
        start: First row; its timestamp is that of the batch.
        budget_bytes: Maximum size of the records, without their count.
        rows_max: Maximum number of rows.

    Returns:
        The row after the last that fits, and the size of the rows in bytes. The first row
        always fits, whatever its size. A timestamp delta above 32 bits ends the batch.
    """
    assert 0 <= start < len(values) == len(keys) == len(stamps), "columns of different length"
    total = 0
    row = start
    stop = len(values)
    if stop - start > rows_max:
        stop = start + rows_max
    first = stamps[start]
    while row < stop:
        stamp = stamps[row]
        delta = stamp - first
        if delta > 0x7FFFFFFF or delta < -0x80000000:
            break
        key = keys[row]
        value = values[row]
        size = record_bytes(row - start, delta, key, value)
        if total + size > budget_bytes and row > start:
            break
        total += size
        row += 1
    return row, total


def scan_columns(values: list[Any], keys: list[Any], stamps: list[Any], lowest_ms: int) -> int:
    """Check the types and times of the columns that a caller passes.

    Args:
        values: Columns of equal length, with ``keys`` and ``stamps``.
        lowest_ms: The lowest valid time.

    Returns:
        The size of the largest key and value together. -1 if a value is not bytes, a key is
        neither bytes nor None, or a time is not an int, is below ``lowest_ms`` or does not fit
        in 64 bits.
    """
    assert len(values) == len(keys) == len(stamps), "columns of different length"
    largest = 0
    for row in range(len(values)):
        value = values[row]
        key = keys[row]
        stamp = stamps[row]
        if type(value) is not bytes or type(stamp) is not int:
            return -1
        size = len(value)
        if key is not None:
            if type(key) is not bytes:
                return -1
            size += len(key)
        if size > largest:
            largest = size
        try:
            time_ms = stamp
            if time_ms < lowest_ms or time_ms > _TIME_MAX:
                return -1
        except OverflowError:  # only the compiled build raises this, above 64 bits
            return -1
    return largest


def highest_of(stamps: list[int], start: int, stop: int) -> int:
    """Return the highest timestamp of the rows from ``start`` up to ``stop``."""
    assert 0 <= start < stop <= len(stamps), "rows out of range"
    highest = stamps[start]
    for row in range(start, stop):
        stamp = stamps[row]
        if stamp > highest:
            highest = stamp
    return highest


def encode_records(
    values: list[bytes],
    keys: list[bytes | None],
    stamps: list[int],
    start: int,
    stop: int,
    size_bytes: int,
) -> bytes:
    """Encode the rows from ``start`` up to ``stop`` as the records of one batch.

    Args:
        values: Columns of equal length, with ``keys`` and ``stamps``.
        start: First row; deltas count from its timestamp.
        stop: Row after the last.
        size_bytes: The size of the rows, as returned by `fit_rows`.
    """
    assert 0 <= start <= stop <= len(values) == len(keys) == len(stamps), "rows out of range"
    count = stop - start
    result = bytearray(_COUNT_BYTES + size_bytes)
    result[0:_COUNT_BYTES] = count.to_bytes(_COUNT_BYTES, "big")
    out = result
    at = _COUNT_BYTES
    row = 0
    if count == 0:
        return bytes(result)
    first = stamps[start]
    while row < count:
        value = values[start + row]
        key = keys[start + row]
        stamp = stamps[start + row]
        delta = stamp - first
        at = put_varint(out, at, body_bytes(row, delta, key, value))
        out[at] = 0
        at = put_varint(out, at + 1, delta)
        at = put_varint(out, at, row)
        if key is None:
            out[at] = 0
            at += 1
        else:
            out[at] = 1
            size = len(key)
            at = put_varint(out, at + 1, size)
            copy_bytes(out, at, key, size)
            at += size
        size = len(value)
        at = put_varint(out, at, size)
        copy_bytes(out, at, value, size)
        at += size
        out[at] = 0
        at += 1
        row += 1
    assert at == _COUNT_BYTES + size_bytes, "the size was computed for other rows"
    return bytes(result)


def siphash(key: bytes) -> int:
    """Hash a key as the stock partitioner does: SipHash-2-4 with an all-zero key.

    The input is the length as eight little-endian bytes, then the key.
    """
    size = len(key)
    p = key
    v0 = 0x736F6D6570736575
    v1 = 0x646F72616E646F6D
    v2 = 0x6C7967656E657261
    v3 = 0x7465646279746573
    word = 0
    block = -1
    blocks = size // 8
    while block <= blocks:
        if block == -1:
            word = size
        else:
            word = 0
            left = size - block * 8
            index = 0
            while index < 8 and index < left:
                word |= (p[block * 8 + index] & _MASK) << (8 * index)
                index += 1
            if block == blocks:
                word |= ((size + 8) & 0xFF) << 56
        v3 ^= word
        rounds = 2
        while rounds > 0:
            v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
            rounds -= 1
        v0 ^= word
        block += 1
    v2 ^= 0xFF
    rounds = 4
    while rounds > 0:
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
        rounds -= 1
    return v0 ^ v1 ^ v2 ^ v3


def sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = ((v1 << 13) | (v1 >> 51)) & _MASK
    v1 ^= v0
    v0 = ((v0 << 32) | (v0 >> 32)) & _MASK
    v2 = (v2 + v3) & _MASK
    v3 = ((v3 << 16) | (v3 >> 48)) & _MASK
    v3 ^= v2
    v0 = (v0 + v3) & _MASK
    v3 = ((v3 << 21) | (v3 >> 43)) & _MASK
    v3 ^= v0
    v2 = (v2 + v1) & _MASK
    v1 = ((v1 << 17) | (v1 >> 47)) & _MASK
    v1 ^= v2
    v2 = ((v2 << 32) | (v2 >> 32)) & _MASK
    return v0, v1, v2, v3


def partition_rows(
    keys: Sequence[bytes | None], partitions: int, turn: int
) -> tuple[list[int], int]:
    """Choose a partition for each row: by the hash of its key, or round robin without a key.

    Args:
        keys: One per row.
        partitions: Number of partitions.
        turn: Current position of the round robin.

    Returns:
        The partition of each row, and the new position of the round robin.
    """
    assert partitions > 0, "a topic has partitions"
    count = len(keys)
    chosen: list[int] = [0] * count
    row = 0
    while row < count:
        key = keys[row]
        if key is None:
            chosen[row] = turn % partitions
            turn = (turn + 1) & 0xFFFFFFFF
        else:
            chosen[row] = hash_key(key) % partitions
        row += 1
    return chosen, turn
