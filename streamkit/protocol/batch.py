"""Batches: a header of 57 bytes (61 with a schema id), then the records.

Source: docs/protocol/batches.md, "Record set" and "Batch header".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c
import msgspec

from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.limits import BATCH_BYTES_HARD_MAX
from streamkit.protocol import codec
from streamkit.protocol.compression import Codec, compress, decompress

_HEADER = struct.Struct(">qiibIhiqqqhi")
_COVERED = struct.Struct(">hiqqqhi")
HEADER_BYTES = _HEADER.size
assert HEADER_BYTES == 57

MAGIC = 2
NO_PRODUCER = -1
# `batch_len` counts the bytes after its own field, so it leaves out the first 12 bytes.
BYTES_BEFORE_LENGTH = 12
CRC_AT = 17
CRC_COVERS_FROM = 21
COUNT_BYTES = 4
_EPOCH = struct.Struct(">h")
_EPOCH_AT = 51
# The size of a batch without its records, as the producer counts batch sizes.
OVERHEAD_BYTES = HEADER_BYTES + COUNT_BYTES
_SCHEMA_ID_BYTES = 4
_CODEC_MASK = 0x07
_HAS_SCHEMA_ID = 0x10


class BatchHeader(msgspec.Struct, frozen=True):
    """The header of a batch. Times are milliseconds since the epoch."""

    base_offset: int
    batch_len: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    first_sequence: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole batch on the wire, header included."""
        return BYTES_BEFORE_LENGTH + self.batch_len

    @property
    def record_count(self) -> int:
        """Number of offsets the batch occupies. It may hold fewer records (gaps, fences)."""
        return max(0, self.last_offset_delta + 1)

    @property
    def end_offset(self) -> int:
        """The offset after the last record: where the next batch begins."""
        return self.base_offset + self.record_count

    @property
    def codec_number(self) -> int:
        """0 to 4 are the members of `Codec`; 5 to 7 are not defined."""
        return self.attributes & _CODEC_MASK

    @property
    def records_at(self) -> int:
        """Position of the records, in bytes from the start of the batch."""
        return HEADER_BYTES + (_SCHEMA_ID_BYTES if self.attributes & _HAS_SCHEMA_ID else 0)


class Columns(msgspec.Struct, frozen=True):
    """The records of one or more batches. Timestamps are -1 if a batch has none."""

    values: list[bytes]
    keys: list[bytes | None]
    timestamps_ms: list[int]


def read_batch_header(data: bytes, at: int = 0, end: int | None = None) -> BatchHeader:
    """Read the header of the batch that starts at byte ``at``.

    Does not read past the header and does not verify the checksum.

    Raises:
        RemoteProtocolError: Fewer than 57 bytes are left, or the batch is shorter than its
            header or larger than the limit. ``error.at`` is the position of the wrong byte.
    """
    if (len(data) if end is None else end) - at < HEADER_BYTES:
        raise RemoteProtocolError("batch header cut short", at=at)
    header = BatchHeader(*_HEADER.unpack_from(data, at))
    if not header.records_at <= header.size_bytes <= BATCH_BYTES_HARD_MAX:
        raise RemoteProtocolError(f"invalid batch length {header.batch_len}", at=at + 8)
    return header


def whole_batches(
    data: bytes, at: int = 0, end: int | None = None
) -> Iterator[tuple[BatchHeader, int]]:
    """Yield the header and the start position of each complete batch of a record set.

    If the server truncated the last batch, that batch is left out: see `cut_batch_bytes`.

    Raises:
        RemoteProtocolError: See `read_batch_header`.
    """
    stop = len(data) if end is None else end
    while stop - at >= HEADER_BYTES:
        header = read_batch_header(data, at, stop)
        if header.size_bytes > stop - at:
            return
        yield header, at
        at += header.size_bytes


def cut_batch_bytes(data: bytes, at: int, end: int) -> int:
    """Return the full size of the incomplete batch at ``at``; 0 if there is none.

    If even its header is incomplete, the size is unknown and the size of a header is returned.
    """
    if at >= end:
        return 0
    if end - at < HEADER_BYTES:
        return HEADER_BYTES
    return read_batch_header(data, at, end).size_bytes


def check_crc(data: bytes, at: int, header: BatchHeader) -> None:
    """Verify the checksum of a batch.

    Raises:
        CorruptBatch: The checksum is wrong, or bytes of the batch are missing.
    """
    if header.size_bytes > len(data) - at:
        raise CorruptBatch(
            f"batch of {header.size_bytes} bytes announced, {len(data) - at} bytes left",
            offset=header.base_offset,
        )
    crc = google_crc32c.value(data[at + CRC_COVERS_FROM : at + header.size_bytes])
    if crc != header.crc:
        raise CorruptBatch(
            f"checksum is {crc:#010x}, the header has {header.crc:#010x}",
            offset=header.base_offset,
        )


def plain_records(data: bytes, at: int, header: BatchHeader) -> tuple[bytes, int, int]:
    """Return the uncompressed records: a buffer, and where they start and end in it.

    Raises:
        RemoteProtocolError: The codec is unknown, or the payload is not valid for it.
    """
    start, end = at + header.records_at, at + header.size_bytes
    number = header.codec_number
    if number == Codec.NONE:
        return data, start, end
    if number > max(Codec):
        raise RemoteProtocolError(f"unknown codec {number}", at=at + CRC_COVERS_FROM)
    plain = decompress(Codec(number), data[start:end])
    return plain, 0, len(plain)


def decode_batch(data: bytes, at: int, header: BatchHeader) -> Columns:
    """Verify the checksum of a batch and decode its records.

    Raises:
        CorruptBatch: The checksum is wrong, or the records cannot be decoded.
    """
    check_crc(data, at, header)
    try:
        plain, start, end = plain_records(data, at, header)
        return Columns(*codec.decode_records(plain, start, end, header.first_timestamp_ms))
    except RemoteProtocolError as error:
        raise CorruptBatch(str(error), offset=header.base_offset) from error


def decode_output_batch(data: bytes, at: int, header: BatchHeader) -> tuple[Columns, list[int]]:
    """Decode a batch written by SmartModules: its records, and the offset delta of each.

    Raises:
        CorruptBatch: See `decode_batch`.
    """
    check_crc(data, at, header)
    try:
        plain, start, end = plain_records(data, at, header)
        columns = Columns(*codec.decode_records(plain, start, end, header.first_timestamp_ms))
        return columns, codec.read_offset_deltas(plain, start, end)
    except RemoteProtocolError as error:
        raise CorruptBatch(str(error), offset=header.base_offset) from error


class Stamp(msgspec.Struct, frozen=True):
    """The producer identity in a batch, used to detect duplicates. All -1 means no identity."""

    producer_id: int = NO_PRODUCER
    producer_epoch: int = NO_PRODUCER
    first_sequence: int = NO_PRODUCER


UNSTAMPED = Stamp()


def encode_batch(
    columns: Columns,
    start: int,
    stop: int,
    records_bytes: int,
    *,
    codec_used: Codec = Codec.NONE,
    stamp: Stamp = UNSTAMPED,
) -> bytes:
    """Encode the rows from ``start`` up to ``stop`` as one batch, ready for a Produce request.

    Args:
        columns: The columns that contain the rows.
        start: First row.
        stop: Row after the last.
        records_bytes: Size of the rows, as counted by `codec.fit_rows`.
        codec_used: The codec to compress the records with.
        stamp: The producer's identity.
    """
    payload = compress(
        codec_used,
        codec.encode_records(
            columns.values, columns.keys, columns.timestamps_ms, start, stop, records_bytes
        ),
    )
    stamps = columns.timestamps_ms
    return assemble_batch(
        payload,
        record_count=stop - start,
        codec_used=codec_used,
        first_timestamp_ms=stamps[start],
        max_timestamp_ms=codec.highest_of(stamps, start, stop),
        stamp=stamp,
    )


def assemble_batch(
    payload: bytes,
    *,
    record_count: int,
    codec_used: Codec,
    first_timestamp_ms: int,
    max_timestamp_ms: int,
    stamp: Stamp = UNSTAMPED,
) -> bytes:
    """Put a header before records that are already encoded and compressed."""
    middle = _COVERED.pack(
        codec_used,
        record_count - 1,
        first_timestamp_ms,
        max_timestamp_ms,
        stamp.producer_id,
        stamp.producer_epoch,
        stamp.first_sequence,
    )
    head = struct.pack(
        ">qiibI",
        record_count - 1,
        CRC_COVERS_FROM - BYTES_BEFORE_LENGTH + len(middle) + len(payload),
        -1,
        MAGIC,
        google_crc32c.extend(google_crc32c.value(middle), payload),
    )
    return b"".join((head, middle, payload))


def encode_fence(stamp: Stamp, timestamp_ms: int, *, codec_used: Codec = Codec.NONE) -> bytes:
    """Encode a fence: a stamped batch without records that occupies one offset.

    A reader of the log knows that no older batch of the same producer can follow it.
    Source: docs/protocol/batches.md, "Batches without records".

    Args:
        stamp: The producer's identity; its sequence is not used.
        timestamp_ms: Time of creation, in ms since the epoch.
        codec_used: The codec of the topic, which servers require in every batch.
    """
    no_records = codec.encode_records([], [], [], 0, 0, 0)
    return assemble_batch(
        compress(codec_used, no_records),
        record_count=1,
        codec_used=codec_used,
        first_timestamp_ms=timestamp_ms,
        max_timestamp_ms=timestamp_ms,
        stamp=stamp,
    )


def with_epoch(batch: bytes, epoch: int) -> bytes:
    """Return a stamped batch with another producer epoch and a new checksum."""
    covered = bytearray(batch[CRC_COVERS_FROM:])
    _EPOCH.pack_into(covered, _EPOCH_AT - CRC_COVERS_FROM, epoch)
    crc = google_crc32c.value(bytes(covered))
    return b"".join((batch[:CRC_AT], crc.to_bytes(4, "big"), covered))


def with_base_offset(batch: bytes, base_offset: int) -> bytes:
    """Return the batch with another base offset, which the checksum does not cover."""
    return base_offset.to_bytes(8, "big", signed=True) + batch[8:]
