"""The connectors that are installed, with their options as their classes declare them.

Those of other packages are found by their entry points in the group ``streamkit.connectors``, each
of which names a `ConnectorFacts`. Our own are listed here, so a checkout needs no installation.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, get_origin

from streamkit.dataflow.contracts import Sink, Source
from streamkit.errors import UsageError

GROUP: Final = "streamkit.connectors"
BUILT_IN: Final[Mapping[str, str]] = {
    "files": "streamkit.connectors.files.facts:FILES",
    "files-jsonl": "streamkit.connectors.files.facts:JSONL",
    "http": "streamkit.connectors.http.facts:HTTP",
    "kafka": "streamkit.connectors.kafka.facts:KAFKA",
    "postgres": "streamkit.connectors.sql.facts:POSTGRES",
    "server-sent-events": "streamkit.connectors.http.facts:SERVER_SENT_EVENTS",
    "sql": "streamkit.connectors.sql.facts:OTHERS",
    "sqlite": "streamkit.connectors.sql.facts:SQLITE",
    "webhook": "streamkit.connectors.http.facts:WEBHOOK",
}


@dataclass(frozen=True, slots=True)
class ConnectorFacts:
    """What ``streamkit connectors`` shows about a connector.

    Attributes:
        name: A name of a-z, 0-9 and ``-``.
        summary: What it reads or writes, in one line.
        source: The class of its source; None if it only writes.
        sink: The class of its sink; None if it only reads.
        lookup: The class of its table for `Stream.lookup`; None if it has none.
        extra: The extra to install, such as ``kafka``; empty if nothing is needed.
        guarantee: How often a record is written after a crash, such as ``at least once``.
        example: A line of Python that uses it.
        schemes: The schemes of its ends in ``streamkit copy``, such as ``kafka``.
        suffixes: The endings of paths that it reads or writes, such as ``.csv``.
        source_of: Returns its source for an end, such as ``kafka://host/topic`` or a path.
        sink_of: Returns its sink for an end.
    """

    name: str
    summary: str
    source: type[Any] | None = None
    sink: type[Any] | None = None
    lookup: type[Any] | None = None
    extra: str = ""
    guarantee: str = ""
    example: str = ""
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    source_of: Callable[[str], Source[Any]] | None = None
    sink_of: Callable[[str], Sink[Any]] | None = None


@dataclass(frozen=True, slots=True)
class OptionFacts:
    """One option of a source or sink; ``default`` is None if the option must be given."""

    of: str
    name: str
    type: str
    default: str | None
    help: str


@dataclass(frozen=True, slots=True)
class Found:
    """A connector by its name; ``facts`` is None if it cannot be imported, for ``problem``."""

    name: str
    facts: ConnectorFacts | None
    problem: str = ""


def find_all() -> list[Found]:
    """Return all connectors by name; one that is broken does not hide the others."""
    found = [_loaded(EntryPoint(name, path, GROUP)) for name, path in BUILT_IN.items()]
    others = [each for each in entry_points(group=GROUP) if each.name not in BUILT_IN]
    return sorted([*found, *map(_loaded, others)], key=lambda each: each.name)


def find(name: str) -> ConnectorFacts:
    """Return the facts of one connector.

    Raises:
        UsageError: There is none with this name, or it cannot be imported.
    """
    all_found = find_all()
    for each in all_found:
        if each.name == name:
            if each.facts is None:
                raise UsageError(f"the connector {name!r} cannot be used: {each.problem}")
            return each.facts
    names = ", ".join(each.name for each in all_found)
    raise UsageError(f"there is no connector {name!r}", hint=f"there are: {names}")


def _loaded(entry: EntryPoint) -> Found:
    try:
        facts = entry.load()
    except Exception as error:  # code of another package
        return Found(entry.name, None, f"{entry.value}: {type(error).__name__}: {error}")
    if not isinstance(facts, ConnectorFacts):
        return Found(entry.name, None, f"{entry.value} is not a ConnectorFacts")
    return Found(entry.name, facts)


def options_of(facts: ConnectorFacts) -> list[OptionFacts]:
    """Return the options of the source, of the sink, and of a lookup with a class of its own."""
    lookup = None if facts.lookup is facts.source else facts.lookup
    found: list[OptionFacts] = []
    for of, kind in (("source", facts.source), ("sink", facts.sink), ("lookup", lookup)):
        if kind is not None and dataclasses.is_dataclass(kind):
            found += _fields(of, kind)
    return found


def _fields(of: str, kind: type[Any]) -> Iterator[OptionFacts]:
    helps = _attributes(inspect.getdoc(kind) or "")
    for each in dataclasses.fields(kind):
        if not each.init or each.name.startswith("_"):
            continue
        kind_text = _type_text(each.type, vars(sys.modules[kind.__module__]))
        text = str(each.metadata.get("help", helps.get(each.name, "")))
        yield OptionFacts(of, each.name, kind_text, _default(each), text)


def _type_text(kind: Any, names: Mapping[str, Any]) -> str:
    """Return a type with the names of aliases replaced by their types, without modules."""
    text = kind if isinstance(kind, str) else str(kind)

    def named(word: re.Match[str]) -> str:
        value = names.get(word[0])
        return word[0] if get_origin(value) is None else str(value)

    text = re.sub(r"\w+", named, text)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text)


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return None if field.default is dataclasses.MISSING else repr(field.default)


def _attributes(doc: str) -> dict[str, str]:
    """Return the texts of the section "Attributes:" of a docstring."""
    section = re.search(r"^Attributes:\n((?: +.*\n?|\n)+)", doc, re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines() if section else ():
        begin = re.match(r" {4}(\w+): (.*)", line)
        if begin:
            name = begin[1]
            found[name] = begin[2].strip()
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def markdown(facts: ConnectorFacts) -> str:
    """Return the section of a page about a connector."""
    lines = [f"### {facts.name}", "", f"{facts.summary}", ""]
    if facts.extra:
        lines += [f"It needs `pip install 'fluvio-streamkit[{facts.extra}]'`.", ""]
    if facts.guarantee:
        lines += [f"Its sink writes {facts.guarantee}.", ""]
    if facts.lookup is not None:
        lines += [f"`Stream.lookup` finds rows in its `{facts.lookup.__name__}`.", ""]
    options = options_of(facts)
    if options:
        lines += ["| option | of the | type | default | meaning |", "|---|---|---|---|---|"]
    for each in options:
        default = "required" if each.default is None else f"`{each.default}`"
        kind = each.type.replace("|", r"\|")
        lines.append(f"| `{each.name}` | {each.of} | `{kind}` | {default} | {each.help} |")
    return "\n".join(lines).rstrip() + "\n"
