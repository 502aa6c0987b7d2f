"""Every deliberate difference from a stock server in the batches of Produce requests.

A stock server stores all batches: it writes checksums and never verifies them.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamkit.broker.batch_validation import Entry, check_entry
from streamkit.limits import (
    BATCH_BYTES_HARD_MAX,
    DECOMPRESSED_BATCH_BYTES_MAX,
    MIB,
    RECORDS_PER_BATCH_MAX,
)
from streamkit.protocol.batch import Stamp, assemble_batch, read_batch_header
from streamkit.protocol.compression import Codec, compress
from streamkit.protocol.error_codes import Code, ErrorCode, other
from tests.broker.running import NOW_MS, batch_of

SEGMENT_BYTES: Final = 1 << 30
HEADER: Final = struct.Struct(">qiibIhiqqqhi")
FIELDS: Final = (
    "base_offset",
    "batch_len",
    "leader_epoch",
    "magic",
    "crc",
    "attributes",
    "last_offset_delta",
    "first_timestamp_ms",
    "max_timestamp_ms",
    "producer_id",
    "producer_epoch",
    "first_sequence",
)
NO_RECORDS: Final = bytes(4)
STAMP: Final = Stamp(0x1122334455667788, 7, 41)


def changed(
    batch: bytes, *, with_checksum: bool = True, payload: bytes | None = None, **fields: int
) -> bytes:
    """Return a batch with other fields in its header, by default with a valid checksum."""
    header = dict(zip(FIELDS, HEADER.unpack_from(batch), strict=True)) | fields
    rest = batch[HEADER.size :] if payload is None else payload
    if payload is not None and "batch_len" not in fields:
        header["batch_len"] = HEADER.size - 12 + len(payload)
    data = bytearray(HEADER.pack(*header.values()) + rest)
    if with_checksum and "crc" not in fields:
        data[17:21] = google_crc32c.value(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def fence(codec: Codec = Codec.NONE, payload: bytes = NO_RECORDS, stamp: Stamp = STAMP) -> bytes:
    return assemble_batch(
        compress(codec, payload) if payload else b"",
        record_count=1,
        codec_used=codec,
        first_timestamp_ms=NOW_MS,
        max_timestamp_ms=NOW_MS,
        stamp=stamp,
    )


def with_record_count(count: int, batch: bytes) -> bytes:
    """Return the batch with another record count before the records."""
    return changed(batch, payload=count.to_bytes(4, "big") + batch[HEADER.size + 4 :])


ONE: Final = batch_of(b"one")
TWO: Final = batch_of(b"one", b"two")
GZIP: Final = batch_of(b"one", codec_used=Codec.GZIP)


def corrupt(text: str) -> ErrorCode:
    return other(f"corrupt batch: {text}")


def crc_of(batch: bytes) -> int:
    return int(google_crc32c.value(batch[21:]))


# Batches that a stock server accepts or fails on, and the error of this broker.
DIFFERENCES: Final[dict[str, tuple[bytes, ErrorCode]]] = {
    "a wrong checksum": (
        changed(ONE, crc=1),
        corrupt(f"checksum is {crc_of(ONE):#010x}, the header has 0x00000001"),
    ),
    "a flipped bit in a value": (
        ONE[:-2] + bytes([ONE[-2] ^ 1]) + ONE[-1:],
        corrupt(
            f"checksum is {crc_of(ONE[:-2] + bytes([ONE[-2] ^ 1]) + ONE[-1:]):#010x}, "
            f"the header has {read_batch_header(ONE).crc:#010x}"
        ),
    ),
    "another magic": (changed(ONE, magic=1), corrupt("magic 1, expected 2")),
    "a gap: one record for six offsets": (
        changed(ONE, last_offset_delta=5),
        corrupt("1 records, the header has 6"),
    ),
    "more records than offsets": (
        changed(TWO, last_offset_delta=0),
        corrupt("2 records, the header has 1"),
    ),
    "a negative last offset delta": (
        changed(ONE, last_offset_delta=-1),
        corrupt("invalid last offset delta -1"),
    ),
    "more offsets than allowed": (
        changed(ONE, last_offset_delta=RECORDS_PER_BATCH_MAX),
        corrupt(f"invalid last offset delta {RECORDS_PER_BATCH_MAX}"),
    ),
    "no records for two offsets": (
        changed(fence(), last_offset_delta=1),
        corrupt("0 records, the header has 2"),
    ),
    "a length below that of a header": (
        changed(ONE, batch_len=44, with_checksum=False),
        corrupt("invalid batch length 44 (byte 8)"),
    ),
    "a negative length": (
        changed(ONE, batch_len=-1, with_checksum=False),
        corrupt("invalid batch length -1 (byte 8)"),
    ),
    "bytes after the last batch": (
        ONE + b"tail",
        corrupt("4 bytes after the last complete batch"),
    ),
    "an incomplete batch after a complete one": (
        ONE + TWO[:-1],
        corrupt(f"{len(TWO) - 1} bytes after the last complete batch"),
    ),
    "an incomplete batch": (
        ONE[:-1],
        corrupt(f"{len(ONE) - 1} bytes after the last complete batch"),
    ),
}
# Batches that both refuse with the same error.
SAME_AS_STOCK: Final[dict[str, tuple[bytes, ErrorCode]]] = {
    f"codec {number}": (changed(ONE, attributes=number), ErrorCode(Code.COMPRESSION_ERROR))
    for number in (5, 6, 7)
}
ACCEPTED: Final[dict[str, tuple[bytes, tuple[int, ...]]]] = {
    "one batch": (ONE, (1,)),
    "three batches": (ONE + TWO + GZIP, (1, 2, 1)),
    "no batch at all": (b"", ()),
    "any base offset, which the broker replaces": (changed(ONE, base_offset=-7), (1,)),
    "any leader epoch": (changed(ONE, leader_epoch=40), (1,)),
    "a fence": (fence(), (1,)),
    "a fence without a stamp": (fence(stamp=Stamp()), (1,)),
    "a fence without a record count": (fence(payload=b""), (1,)),
    **{f"a fence in {codec.name}": (fence(codec), (1,)) for codec in Codec},
    **{
        f"records in {codec.name}": (batch_of(b"x" * 99, codec_used=codec), (1,)) for codec in Codec
    },
}


@pytest.mark.parametrize("what", [*DIFFERENCES, *SAME_AS_STOCK])
def test_an_invalid_batch_is_refused_with_a_reason(what: str) -> None:
    records, error = {**DIFFERENCES, **SAME_AS_STOCK}[what]
    assert check_entry(records, None, SEGMENT_BYTES) == error
    # The whole entry is refused, including valid batches before the invalid one.
    if what != "an incomplete batch":
        found = check_entry(TWO + records, None, SEGMENT_BYTES)
        assert isinstance(found, ErrorCode)
        assert found.code == error.code


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_valid_batch_is_accepted_unchanged(what: str) -> None:
    records, counts = ACCEPTED[what]
    entry = check_entry(records, None, SEGMENT_BYTES)
    assert isinstance(entry, Entry)
    assert (entry.records, entry.counts) == (records, counts)
    assert len(entry.sizes) == len(counts)
    assert sum(entry.sizes) == len(records)
    assert (entry.size_bytes, entry.record_count) == (len(records), sum(counts))


@pytest.mark.parametrize("required", list(Codec))
@pytest.mark.parametrize("used", list(Codec))
def test_a_topic_with_a_codec_accepts_only_batches_of_that_codec(
    required: Codec, used: Codec
) -> None:
    for batch in (batch_of(b"x", codec_used=used), fence(used)):
        found = check_entry(ONE[:0] + batch, required, SEGMENT_BYTES)
        assert (
            isinstance(found, Entry)
            if used is required
            else found == ErrorCode(Code.COMPRESSION_ERROR)
        )


@pytest.mark.parametrize("codec", [each for each in Codec if each is not Codec.NONE])
def test_a_payload_that_does_not_match_the_codec_in_its_header_is_refused(codec: Codec) -> None:
    found = check_entry(changed(ONE, attributes=codec), None, SEGMENT_BYTES)
    assert isinstance(found, ErrorCode)
    assert found.code == Code.OTHER
    assert found.text.startswith("corrupt batch: ")


@pytest.mark.parametrize("count", [0, 2, 2**31, 2**32 - 1])
def test_a_wrong_record_count_is_refused(count: int) -> None:
    found = check_entry(with_record_count(count, TWO if count != 2 else ONE), None, SEGMENT_BYTES)
    assert isinstance(found, ErrorCode)
    assert found.code == Code.OTHER


def test_a_batch_larger_than_a_segment_is_refused() -> None:
    batch = batch_of(bytes(2_000))
    assert isinstance(check_entry(batch, None, len(batch)), Entry)
    assert check_entry(batch, None, len(batch) - 1) == ErrorCode(Code.MESSAGE_TOO_LARGE)
    # The size is checked before any batch of the entry is stored.
    assert check_entry(ONE + batch, None, len(batch) - 1) == ErrorCode(Code.MESSAGE_TOO_LARGE)


def test_a_batch_above_the_size_limit_is_refused() -> None:
    room = BATCH_BYTES_HARD_MAX - len(batch_of(bytes(MIB)))
    largest = batch_of(bytes(MIB + room))
    # The length field of a value of this size has one more byte.
    spare = BATCH_BYTES_HARD_MAX - len(largest)
    largest = batch_of(bytes(MIB + room + spare))
    assert len(largest) == BATCH_BYTES_HARD_MAX
    assert isinstance(check_entry(largest, None, SEGMENT_BYTES), Entry)
    for too_much in (spare + 1, spare + MIB):
        found = check_entry(batch_of(bytes(MIB + room + too_much)), None, SEGMENT_BYTES)
        assert found == ErrorCode(Code.MESSAGE_TOO_LARGE)


def test_a_batch_that_decompresses_to_too_many_bytes_is_refused() -> None:
    bomb = batch_of(bytes(DECOMPRESSED_BATCH_BYTES_MAX + 1), codec_used=Codec.ZSTD)
    found = check_entry(bomb, None, SEGMENT_BYTES)
    assert isinstance(found, ErrorCode)
    assert found.code == Code.OTHER
    assert "1,000 times" in found.text
    value = bytes(range(256)) * (DECOMPRESSED_BATCH_BYTES_MAX // 256)
    assert check_entry(batch_of(value, codec_used=Codec.GZIP), None, SEGMENT_BYTES) == ErrorCode(
        Code.MESSAGE_TOO_LARGE
    )


@given(st.binary(max_size=200))
def test_garbage_is_never_accepted(data: bytes) -> None:
    found: Any = check_entry(data, None, SEGMENT_BYTES)
    assert isinstance(found, ErrorCode) or (found.sizes, data) == ((), b"")


@given(st.integers(0, len(ONE + GZIP) - 1), st.integers(1, 255))
def test_every_changed_byte_is_detected(at: int, flip: int) -> None:
    """Except for the bytes of the base offset and the leader epoch, which the broker ignores."""
    data = bytearray(ONE + GZIP)
    data[at] ^= flip
    inside = at if at < len(ONE) else at - len(ONE)
    found = check_entry(bytes(data), None, SEGMENT_BYTES)
    assert isinstance(found, Entry) == (inside < 8 or 12 <= inside < 16)


def test_a_batch_with_a_producer_id_is_accepted() -> None:
    stamped = batch_of(b"one", stamp=replace(STAMP, first_sequence=0))
    assert isinstance(check_entry(stamped, None, SEGMENT_BYTES), Entry)
