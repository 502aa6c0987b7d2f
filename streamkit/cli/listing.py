"""Prints lists of flat rows, as a table for people or in a format for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from streamkit.observe.streams import escaped, say

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]

FORMATS: Final = ("table", "json", "yaml", "toml")


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
) -> None:
    """Print rows that all have the same columns.

    Args:
        name: The name of the list, for the formats that need one.
        rows: Values by column name; None is an absent value.
        form: One of FORMATS.
        empty_text: Printed instead of a table without rows.
        table_columns: The columns that the table shows; all of them if left out.
    """
    if form == "json":
        click.echo(json.dumps([dict(row) for row in rows], indent=2))
    elif form == "yaml":
        click.echo("\n".join(map(_yaml, rows)) if rows else "[]")
    elif form == "toml":
        click.echo("\n\n".join(_toml(name, row) for row in rows) if rows else f"{name} = []")
    elif not rows:
        say(empty_text)
    else:
        click.echo(_table(rows, table_columns or list(rows[0])))


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


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
    cells = [[_title(name).upper() for name in names]]
    cells += [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and not value:
        return "-"
    if isinstance(value, list | tuple):
        return escaped(",".join(map(str, value)))
    return escaped(str(value))
