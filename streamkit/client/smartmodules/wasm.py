"""WebAssembly modules on their way to a server: is it one, and its gzip. Pure.

Source: control plane reference, 4.6; WebAssembly core specification, 5.5.
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
_BUILD_HINT: Final = "`smdk build`, or `cargo build --target wasm32-wasip1`, makes one"


def compressed_module(wasm: bytes) -> bytes:
    """Return the gzip of a module, which is what servers take.

    Args:
        wasm: A wasm binary, or the gzip of one, which is taken as it is.

    Raises:
        UsageError: It is neither, or it is cut short.
    """
    if wasm.startswith(_GZIP_MAGIC):
        try:
            _check(gzip.decompress(wasm))
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"the SmartModule is a broken gzip: {error}") from error
        return wasm
    _check(wasm)
    # Without a time in its header: the same module is the same bytes in every request.
    return gzip.compress(wasm, mtime=0)


def _check(wasm: bytes) -> None:
    if not wasm.startswith(_MAGIC):
        is_text = wasm.lstrip().startswith(b"(module")
        raise UsageError(
            f"the SmartModule is no wasm binary: it begins with {wasm[:4]!r}, not with \\0asm",
            hint="that is the text form; `wat2wasm` makes the binary" if is_text else _BUILD_HINT,
        )
    if not wasm.startswith(_HEAD):
        version = int.from_bytes(wasm[4:8], "little")
        raise UsageError(
            f"the SmartModule is wasm of version {version:#x}, servers run version 0x1",
            hint="a component is no module; " + _BUILD_HINT,
        )
    if wrong := _section_problem(wasm):
        raise UsageError(f"the SmartModule is damaged: {wrong}", hint="build or copy it again")


def _section_problem(wasm: bytes) -> str | None:
    """Walk over the sections, so that a file that was cut short is found here."""
    at = len(_HEAD)
    while at < len(wasm):
        start, number = at, wasm[at]
        if number > _SECTIONS_MAX:
            return f"section {number} at byte {start}"
        reader = Reader(wasm, at + 1)
        try:
            reader.skip(read_unsigned(reader))
        except RemoteProtocolError as error:
            return f"the section at byte {start} is cut short: {error}"
        at = reader.at
    return None
