"""The checks of a batch before the broker accepts it. Pure.

A stock server stores batches without checks. This broker compares them with their checksum and
counts, so that wrong data is refused while the producer can still send it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.limits import BATCH_BYTES_HARD_MAX, RECORDS_PER_BATCH_MAX
from streamkit.protocol import codec
from streamkit.protocol.batch import (
    BYTES_BEFORE_LENGTH,
    MAGIC,
    BatchHeader,
    check_crc,
    cut_batch_bytes,
    plain_records,
    whole_batches,
)
from streamkit.protocol.compression import Codec, DecompressedTooLarge
from streamkit.protocol.error_codes import Code, ErrorCode, other


@dataclass(frozen=True, slots=True)
class Entry:
    """The checked batches of one partition in one request, one after another.

    ``sizes`` has the size of each batch in bytes, ``counts`` the number of its offsets.
    """

    records: bytes
    sizes: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def record_count(self) -> int:
        return sum(self.counts)

    @property
    def size_bytes(self) -> int:
        return len(self.records)


def check_entry(records: bytes, required: Codec | None, segment_bytes: int) -> Entry | ErrorCode:
    """Return the batches of a record set, or an error if one of them is not valid.

    Args:
        records: Batches one after another, as the client sent them.
        required: The codec that the topic requires; None accepts any.
        segment_bytes: The segment size of the topic, which no batch may exceed.
    """
    sizes: list[int] = []
    counts: list[int] = []
    end = 0
    try:
        for header, at in whole_batches(records):
            end = at + header.size_bytes
            problem = _header_problem(header, required, segment_bytes)
            if problem is not None:
                return problem
            _check_content(records, at, header)
            sizes.append(header.size_bytes)
            counts.append(header.record_count)
    except CorruptBatch as error:
        return other(f"corrupt batch: {error.reason}")
    except DecompressedTooLarge as error:
        return other(f"refused: {error}") if error.is_ratio else ErrorCode(Code.MESSAGE_TOO_LARGE)
    except RemoteProtocolError as error:
        if _is_whole_but_too_large(records, end):
            return ErrorCode(Code.MESSAGE_TOO_LARGE)
        return other(f"corrupt batch: {error}")
    if cut_batch_bytes(records, end, len(records)):
        return other(f"corrupt batch: {len(records) - end} bytes after the last complete batch")
    return Entry(records, tuple(sizes), tuple(counts))


def _is_whole_but_too_large(records: bytes, at: int) -> bool:
    """Return whether the invalid bytes are a complete batch above the size limit."""
    length_at = at + BYTES_BEFORE_LENGTH - 4
    length = int.from_bytes(records[length_at : length_at + 4], "big", signed=True)
    size = BYTES_BEFORE_LENGTH + length
    return BATCH_BYTES_HARD_MAX < size <= len(records) - at


def _header_problem(
    header: BatchHeader, required: Codec | None, segment_bytes: int
) -> ErrorCode | None:
    if header.magic != MAGIC:
        return other(f"corrupt batch: magic {header.magic}, expected {MAGIC}")
    if header.codec_number > max(Codec):
        return ErrorCode(Code.COMPRESSION_ERROR)
    if required is not None and header.codec_number != required:
        return ErrorCode(Code.COMPRESSION_ERROR)
    if header.size_bytes > min(segment_bytes, BATCH_BYTES_HARD_MAX):
        return ErrorCode(Code.MESSAGE_TOO_LARGE)
    if not 0 <= header.last_offset_delta < RECORDS_PER_BATCH_MAX:
        return other(f"corrupt batch: invalid last offset delta {header.last_offset_delta}")
    return None


def _check_content(records: bytes, at: int, header: BatchHeader) -> None:
    """Verify the checksum, check the records, and compare their count with the header.

    Raises:
        CorruptBatch: The checksum or the count is wrong.
        RemoteProtocolError: The records cannot be decompressed or decoded.
    """
    check_crc(records, at, header)
    plain, start, end = plain_records(records, at, header)
    count = codec.check_records(plain, start, end) if start != end else 0
    is_fence = count == 0 and header.last_offset_delta == 0
    if count != header.record_count and not is_fence:
        raise CorruptBatch(f"{count} records, the header has {header.record_count}")
