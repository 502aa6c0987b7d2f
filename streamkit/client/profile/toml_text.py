"""Edits TOML as text, one table at a time, and keeps comments, order and formatting.

All functions take and return the whole text. The caller must parse the result to check it: some
forms, such as inline tables in braces, are not supported and stay unchanged.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

# Tokens that may contain a bracket but are not the header of a table come first.
_TOKEN: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|^[ \t]*(?P<head>\[(?!\[)[^\n#]*\])(?=[ \t]*(?:#[^\n]*)?\r?$)",
    re.DOTALL | re.MULTILINE,
)
_TRAILING_COMMENTS: Final = re.compile(r"\n[ \t]*\r?\n((?:[ \t]*(?:#[^\n]*)?\n)*)\Z")


def with_table(text: str, section: str, name: str, change: Callable[[Any], None]) -> str:
    """Apply ``change`` to ``[section.name]``. A missing table is added after the last one of its
    section.
    """
    import tomlkit

    tables = _tables(text)
    own = [table for table in tables if table.path[:2] == (section, name)]
    if own:
        document = tomlkit.parse("".join(text[table.start : table.end] for table in own))
        change(document[section][name])
        for table in reversed(own[1:]):
            text = text[: table.start] + text[table.end :]
        return text[: own[0].start] + tomlkit.dumps(document) + text[own[0].end :]
    values = tomlkit.table()
    change(values)
    parent = tomlkit.table(is_super_table=True)
    parent.append(name, values)
    document = tomlkit.document()
    document.append(section, parent)
    ends = [_own_end(text, table) for table in tables if table.path[0] == section]
    at = ends[-1] if ends else len(text)
    above, below = text[:at].rstrip(), text[at:].lstrip()
    parts = (above, tomlkit.dumps(document).rstrip(), below)
    return "\n\n".join(filter(None, parts)) + ("" if below else "\n")


def without_table(text: str, section: str, name: str) -> str:
    """Remove ``[section.name]`` and all its subtables."""
    for table in reversed(_tables(text)):
        if table.path[:2] == (section, name):
            # A comment after an empty line belongs to the next table.
            text = text[: table.start] + text[_own_end(text, table) :]
    return text


def with_renamed_table(text: str, section: str, old: str, new: str) -> str:
    """Rename ``[section.old]``, in its own header and in those of its subtables."""
    import tomlkit

    for table in reversed(_tables(text)):
        if table.path[:2] == (section, old):
            path = [tomlkit.key(part).as_string() for part in (section, new, *table.path[2:])]
            text = f"{text[: table.start]}[{'.'.join(path)}]{text[table.head_end :]}"
    return text


def with_value(text: str, key: str, value: str | None) -> str:
    """Set a top-level value; None removes it."""
    import tomlkit

    tables = _tables(text)
    end = _own_end(text, _Table((), 0, 0, tables[0].start if tables else len(text)))
    own, below = text[:end].rstrip(), text[end:].lstrip()
    document = tomlkit.parse(f"{own}\n" if own else "")
    between = "\n" if below else ""
    if key in document:  # keep the empty lines before the tables as they are
        between, below = "", text[len(own) :].removeprefix("\n")
    if value is None:
        document.pop(key, None)
    else:
        document[key] = value
    return tomlkit.dumps(document) + between + below


def in_its_line_ends(text: str, rewrite: Callable[[str], str]) -> str:
    """Rewrite a text with Unix line ends, and restore Windows line ends afterwards."""
    if text.count("\r\n") == text.count("\n") > 0:
        return rewrite(text.replace("\r\n", "\n")).replace("\n", "\r\n")
    return rewrite(text)


@dataclass(frozen=True, slots=True)
class _Table:
    """The position of a table in a text: its header, and everything up to the next header."""

    path: tuple[str, ...]
    start: int
    head_end: int
    end: int


def _tables(text: str) -> list[_Table]:
    heads = [found for found in _TOKEN.finditer(text) if found["head"]]
    ends = [*(found.start() for found in heads[1:]), len(text)]
    return [
        _Table(_path_of(found["head"]), found.start(), found.end(), end)
        for found, end in zip(heads, ends, strict=False)  # without headers, `ends` has one item
    ]


def _path_of(head: str) -> tuple[str, ...]:
    path, data = [], tomllib.loads(head)
    while data:
        ((key, data),) = data.items()
        path.append(key)
    return tuple(path)


def _own_end(text: str, table: _Table) -> int:
    """Return the end of a table, before comments that belong to the next one."""
    of_next = _TRAILING_COMMENTS.search(text, table.start, table.end)
    return of_next.start(1) if of_next and "#" in of_next[1] else table.end
