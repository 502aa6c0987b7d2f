"""A TOML file as text, changed table by table: comments, order and forms beside a change stay.

All functions take and return the whole text. What comes out is to be checked by parsing it: a file
may be in a form, such as tables within braces, that is not changed here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

# What can hold a bracket without being the head of a table comes first.
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
    """Let ``change`` change ``[section.name]``, which is made if it is missing, behind the last
    table of its section.
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
    """Cut out ``[section.name]`` and all tables below it."""
    for table in reversed(_tables(text)):
        if table.path[:2] == (section, name):
            # A comment that an empty line keeps apart speaks of what follows.
            text = text[: table.start] + text[_own_end(text, table) :]
    return text


def with_renamed_table(text: str, section: str, old: str, new: str) -> str:
    """Call ``[section.old]`` otherwise, in its own head and in those of the tables below it."""
    import tomlkit

    for table in reversed(_tables(text)):
        if table.path[:2] == (section, old):
            path = [tomlkit.key(part).as_string() for part in (section, new, *table.path[2:])]
            text = f"{text[: table.start]}[{'.'.join(path)}]{text[table.head_end :]}"
    return text


def with_value(text: str, key: str, value: str | None) -> str:
    """Set a value that is in no table; None removes it."""
    import tomlkit

    tables = _tables(text)
    end = _own_end(text, _Table((), 0, 0, tables[0].start if tables else len(text)))
    own, below = text[:end].rstrip(), text[end:].lstrip()
    document = tomlkit.parse(f"{own}\n" if own else "")
    between = "\n" if below else ""
    if key in document:  # what stands below stays where it is
        between, below = "", text[len(own) :].removeprefix("\n")
    if value is None:
        document.pop(key, None)
    else:
        document[key] = value
    return tomlkit.dumps(document) + between + below


def in_its_line_ends(text: str, rewrite: Callable[[str], str]) -> str:
    """Rewrite a text as if its lines ended as on Unix, also where they do not."""
    if text.count("\r\n") == text.count("\n") > 0:
        return rewrite(text.replace("\r\n", "\n")).replace("\n", "\r\n")
    return rewrite(text)


@dataclass(frozen=True, slots=True)
class _Table:
    """Where a table stands in a text: its head, and all up to the next one's."""

    path: tuple[str, ...]
    start: int
    head_end: int
    end: int


def _tables(text: str) -> list[_Table]:
    heads = [found for found in _TOKEN.finditer(text) if found["head"]]
    ends = [*(found.start() for found in heads[1:]), len(text)]
    return [
        _Table(_path_of(found["head"]), found.start(), found.end(), end)
        for found, end in zip(heads, ends, strict=False)  # without a head there is no end
    ]


def _path_of(head: str) -> tuple[str, ...]:
    path, data = [], tomllib.loads(head)
    while data:
        ((key, data),) = data.items()
        path.append(key)
    return tuple(path)


def _own_end(text: str, table: _Table) -> int:
    """Return where a table ends and comments begin that speak of what follows."""
    of_next = _TRAILING_COMMENTS.search(text, table.start, table.end)
    return of_next.start(1) if of_next and "#" in of_next[1] else table.end
