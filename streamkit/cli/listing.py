"""Prints lists of flat rows, as a table for people or in a format for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from streamkit.cli.output import print_line
from streamkit.observe.streams import escaped, say

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]

FORMATS: Final = ("table", "json", "yaml", "toml")
# A last column of prose is not narrower than this, also on a terminal that is too small.
_PROSE_WIDTH_MIN: Final = 16


def output_option(command: F) -> F:
    """Add ``-O/--output`` to a command."""
    return click.option(
        "-O",
        "--output",
        "form",
        type=click.Choice(FORMATS, case_sensitive=False),
        default="table",
        help="Output format",
    )(command)


def write_list(
    name: str,
    rows: Sequence[Row],
    form: str,
    *,
    empty_text: str,
    table_columns: Sequence[str] | None = None,
    has_prose: bool = False,
) -> None:
    """Print rows that all have the same columns.

    Args:
        name: The name of the list, for the formats that need one.
        rows: Values by column name; None is an absent value.
        form: One of FORMATS.
        empty_text: Printed instead of a table without rows.
        table_columns: The columns that the table shows; all of them if left out.
        has_prose: On a terminal, break the texts of the last column into lines that fit.
    """
    out = ListWriter(name, form, table_columns, has_prose=has_prose)
    out.write(rows)
    out.end(empty_text)


class ListWriter:
    """Prints a list in parts, so that a long one is never in memory. See `write_list`.

    The first part sets the widths of the columns; longer values in later parts are not cut.
    """

    def __init__(
        self,
        name: str,
        form: str,
        table_columns: Sequence[str] | None = None,
        *,
        has_prose: bool = False,
    ) -> None:
        self._name = name
        self._form = form
        self._table_columns = table_columns
        self._has_prose = has_prose
        self._widths: list[int] = []
        self._is_begun = False

    def write(self, rows: Sequence[Row]) -> None:
        """Print some rows."""
        if not rows:
            return
        if self._form == "json":
            begin = ",\n" if self._is_begun else "[\n"
            click.echo(begin + ",\n".join(map(_json_item, rows)), nl=False)
        elif self._form == "yaml":
            click.echo("\n".join(map(_yaml, rows)))
        elif self._form == "toml":
            begin = "\n" if self._is_begun else ""
            click.echo(begin + "\n\n".join(_toml(self._name, row) for row in rows))
        else:
            print_line(self._table(rows))
        self._is_begun = True

    def end(self, empty_text: str) -> None:
        """Print what belongs after the last row, or instead of a list without rows."""
        if self._form == "json":
            click.echo("\n]" if self._is_begun else "[]")
        elif self._is_begun:
            return
        elif self._form == "table":
            say(empty_text)
        else:
            click.echo("[]" if self._form == "yaml" else f"{self._name} = []")

    def _table(self, rows: Sequence[Row]) -> str:
        names = self._table_columns or list(rows[0])
        cells = [[_cell(row[name]) for name in names] for row in rows]
        if not self._is_begun:
            cells.insert(0, [_title(name).upper() for name in names])
            self._widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for line in cells:
            padded = [cell.ljust(width) for cell, width in zip(line, self._widths, strict=True)]
            lines.append("  ".join(padded).rstrip())
        if self._has_prose:
            indent = sum(width + 2 for width in self._widths[:-1])
            lines = [line[:indent] + filled(line[indent:], indent)[indent:] for line in lines]
        return "\n".join(lines)


def write_one(row: Row, form: str) -> None:
    """Print one row, in a table with one column per line."""
    if form == "json":
        click.echo(json.dumps(dict(row), indent=2))
    elif form == "yaml":
        click.echo("\n".join(f"{name}: {json.dumps(value)}" for name, value in row.items()))
    elif form == "toml":
        click.echo(_toml_lines(row))
    else:
        width = max(map(len, row)) + 2
        for name, value in row.items():
            click.echo(f"{_title(name) + ':':<{width}}{_cell(value)}")


def filled(text: str, indent: int) -> str:
    """Return a text in lines that fit into the terminal, each with an indent.

    It is one line if the output is not a terminal.
    """
    if not sys.stdout.isatty():
        return " " * indent + text
    room = max(shutil.get_terminal_size().columns - indent, _PROSE_WIDTH_MIN)
    lines = textwrap.wrap(text, room, break_on_hyphens=False)
    return "\n".join(" " * indent + line for line in lines) or " " * indent


def _json_item(row: Row) -> str:
    lines = json.dumps(dict(row), indent=2).split("\n")
    return "\n".join(f"  {line}" for line in lines)


def _yaml(row: Row) -> str:
    # JSON scalars and lists are valid YAML with the same meaning.
    lines = [f"{name}: {json.dumps(value)}" for name, value in row.items()]
    return "- " + "\n  ".join(lines)


def _toml(name: str, row: Row) -> str:
    return f"[[{name}]]\n{_toml_lines(row)}"


def _toml_lines(row: Row) -> str:
    # JSON scalars and lists are valid TOML, too, but TOML has no null.
    return "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in row.items() if value is not None
    )


def _title(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and not value:
        return "-"
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return escaped(text).replace("\n", "\\n")
