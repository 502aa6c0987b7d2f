"""The four codecs: what they read, what they refuse, and the limits of decompression."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import Any, Final

import google_crc32c
import pytest
import snappy
from hypothesis import given
from hypothesis import strategies as st
from lz4 import frame as lz4_frame

from streamkit.errors import CorruptBatch, RemoteProtocolError, UsageError
from streamkit.limits import (
    BATCH_BYTES_MAX,
    DECOMPRESSED_BATCH_BYTES_MAX,
    DECOMPRESSION_RATIO_FREE_BYTES,
    DECOMPRESSION_RATIO_MAX,
    MIB,
)
from streamkit.protocol.batch import (
    CRC_AT,
    CRC_COVERS_FROM,
    Columns,
    assemble_batch,
    decode_batch,
    encode_batch,
    plain_records,
    read_batch_header,
)
from streamkit.protocol.codec import fit_rows
from streamkit.protocol.compression import Codec, compress, decompress

try:
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from backports import zstd

REAL: Final = (Codec.GZIP, Codec.SNAPPY, Codec.LZ4, Codec.ZSTD)
SNAPPY_HEAD: Final = b"\xff\x06\x00\x00sNaPpY"

each_codec = pytest.mark.parametrize("codec", REAL, ids=lambda codec: codec.name)


def snappy_chunk(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def snappy_checksum(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def bomb(codec: Codec, size: int) -> bytes:
    """Compress zeros as much as the codec can."""
    zeros = bytes(size)
    if codec is Codec.GZIP:
        return gzip.compress(zeros, 9)
    if codec is Codec.LZ4:
        return bytes(lz4_frame.compress(zeros, compression_level=16))
    if codec is Codec.ZSTD:
        return bytes(zstd.compress(zeros, 19))
    return compress(codec, zeros)


@given(data=st.binary(max_size=70_000), codec=st.sampled_from(Codec))
def test_compressed_data_can_be_decompressed(data: bytes, codec: Codec) -> None:
    assert decompress(codec, compress(codec, data)) == data


@each_codec
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, BATCH_BYTES_MAX])
def test_data_of_every_size_are_decompressed(codec: Codec, size: int) -> None:
    data = bytes(size)
    assert decompress(codec, compress(codec, data)) == data


@each_codec
def test_a_compression_bomb_is_refused_by_its_ratio(codec: Codec) -> None:
    """Snappy and LZ4 cannot reach a ratio of 1,000, so only the absolute limit stops them."""
    packed = bomb(codec, 20 * MIB)
    if len(packed) * DECOMPRESSION_RATIO_MAX >= 20 * MIB:
        assert codec in (Codec.SNAPPY, Codec.LZ4)
        return
    with pytest.raises(RemoteProtocolError, match="decompress to more than"):
        decompress(codec, packed)


@each_codec
def test_a_compression_bomb_is_refused_at_the_size_limit_of_a_batch(codec: Codec) -> None:
    packed = bomb(codec, DECOMPRESSED_BATCH_BYTES_MAX + 1) + (
        bytes(40_000) if codec in (Codec.GZIP, Codec.ZSTD) else b""  # so the ratio is allowed
    )
    with pytest.raises(RemoteProtocolError, match=f"more than {DECOMPRESSED_BATCH_BYTES_MAX}"):
        decompress(codec, packed)


@each_codec
def test_a_batch_of_the_largest_size_is_decompressed(codec: Codec) -> None:
    packed = bomb(codec, DECOMPRESSED_BATCH_BYTES_MAX) + (
        bytes(40_000) if codec in (Codec.GZIP, Codec.ZSTD) else b""
    )
    assert len(decompress(codec, packed)) == DECOMPRESSED_BATCH_BYTES_MAX


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.ZSTD])
def test_a_small_batch_may_have_any_compression_ratio(codec: Codec) -> None:
    free = DECOMPRESSION_RATIO_FREE_BYTES
    packed = bomb(codec, free)
    assert len(packed) * 100 < free
    assert len(decompress(codec, packed)) == free


def test_a_compression_bomb_uses_no_more_memory_than_a_batch() -> None:
    packed = bomb(Codec.GZIP, 256 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="decompress to more than"):
            decompress(Codec.GZIP, packed + bytes(MIB))
        assert tracemalloc.get_traced_memory()[1] < 3 * DECOMPRESSED_BATCH_BYTES_MAX
    finally:
        tracemalloc.stop()


@each_codec
def test_truncated_data_are_refused(codec: Codec) -> None:
    packed = compress(codec, bytes(range(256)) * 3)
    complete = len(SNAPPY_HEAD) if codec is Codec.SNAPPY else -1  # an empty stream is complete
    for end in range(len(packed)):
        if end != complete:
            with pytest.raises(RemoteProtocolError):
                decompress(codec, packed[:end])


@each_codec
def test_data_of_another_codec_are_refused(codec: Codec) -> None:
    for other in REAL:
        if other is not codec:
            with pytest.raises(RemoteProtocolError):
                decompress(codec, compress(other, b"some records"))


@each_codec
@given(data=st.data())
def test_changed_data_are_decompressed_or_raise_a_protocol_error(
    codec: Codec, data: st.DataObject
) -> None:
    packed = bytearray(compress(codec, b"some records, some records, some records" * 5))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        decompress(codec, bytes(packed))
    except RemoteProtocolError:
        pass  # the only error that is allowed


@given(data=st.binary(max_size=300), codec=st.sampled_from(REAL))
def test_garbage_is_decompressed_or_raises_a_protocol_error(data: bytes, codec: Codec) -> None:
    for garbage in (data, SNAPPY_HEAD + data):
        try:
            decompress(codec, garbage)
        except RemoteProtocolError:
            pass  # the only error that is allowed


# --- Gzip, LZ4 and zstd ----------------------------------------------------


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.LZ4, Codec.ZSTD])
def test_bytes_after_a_frame_are_ignored(codec: Codec) -> None:
    assert decompress(codec, compress(codec, b"records") + b"trailing") == b"records"


def test_zstd_is_read_with_and_without_a_content_size() -> None:
    encoder = zstd.ZstdCompressor(1)
    unsized = encoder.compress(b"records") + encoder.flush()
    assert zstd.get_frame_info(unsized).decompressed_size is None, "as stock clients write it"
    sized = zstd.compress(b"records")
    assert zstd.get_frame_info(sized).decompressed_size == 7
    assert decompress(Codec.ZSTD, unsized) == decompress(Codec.ZSTD, sized) == b"records"


@pytest.mark.parametrize(
    "options",
    [
        {"block_linked": True},
        {"block_linked": False},
        {"store_size": True},
        {"content_checksum": True, "block_checksum": True},
    ],
)
def test_lz4_frames_are_read_with_every_option(options: dict[str, Any]) -> None:
    data = bytes(range(256)) * 1_000
    assert decompress(Codec.LZ4, lz4_frame.compress(data, **options)) == data


# --- Snappy ----------------------------------------------------------------


def test_a_snappy_bomb_is_refused_before_it_is_decompressed() -> None:
    packed = bomb(Codec.SNAPPY, DECOMPRESSED_BATCH_BYTES_MAX + MIB)
    with pytest.raises(RemoteProtocolError, match="snappy data decompress to more") as caught:
        decompress(Codec.SNAPPY, packed)
    assert caught.value.at > len(packed) // 2, "the position of the first chunk above the limit"


def test_snappy_data_without_the_framing_format_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="without the header of the framing format"):
        decompress(Codec.SNAPPY, snappy.compress(b"records"))


@pytest.mark.parametrize("kind", [0x02, 0x40, 0x7F])
def test_an_unskippable_snappy_chunk_is_refused(kind: int) -> None:
    data = compress(Codec.SNAPPY, b"records") + snappy_chunk(kind, b"?")
    with pytest.raises(RemoteProtocolError, match=f"reserved kind {kind}"):
        decompress(Codec.SNAPPY, data)


@pytest.mark.parametrize("kind", [0x80, 0xFD, 0xFE])
def test_a_skippable_snappy_chunk_is_skipped(kind: int) -> None:
    data = compress(Codec.SNAPPY, b"records") + snappy_chunk(kind, b"padding")
    assert decompress(Codec.SNAPPY, data) == b"records"


def test_a_snappy_chunk_may_be_uncompressed() -> None:
    plain = b"records"
    data = SNAPPY_HEAD + snappy_chunk(1, snappy_checksum(plain) + plain)
    assert decompress(Codec.SNAPPY, data) == plain


@pytest.mark.parametrize("kind", [0, 1])
def test_a_snappy_chunk_larger_than_a_block_is_refused(kind: int) -> None:
    body = bytes(4) + (b"\x81\x80\x04" if kind == 0 else bytes(65_537))
    with pytest.raises(RemoteProtocolError, match="snappy block of 65537 bytes"):
        decompress(Codec.SNAPPY, SNAPPY_HEAD + snappy_chunk(kind, body))


def test_a_snappy_chunk_without_a_checksum_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="without its checksum"):
        decompress(Codec.SNAPPY, SNAPPY_HEAD + snappy_chunk(0, b"abc"))


# --- Names and batches -----------------------------------------------------


def test_codec_names_are_case_insensitive() -> None:
    assert [Codec.parse(name) for name in ("none", "GZIP", "Snappy", "lz4")] == list(Codec)[:4]
    assert Codec.parse(Codec.ZSTD) is Codec.ZSTD
    for name in ("brotli", "", "any"):
        with pytest.raises(UsageError, match="is not a valid compression"):
            Codec.parse(name)


def fit_rows_of(rows: tuple[list[bytes], list[bytes | None], list[int]]) -> tuple[int, int, int]:
    end, size = fit_rows(*rows, 0, MIB, 100)
    return 0, end, size


@pytest.mark.parametrize("codec", Codec, ids=lambda codec: codec.name)
def test_a_batch_is_written_and_read_with_every_codec(codec: Codec) -> None:
    columns = Columns([b"a" * 50, b"b"], [b"k", None], [1_000, 1_007])
    rows = columns.values, columns.keys, columns.timestamps_ms
    batch = encode_batch(columns, *fit_rows_of(rows), codec_used=codec)
    header = read_batch_header(batch)
    assert header.codec_number == codec
    assert (header.record_count, header.first_timestamp_ms, header.max_timestamp_ms) == (
        2,
        1_000,
        1_007,
    )
    assert decode_batch(batch, 0, header) == columns


@pytest.mark.parametrize("number", [5, 6, 7])
def test_a_batch_with_an_unknown_codec_is_refused(number: int) -> None:
    written = bytearray(encode_batch(Columns([b""], [None], [1]), 0, 1, 7))
    written[CRC_COVERS_FROM + 1] = number
    written[CRC_AT:CRC_COVERS_FROM] = google_crc32c.value(
        bytes(written[CRC_COVERS_FROM:])
    ).to_bytes(4, "big")
    batch = bytes(written)
    header = read_batch_header(batch)
    with pytest.raises(RemoteProtocolError, match=f"unknown codec {number}"):
        plain_records(batch, 0, header)
    with pytest.raises(CorruptBatch, match=f"unknown codec {number}"):
        decode_batch(batch, 0, header)


@each_codec
def test_a_batch_with_a_compression_bomb_is_corrupt(codec: Codec) -> None:
    batch = assemble_batch(
        bomb(codec, DECOMPRESSED_BATCH_BYTES_MAX + 1),
        record_count=1,
        codec_used=codec,
        first_timestamp_ms=1,
        max_timestamp_ms=1,
    )
    with pytest.raises(CorruptBatch, match="decompress to more than"):
        decode_batch(batch, 0, read_batch_header(batch))
