"""Words that Fluvio's tools accept in several spellings.

Source: docs/protocol/produce-and-fetch.md, "How a stock producer sends".
"""

from __future__ import annotations

from typing import Final

import click


class Choice(click.ParamType[str]):
    """One of a few words; case, hyphens and underscores do not matter."""

    name = "word"

    def __init__(self, *words: str) -> None:
        self._words = {_bare(word): word for word in words}

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(self._words.values())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = self._words.get(_bare(value))
        if found is None:
            self.fail(f"{value!r} is not one of {', '.join(self._words.values())}", param, ctx)
        return found


def _bare(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")


ISOLATION: Final = Choice("read_committed", "read_uncommitted")
DELIVERY: Final = Choice("at-least-once", "at-most-once")
