"""Minimal WebAssembly modules, built byte by byte."""

from __future__ import annotations

from typing import Final

HEAD: Final = b"\0asm" + (1).to_bytes(4, "little")


def section(number: int, content: bytes) -> bytes:
    """Return a section; a length below 128 is one byte."""
    assert len(content) < 128
    return bytes([number, len(content)]) + content


def module(export: str = "filter") -> bytes:
    """Return a module that exports one function without parameters or results.

    Source: WebAssembly core specification, 5.5.
    """
    name = export.encode()
    return HEAD + b"".join(
        (
            section(1, b"\x01\x60\x00\x00"),  # one type: () -> ()
            section(3, b"\x01\x00"),  # one function, of type 0
            section(7, b"\x01" + bytes([len(name)]) + name + b"\x00\x00"),  # exported
            section(10, b"\x01\x02\x00\x0b"),  # its body: no locals, end
        )
    )
