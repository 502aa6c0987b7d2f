"""Lines of a file as one text, so that a decoder can take them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final, overload

# How many bytes at the beginning of two lines are compared.
_COMPARED_BYTES: Final = 32


class LineBlock(Sequence[bytes]):
    """Lines as one text without its last line end. It is divided only if a line is needed alone.

    Args:
        text: The lines, separated by ``\\n``.
        count: How many they are.
    """

    __slots__ = ("_are_braced", "_count", "_lines", "text")

    def __init__(self, text: bytes, count: int) -> None:
        self.text = text
        self._are_braced: bool | None = None
        self._count = count
        self._lines: list[bytes] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def are_braced(self) -> bool:
        """Whether each line begins with ``{`` and ends with ``}``."""
        if self._are_braced is None:
            is_clear = self.text.startswith(b"{") and self.text.endswith(b"}")
            self._are_braced = is_clear and self._are_divided_by_braces()
        return self._are_braced

    def _are_divided_by_braces(self) -> bool:
        text, ends = self.text, self._count - 1
        # A longer text is found faster, and most lines begin as the first two do.
        second = text.find(b"\n") + 1
        pairs = zip(text[:_COMPARED_BYTES], text[second : second + _COMPARED_BYTES], strict=False)
        common = bytes(each for each, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if common and text.count(b"}\n" + common) == ends:
            return True
        return text.count(b"}\n{") == ends

    @overload
    def __getitem__(self, at: int, /) -> bytes: ...
    @overload
    def __getitem__(self, at: slice, /) -> list[bytes]: ...
    def __getitem__(self, at: int | slice, /) -> bytes | list[bytes]:
        return self._divided()[at]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._divided())

    def _divided(self) -> list[bytes]:
        if self._lines is None:
            self._lines = self.text.split(b"\n")
        return self._lines
