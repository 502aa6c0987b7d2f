"""Replaces the texts of secrets in reports and errors, where user code may have written them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

import msgspec

from streamkit.errors import StreamKitError
from streamkit.settings.secret import HIDDEN, Secret

# A shorter text is also a part of other words, so hiding it would only spoil the reports.
_CHARACTERS_MIN: Final = 4


class Hiding:
    """Replaces the texts of all secrets in some settings by ``***``.

    A text is also found as `repr`, JSON and URLs write it.

    Args:
        values: The settings; None if there are none.
    """

    def __init__(self, values: msgspec.Struct | None) -> None:
        texts = {each for secret in _secrets(values) for each in _forms(secret.reveal())}
        longest_first = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if texts else None

    def __call__(self, text: str) -> str:
        """Return a text without secrets."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Remove secrets from the text of an error of streamkit that leaves the block."""
        try:
            yield
        except StreamKitError as error:
            error.args = tuple(self(each) if isinstance(each, str) else each for each in error.args)
            error.hint = self(error.hint)
            error.__notes__ = [self(each) for each in getattr(error, "__notes__", ())]
            raise


def _forms(text: str) -> Iterator[str]:
    if len(text) >= _CHARACTERS_MIN:
        yield from (text, repr(text)[1:-1], json.dumps(text)[1:-1])
        yield quote(text, safe="", errors="replace")


def _secrets(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        yield from _secrets([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _secrets(each)
