"""`streamkit connectors`: the connectors that are installed, and their options."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from streamkit.cli.listing import filled, output_option, write_list
from streamkit.cli.options import Command, Group, with_target_options
from streamkit.cli.output import print_line

if TYPE_CHECKING:
    from streamkit.connectors.registry import ConnectorFacts


@click.group(
    cls=Group,
    examples=("streamkit connectors list", "streamkit connectors show files-jsonl"),
)
@with_target_options
def connectors() -> None:
    """List connectors and show their options."""


@connectors.command(
    "list",
    cls=Command,
    examples=("streamkit connectors list", "streamkit connectors list -O json"),
)
@output_option
@with_target_options
def list_(form: str) -> None:
    """List the installed connectors. One that cannot be imported is listed with its error."""
    from streamkit.connectors.registry import find_all

    rows = [
        {"name": each.name, **_ends(each.facts), "problem": each.problem or None}
        for each in find_all()
    ]
    if form == "table":  # its columns must fit into 80 characters; `show` has the rest
        for row in rows:
            row["summary"] = row["summary"] or f"cannot be used: {row['problem']}"
    write_list(
        "connectors",
        rows,
        form,
        empty_text="no connectors",
        table_columns=["name", "source", "sink", "summary"],
        has_prose=True,
    )


def _ends(facts: ConnectorFacts | None) -> dict[str, str | None]:
    names = ("source", "sink", "lookup", "extra", "guarantee", "summary")
    if facts is None:
        return dict.fromkeys(names)
    return {
        "source": _class_name(facts.source),
        "sink": _class_name(facts.sink),
        "lookup": _class_name(facts.lookup),
        "extra": facts.extra or None,
        "guarantee": facts.guarantee or None,
        "summary": facts.summary,
    }


def _class_name(kind: type[object] | None) -> str | None:
    return None if kind is None else kind.__name__


@connectors.command(
    "show",
    cls=Command,
    examples=(
        "streamkit connectors show files-jsonl",
        "streamkit connectors show files-jsonl --markdown",
    ),
)
@click.argument("name")
@click.option("--markdown", "is_markdown", is_flag=True, help="Print a section for a page")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object")
@with_target_options
def show(name: str, is_markdown: bool, is_json: bool) -> None:
    """Show what the connector NAME does, and its options with types and defaults."""
    from streamkit.connectors.registry import find, markdown, options_of

    facts = find(name)
    if is_markdown:
        click.echo(markdown(facts), nl=False)
        return
    if is_json:
        options = [asdict(each) for each in options_of(facts)]
        found = {"name": facts.name, **_ends(facts), "example": facts.example, "options": options}
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{facts.name}: {facts.summary}")
    for title, text in (
        ("needs", facts.extra and f"pip install 'fluvio-streamkit[{facts.extra}]'"),
        ("writes", facts.guarantee),
        ("looks up", facts.lookup and f"rows by their key, in {facts.lookup.__name__}"),
        ("example", facts.example),
    ):
        if text:
            click.echo(f"{title}: {text}")
    for of in ("source", "sink", "lookup"):
        listed = [each for each in options_of(facts) if each.of == of]
        if listed:
            click.echo(f"\noptions of the {of}:")
        for option in listed:
            default = "required" if option.default is None else f"default {option.default}"
            print_line(filled(f"{option.name}: {option.type}, {default}", indent=2))
            help_text = option.help.replace("`", "")  # the marks of code are for pages
            print_line(filled(help_text, indent=6) if help_text else "")
