"""Text that is not shown by accident, such as a password."""

from __future__ import annotations

import hmac
from typing import Final, NoReturn

from streamkit.errors import UsageError

HIDDEN: Final = "***"


class Secret:
    """Text that must not be shown, such as a password or a token.

    `repr`, `str` and `format` return ``***``. It cannot be pickled and cannot be written as JSON.
    `reveal` returns the text.

    Args:
        text: The text to hide.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise UsageError(f"a Secret contains text, not {type(text).__name__}")
        self.__text = text

    def reveal(self) -> str:
        """Return the text."""
        return self.__text

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_as_bytes(self.__text), _as_bytes(other.__text))

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled; use reveal() if its text may be stored")


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
