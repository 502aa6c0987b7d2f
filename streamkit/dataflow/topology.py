"""The graph as data: what reads what, and where in the user's files it was said."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from streamkit.dataflow.operators import Step
from streamkit.errors import TopologyError
from streamkit.serde.kinds import is_protocol

OnError = Literal["fail", "skip"]
NAME_BYTES_MAX = 63
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One source, stage or sink.

    ``endpoint`` is where a source reads or a sink writes: a topic, a function or a connector,
    which the engine hands back to whoever knows what to do with it. ``value_type`` is what
    comes out, ``input_type`` what is wanted, as far as annotations say.
    """

    name: str
    kind: Literal["source", "stage", "sink"]
    steps: tuple[Step, ...] = ()
    inputs: tuple[Node, ...] = ()
    endpoint: Any = None
    on_error: OnError = "fail"
    location: Location = Location()
    value_type: Any = None
    input_type: Any = None


@dataclass(slots=True)
class Topology:
    """The nodes in the order in which they were made: inputs stand before their readers."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> Node:
        """Add a node whose name nobody has yet.

        Raises:
            TopologyError: The name is taken or is none; an input is of another graph.
        """
        if not is_name(node.name):
            raise TopologyError(
                f"{node.name!r} cannot name a stage: use 1 to {NAME_BYTES_MAX} of a-z 0-9 -",
                at=str(node.location),
                hint='name it with name="..."',
            )
        for other in self.nodes:
            if other.name == node.name:
                raise TopologyError(
                    f"two stages are called {node.name!r}, the other stands at {other.location}",
                    at=str(node.location),
                    hint='give one of them another name with name="..."',
                )
        for each in node.inputs:
            if each not in self.nodes:
                raise TopologyError(
                    f"{node.name!r} reads {each.name!r}, which is of another App",
                    at=str(node.location),
                )
        self.nodes.append(node)
        return node

    def of_kind(self, kind: str) -> list[Node]:
        return [node for node in self.nodes if node.kind == kind]

    def readers(self, node: Node) -> list[Node]:
        """Return the nodes that read a node, in order."""
        return [other for other in self.nodes if node in other.inputs]

    def free_name(self, wanted: str) -> str:
        """Return ``wanted``, or the first ``wanted-2``, ``wanted-3``, ... that is free."""
        names = {node.name for node in self.nodes}
        name, number = wanted, 1
        while name in names:
            number += 1
            name = f"{wanted}-{number}"
        return name

    def get(self, name: str) -> Node:
        """Return a node by name.

        Raises:
            TopologyError: There is none; the hint names a similar one.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        close = difflib.get_close_matches(name, [node.name for node in self.nodes], 1)
        hint = f"did you mean {close[0]!r}?" if close else ""
        raise TopologyError(f"no stage is called {name!r}", hint=hint)

    def check(self, *, allows_open_ends: bool = False) -> None:
        """Refuse a graph that cannot run; ``allows_open_ends``: a test may read what nobody does.

        Raises:
            TopologyError: With the user's file and line.
        """
        if not self.nodes:
            raise TopologyError(
                "the app has no stages",
                hint="decorate functions with @app.source, @app.stage and @app.sink",
            )
        for problem in self._problems(allows_open_ends=allows_open_ends):
            raise problem

    def _problems(self, *, allows_open_ends: bool) -> Iterable[TopologyError]:
        for node in self.nodes:
            if node.kind != "sink" and not self.readers(node) and not allows_open_ends:
                yield TopologyError(
                    f"nothing reads {node.name!r}",
                    at=str(node.location),
                    hint="give it a sink, or remove it",
                )
            for each in node.inputs:
                if clashes(each.value_type, node.input_type):
                    yield TopologyError(
                        f"{node.name!r} takes {type_name(node.input_type)}, but "
                        f"{each.name!r} gives {type_name(each.value_type)}",
                        at=str(node.location),
                    )
        yield from self._shared_resources()

    def _shared_resources(self) -> Iterable[TopologyError]:
        """Find sinks that would overwrite each other, as two writers of one file."""
        owners: dict[Any, Node] = {}
        for node in self.of_kind("sink"):
            resource = _resource_of(node.endpoint)
            owner = owners.setdefault(resource, node)
            if resource is not None and owner is not node:
                yield TopologyError(
                    f"{node.name!r} writes to {node.endpoint}, and so does {owner.name!r} "
                    f"at {owner.location}",
                    at=str(node.location),
                    hint="merge both streams and write them by one sink, or write to two places",
                )


def is_name(text: str) -> bool:
    """Tell whether a text can name an app or a stage."""
    return len(text) <= NAME_BYTES_MAX and _NAME.fullmatch(text) is not None


def stage_name(function_name: str) -> str:
    """Turn a function's name into a stage's: `_` becomes `-`."""
    return function_name.strip("_").replace("_", "-").lower()


def clashes(given: Any, wanted: Any) -> bool:
    """Tell whether two types surely do not fit: only plain classes are compared."""
    if not _is_plain(given) or not _is_plain(wanted):
        return False
    try:
        return not issubclass(given, (wanted, *_PROMOTED.get(wanted, ())))
    except TypeError:  # a class that does not want to be asked
        return False


def _resource_of(endpoint: Any) -> Any:
    """Return what a sink has for itself alone: what it names, or an object that writes."""
    resource = getattr(endpoint, "resource", None)
    if callable(resource):
        found = resource()
        return None if found is None else str(found)
    writes_itself = hasattr(endpoint, "flush") and not hasattr(endpoint, "writer")
    return id(endpoint) if writes_itself else None


def type_name(kind: Any) -> str:
    """Return how a user would write a type."""
    return kind.__name__ if isinstance(kind, type) else str(kind)


# What type checkers accept in the place of a class that is no base of it.
_PROMOTED: dict[Any, tuple[type, ...]] = {
    float: (int,),
    complex: (int, float),
    bytes: (bytearray, memoryview),
}


def _is_plain(kind: Any) -> bool:
    """Return whether a type is a class, of which a value is an instance or surely is not."""
    if not isinstance(kind, type) or typing.get_origin(kind) is not None:
        return False
    if kind is Any or Any in kind.__mro__ or typing.is_typeddict(kind):
        return False
    # A protocol, or an abstract class, may be satisfied by what does not derive from it.
    return not is_protocol(kind)


def as_mermaid(topology: Topology) -> str:
    """Draw the graph for Mermaid."""
    shapes = {"source": '(["{}"])', "stage": '["{}"]', "sink": '[/"{}"/]'}
    lines = ["flowchart LR"]
    for node in topology.nodes:
        label = f"{node.name}{_where(node)}"
        lines.append(f"    {node.name}{shapes[node.kind].format(label)}")
    for node in topology.nodes:
        lines.extend(f"    {each.name} --> {node.name}" for each in node.inputs)
    return "\n".join(lines)


def as_text(topology: Topology) -> str:
    """Draw the graph as lines of text, each node below what it reads first."""
    lines: list[str] = []
    drawn: set[Node] = set()

    def draw(node: Node, depth: int) -> None:
        marks = {"source": "source", "stage": "stage", "sink": "sink"}
        head = "  " * depth + ("└ " if depth else "")
        again = " (drawn above)" if node in drawn else ""
        lines.append(f"{head}{node.name}  [{marks[node.kind]}{_where(node)}]{again}")
        if node in drawn:
            return
        drawn.add(node)
        for reader in topology.readers(node):
            draw(reader, depth + 1)

    for source in topology.of_kind("source"):
        draw(source, 0)
    return "\n".join(lines)


def _where(node: Node) -> str:
    arrows = {"source": "←", "stage": "", "sink": "→"}
    return "" if node.endpoint is None else f" {arrows[node.kind]} {node.endpoint}"
