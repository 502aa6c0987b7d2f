"""Reads the tables of the pages about the wire protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.docs.pages import ROOT

FOLDER: Final = ROOT / "docs" / "protocol"
PAGES: Final = sorted(FOLDER.glob("*.md"))


@dataclass(frozen=True)
class Table:
    """A table of a page, with the heading and the line above it."""

    heading: str
    caption: str
    head: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        at = self.head.index(name)
        return [row[at] for row in self.rows]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(name: str) -> Iterator[Table]:
    heading = caption = ""
    lines = iter((FOLDER / name).read_text().splitlines())
    for line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            rows = [cells(line)]
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            yield Table(heading, caption, rows[0], rows[2:])
        elif line:
            caption = line


def table(name: str, heading: str, first: str) -> Table:
    """Return the table under a heading whose first column is named ``first``."""
    (found,) = (t for t in tables(name) if t.heading == heading and t.head[0] == first)
    return found


def words(text: str) -> str:
    return text.replace("`", "").replace("*", "")
