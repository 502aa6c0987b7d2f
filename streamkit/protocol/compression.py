"""The four codecs of a batch. Decompression has a size limit.

Source: docs/protocol/batches.md, "Compression".
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec

from streamkit.errors import DataError, RemoteProtocolError, UsageError
from streamkit.limits import (
    DECOMPRESSED_BATCH_BYTES_MAX,
    DECOMPRESSION_RATIO_FREE_BYTES,
    DECOMPRESSION_RATIO_MAX,
)

_SNAPPY_HEAD = b"\xff\x06\x00\x00sNaPpY"
_SNAPPY_BLOCK_BYTES_MAX = 65_536
_ZSTD_LEVEL = 1
_GZIP_WINDOW = 31


class Codec(IntEnum):
    """The codec of a batch, numbered as in the batch attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4

    @classmethod
    def parse(cls, name: str | Codec) -> Codec:
        """Parse the name of a codec, in upper or lower case.

        Raises:
            UsageError: It is not the name of a codec.
        """
        if isinstance(name, Codec):
            return name
        try:
            return cls[name.upper()]
        except (KeyError, AttributeError):
            known = ", ".join(codec.name.lower() for codec in cls)
            raise UsageError(f"{name!r} is not a valid compression", hint=f"use {known}") from None


class DecompressedTooLarge(RemoteProtocolError):
    """The decompressed data exceed a limit: that of the ratio (``is_ratio``) or of a batch."""

    def __init__(self, what: str, cap: int, at: int = 0) -> None:
        self.is_ratio = cap < DECOMPRESSED_BATCH_BYTES_MAX
        limit = (
            f"more than {DECOMPRESSION_RATIO_MAX:,} times their size (DECOMPRESSION_RATIO_MAX)"
            if self.is_ratio
            else "the limit of a batch (DECOMPRESSED_BATCH_BYTES_MAX)"
        )
        super().__init__(f"{what} decompress to more than {cap} bytes, {limit}", at=at)


def compress(codec: Codec, data: bytes) -> bytes:
    """Compress the records of one batch so that stock clients and servers can read them."""
    return _CODECS[codec].compress(data)


def check_growth(codec: Codec, packed_bytes: int, plain_bytes: int) -> None:
    """Refuse a batch whose compression ratio is above the limit of readers.

    Raises:
        DataError: The ratio is above the limit.
    """
    if plain_bytes > max(DECOMPRESSION_RATIO_FREE_BYTES, packed_bytes * DECOMPRESSION_RATIO_MAX):
        raise DataError(
            f"{plain_bytes:,} bytes of records compress to {packed_bytes:,} bytes of "
            f"{codec.name.lower()}: readers accept a ratio of up to {DECOMPRESSION_RATIO_MAX:,} "
            f"for a batch above {DECOMPRESSION_RATIO_FREE_BYTES:,} bytes",
            hint="send the records without compression, or send smaller records",
        )


def decompress(codec: Codec, data: bytes) -> bytes:
    """Decompress the records of one batch, up to a size limit.

    Raises:
        DecompressedTooLarge: The records exceed the limit.
        RemoteProtocolError: The data are not valid for the codec, or are cut short.
    """
    growth = max(DECOMPRESSION_RATIO_FREE_BYTES, len(data) * DECOMPRESSION_RATIO_MAX)
    cap = min(DECOMPRESSED_BATCH_BYTES_MAX, growth)
    try:
        out, complete = _CODECS[codec].decompress(data, cap + 1)
    except RemoteProtocolError:
        raise
    except Exception as error:  # each library raises its own errors, some a plain RuntimeError
        raise RemoteProtocolError(f"{codec.name.lower()} data: {error}", at=0) from error
    if len(out) > cap:
        raise DecompressedTooLarge(f"{len(data)} {codec.name.lower()} bytes", cap)
    if not complete:
        raise RemoteProtocolError(f"{codec.name.lower()} data cut short", at=len(data))
    return out


class _Functions(msgspec.Struct, frozen=True):
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], tuple[bytes, bool]]


def _plain(data: bytes) -> bytes:
    return data


def _plain_capped(data: bytes, cap: int) -> tuple[bytes, bool]:
    return data, True


def _gzip_compress(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def _gzip_decompress(data: bytes, cap: int) -> tuple[bytes, bool]:
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    out = decoder.decompress(data, cap)
    return out, decoder.eof


def _lz4_compress(data: bytes) -> bytes:
    from lz4 import frame

    packed: bytes = frame.compress(data, store_size=False)
    return packed


def _lz4_decompress(data: bytes, cap: int) -> tuple[bytes, bool]:
    from lz4 import frame

    decoder = frame.LZ4FrameDecompressor()
    out: bytes = decoder.decompress(data, cap)
    return out, bool(decoder.eof)


def _zstd_module() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from backports import zstd
    return zstd


def _zstd_compress(data: bytes) -> bytes:
    zstd = _zstd_module()
    encoder = zstd.ZstdCompressor(_ZSTD_LEVEL)
    packed: bytes = encoder.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
    return packed


def _zstd_decompress(data: bytes, cap: int) -> tuple[bytes, bool]:
    decoder = _zstd_module().ZstdDecompressor()
    out: bytes = decoder.decompress(data, cap)
    return out, bool(decoder.eof)


def _snappy_compress(data: bytes) -> bytes:
    import snappy

    packed: bytes = snappy.StreamCompressor().compress(data)
    return packed or _SNAPPY_HEAD  # for empty input the library returns b"", an invalid stream


def _snappy_decompress(data: bytes, cap: int) -> tuple[bytes, bool]:
    import snappy

    _check_snappy_chunks(data, cap)
    out: bytes = snappy.StreamDecompressor().decompress(data)
    return out, True


def _check_snappy_chunks(data: bytes, cap: int) -> None:
    """Check the chunks first, because the library accepts truncated data as a complete stream.

    Raises:
        RemoteProtocolError: The data are not a complete stream in the framing format, or
            hold more than ``cap`` bytes.
    """
    if not data.startswith(_SNAPPY_HEAD):
        raise RemoteProtocolError("snappy data without the header of the framing format", at=0)
    at = total = 0
    while at < len(data):
        if len(data) - at < 4:
            raise RemoteProtocolError("snappy data cut short", at=at)
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 4], "little")
        body = at + 4
        if length > len(data) - body:
            raise RemoteProtocolError("snappy data cut short", at=at)
        if 0x02 <= kind <= 0x7F:
            raise RemoteProtocolError(f"snappy chunk of reserved kind {kind}", at=at)
        if kind <= 0x01:
            total += _snappy_block_bytes(data, body, length, compressed=kind == 0)
            if total > cap:
                raise DecompressedTooLarge("snappy data", cap - 1, at)
        at = body + length


def _snappy_block_bytes(data: bytes, body: int, length: int, *, compressed: bool) -> int:
    """Return the decompressed size of a chunk, which is at most one block."""
    if length < 4:
        raise RemoteProtocolError("snappy chunk without its checksum", at=body)
    size = length - 4
    if compressed:
        size = shift = 0
        for byte in data[body + 4 : min(body + 9, body + length)]:
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
    if size > _SNAPPY_BLOCK_BYTES_MAX:
        raise RemoteProtocolError(
            f"snappy block of {size} bytes, {_SNAPPY_BLOCK_BYTES_MAX} allowed", at=body
        )
    return size


_CODECS = {
    Codec.NONE: _Functions(_plain, _plain_capped),
    Codec.GZIP: _Functions(_gzip_compress, _gzip_decompress),
    Codec.SNAPPY: _Functions(_snappy_compress, _snappy_decompress),
    Codec.LZ4: _Functions(_lz4_compress, _lz4_decompress),
    Codec.ZSTD: _Functions(_zstd_compress, _zstd_decompress),
}
