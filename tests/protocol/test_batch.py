"""Batches: their headers, checksums and limits, and reading a record set."""

from __future__ import annotations

import struct
from typing import Final

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.errors import CorruptBatch, RemoteProtocolError
from streamkit.limits import BATCH_BYTES_HARD_MAX, RECORDS_PER_BATCH_MAX
from streamkit.protocol import codec
from streamkit.protocol.batch import (
    BYTES_BEFORE_LENGTH,
    CRC_AT,
    CRC_COVERS_FROM,
    HEADER_BYTES,
    MAGIC,
    UNSTAMPED,
    Columns,
    Stamp,
    check_crc,
    cut_batch_bytes,
    decode_batch,
    encode_batch,
    read_batch_header,
    whole_batches,
    with_base_offset,
)

COLUMNS: Final = Columns([b"one", b"two", b"three"], [None, b"", b"k"], [1_000, 1_001, 1_002])


def batch_of(columns: Columns = COLUMNS, stamp: Stamp = UNSTAMPED) -> bytes:
    rows = columns.values, columns.keys, columns.timestamps_ms
    end, size = codec.fit_rows(*rows, 0, 1 << 30, 1 << 30)
    return encode_batch(columns, 0, end, size, stamp=stamp)


BATCH: Final = batch_of()


def with_valid_checksum(batch: bytes | bytearray) -> bytes:
    """Return changed bytes with a valid checksum, as a hostile peer would send them."""
    crc: int = google_crc32c.value(bytes(batch[CRC_COVERS_FROM:]))
    return bytes(batch[:CRC_AT]) + crc.to_bytes(4, "big") + bytes(batch[CRC_COVERS_FROM:])


def header_of_length(batch_len: int, attributes: int = 0) -> bytes:
    header = bytearray(HEADER_BYTES)
    struct.pack_into(">i", header, 8, batch_len)
    struct.pack_into(">h", header, CRC_COVERS_FROM, attributes)
    return bytes(header)


def test_a_batch_is_written_as_a_stock_producer_writes_it() -> None:
    header = read_batch_header(BATCH)
    assert (header.base_offset, header.leader_epoch, header.magic) == (2, -1, MAGIC)
    assert (header.record_count, header.end_offset) == (3, 5)
    assert (header.first_timestamp_ms, header.max_timestamp_ms) == (1_000, 1_002)
    assert (header.producer_id, header.producer_epoch, header.first_sequence) == (-1, -1, -1)
    assert header.size_bytes == len(BATCH)
    assert decode_batch(BATCH, 0, header) == COLUMNS


def test_a_stamp_identifies_the_producer_of_a_batch() -> None:
    header = read_batch_header(batch_of(stamp=Stamp(7, 3, 41)))
    assert (header.producer_id, header.producer_epoch, header.first_sequence) == (7, 3, 41)


@pytest.mark.parametrize("base_offset", [0, 1, 2**63 - 1])
def test_a_new_base_offset_keeps_the_checksum_valid(base_offset: int) -> None:
    moved = with_base_offset(BATCH, base_offset)
    header = read_batch_header(moved)
    assert header.base_offset == base_offset
    assert decode_batch(moved, 0, header) == COLUMNS


# --- Bounds ----------------------------------------------------------------


def test_an_incomplete_header_is_refused() -> None:
    for end in range(HEADER_BYTES):
        with pytest.raises(RemoteProtocolError, match="cut short"):
            read_batch_header(BATCH[:end])
        with pytest.raises(RemoteProtocolError, match="cut short"):
            read_batch_header(BATCH, 0, end)


@pytest.mark.parametrize("attributes", [0, 0x10])
def test_a_batch_shorter_than_its_header_is_refused(attributes: int) -> None:
    least = HEADER_BYTES - BYTES_BEFORE_LENGTH + (4 if attributes else 0)
    assert read_batch_header(header_of_length(least, attributes)).batch_len == least
    for batch_len in (least - 1, 0, -1, -(2**31)):
        with pytest.raises(RemoteProtocolError, match=f"batch length {batch_len}") as caught:
            read_batch_header(header_of_length(batch_len, attributes))
        assert caught.value.at == 8


def test_a_batch_larger_than_32_mib_is_refused() -> None:
    most = BATCH_BYTES_HARD_MAX - BYTES_BEFORE_LENGTH
    assert read_batch_header(header_of_length(most)).size_bytes == BATCH_BYTES_HARD_MAX
    for batch_len in (most + 1, 2**31 - 1):
        with pytest.raises(RemoteProtocolError, match=f"batch length {batch_len}"):
            read_batch_header(header_of_length(batch_len))


def test_a_batch_has_at_most_a_million_records() -> None:
    record = bytes.fromhex("0c 00 00 00 00 00 00")
    most = RECORDS_PER_BATCH_MAX.to_bytes(4, "big") + record * RECORDS_PER_BATCH_MAX
    assert codec.check_records(most, 0, len(most)) == RECORDS_PER_BATCH_MAX
    more = (RECORDS_PER_BATCH_MAX + 1).to_bytes(4, "big") + most[4:] + record
    with pytest.raises(RemoteProtocolError, match="1000001 records announced"):
        codec.check_records(more, 0, len(more))


def test_an_incomplete_batch_is_corrupt_even_with_a_valid_checksum() -> None:
    for missing in (1, 4, 12):
        cut = with_valid_checksum(BATCH[:-missing])
        header = read_batch_header(cut)
        with pytest.raises(CorruptBatch, match=f"{len(cut)} bytes left"):
            check_crc(cut, 0, header)
        with pytest.raises(CorruptBatch, match=f"{len(cut)} bytes left"):
            decode_batch(cut, 0, header)


# --- Damage ----------------------------------------------------------------


def test_every_flipped_bit_after_the_checksum_is_detected() -> None:
    for at in range(CRC_AT, len(BATCH)):
        for bit in range(8):
            damaged = bytearray(BATCH)
            damaged[at] ^= 1 << bit
            header = read_batch_header(BATCH[:CRC_AT] + bytes(damaged[CRC_AT:]))
            with pytest.raises(CorruptBatch):
                decode_batch(bytes(damaged), 0, header)


@given(data=st.data())
def test_a_hostile_batch_is_decoded_or_reported_as_corrupt(data: st.DataObject) -> None:
    damaged = bytearray(BATCH)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(CRC_COVERS_FROM, len(BATCH) - 1))] = data.draw(
            st.integers(0, 255)
        )
    batch = with_valid_checksum(damaged)
    try:
        header = read_batch_header(batch)
        columns = decode_batch(batch, 0, header)
    except (RemoteProtocolError, CorruptBatch):
        return  # in the header, or in the data after it
    assert len(columns.values) == len(columns.keys) == len(columns.timestamps_ms)


def test_the_error_for_a_corrupt_batch_has_its_offset() -> None:
    damaged = with_base_offset(BATCH[:-1] + b"\x01", 70)
    with pytest.raises(CorruptBatch, match="checksum is") as caught:
        decode_batch(damaged, 0, read_batch_header(damaged))
    assert caught.value.offset == 70


# --- Record sets -----------------------------------------------------------


def test_a_record_set_is_read_batch_by_batch() -> None:
    records = b"head" + BATCH * 3
    starts = [at for _, at in whole_batches(records, 4)]
    assert starts == [4, 4 + len(BATCH), 4 + 2 * len(BATCH)]
    assert [at for _, at in whole_batches(records, 4, 4 + len(BATCH))] == [4]
    assert list(whole_batches(b"")) == []


@given(cut=st.integers(0, 2 * len(BATCH)))
def test_an_incomplete_batch_is_left_out_and_its_size_is_returned(cut: int) -> None:
    records = (BATCH * 2)[:cut]
    whole = cut // len(BATCH)
    assert [at for _, at in whole_batches(records)] == [len(BATCH) * n for n in range(whole)]
    rest = cut - whole * len(BATCH)
    expected = 0 if rest == 0 else HEADER_BYTES if rest < HEADER_BYTES else len(BATCH)
    assert cut_batch_bytes(records, whole * len(BATCH), cut) == expected


def test_an_invalid_batch_length_raises_an_error() -> None:
    records = BATCH + header_of_length(-5)
    walk = whole_batches(records)
    assert next(walk)[1] == 0
    with pytest.raises(RemoteProtocolError, match="batch length -5") as caught:
        next(walk)
    assert caught.value.at == len(BATCH) + 8


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_as_a_record_set_or_refused(data: bytes) -> None:
    try:
        for header, at in whole_batches(data):
            assert at + header.size_bytes <= len(data)
    except RemoteProtocolError:
        pass  # the only error that is allowed
