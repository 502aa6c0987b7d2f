"""The output format of `consume -O table`: one row per JSON object. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streamkit.observe.streams import escaped
from streamkit.record import Chunk

_WIDTH_MAX: Final = 40
_GAP: Final = "  "
# Raised when decoding values that are not JSON, or that are nested too deeply.
NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Table:
    """Formats rows under one header, which is printed once.

    The first object's fields become the columns, and the first chunk sets their width. Longer
    values in later chunks are not cut.
    """

    def __init__(self) -> None:
        self._columns: Sequence[str] = ()
        self._widths: list[int] = []

    def __call__(self, chunk: Chunk) -> bytes:
        rows = [
            _row(value, offset, chunk.partition)
            for value, offset in zip(chunk.values, chunk.offsets, strict=True)
        ]
        lines = []
        if not self._columns:
            self._columns = next((tuple(row) for row in rows if isinstance(row, dict) and row), ())
            if self._columns:
                self._widths = self._widths_for(rows)
                lines.append(self._line([_cell(name.upper()) for name in self._columns]))
        lines += [
            self._line([_cell(row.get(name)) for name in self._columns])
            if isinstance(row, dict)
            else row
            for row in rows
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    def _widths_for(self, rows: Sequence[dict[str, Any] | str]) -> list[int]:
        return [
            min(
                _WIDTH_MAX,
                max(
                    len(name),
                    *(len(_cell(row.get(name))) for row in rows if isinstance(row, dict)),
                ),
            )
            for name in self._columns
        ]

    def _line(self, cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        return _GAP.join(padded).rstrip()


def is_row(value: bytes) -> bool:
    """Return whether a value is a JSON object, whose fields can be columns."""
    try:
        _decode(value)
    except NOT_JSON:
        return False
    return True


def _row(value: bytes, offset: int, partition: int) -> dict[str, Any] | str:
    try:
        return _decode(value)
    except NOT_JSON:
        return f"(not a JSON object: partition {partition}, offset {offset}, {len(value)} bytes)"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return escaped(" ".join(text.split("\n")))
