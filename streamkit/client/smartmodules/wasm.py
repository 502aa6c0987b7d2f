"""Checks and compresses WebAssembly modules before they are sent. Pure.

Source: docs/protocol/smartmodules.md, "Naming a module"; WebAssembly core specification, 5.5.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Final

from streamkit.errors import RemoteProtocolError, UsageError
from streamkit.protocol.schema import Reader
from streamkit.protocol.varint import read_unsigned

_MAGIC: Final = b"\0asm"
_HEAD: Final = _MAGIC + (1).to_bytes(4, "little")
_GZIP_MAGIC: Final = b"\x1f\x8b"
_SECTIONS_MAX: Final = 13
_BUILD_HINT: Final = "build one with `smdk build` or `cargo build --target wasm32-wasip1`"


def compressed_module(wasm: bytes) -> bytes:
    """Return the gzip of a module, as servers require it.

    Args:
        wasm: A wasm binary, or the gzip of one, which is returned unchanged.

    Raises:
        UsageError: It is neither, or it is incomplete.
    """
    if wasm.startswith(_GZIP_MAGIC):
        try:
            _check(gzip.decompress(wasm))
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"the SmartModule is not valid gzip: {error}") from error
        return wasm
    _check(wasm)
    # Without a time in the header, so that the same module gives the same bytes each time.
    return gzip.compress(wasm, mtime=0)


def _check(wasm: bytes) -> None:
    if not wasm.startswith(_MAGIC):
        is_text = wasm.lstrip().startswith(b"(module")
        raise UsageError(
            f"the SmartModule is not a wasm binary: it begins with {wasm[:4]!r}, not with \\0asm",
            hint="this is the text form; convert it with `wat2wasm`" if is_text else _BUILD_HINT,
        )
    if not wasm.startswith(_HEAD):
        version = int.from_bytes(wasm[4:8], "little")
        raise UsageError(
            f"the SmartModule is wasm version {version:#x}, but servers need version 0x1",
            hint="a component is not a module; " + _BUILD_HINT,
        )
    if wrong := _section_problem(wasm):
        raise UsageError(f"the SmartModule is damaged: {wrong}", hint="build or copy it again")


def _section_problem(wasm: bytes) -> str | None:
    """Check the sections, to detect a truncated file before it is sent."""
    at = len(_HEAD)
    while at < len(wasm):
        start, number = at, wasm[at]
        if number > _SECTIONS_MAX:
            return f"unknown section {number} at byte {start}"
        reader = Reader(wasm, at + 1)
        try:
            reader.skip(read_unsigned(reader))
        except RemoteProtocolError as error:
            return f"the section at byte {start} is incomplete: {error}"
        at = reader.at
    return None
