"""The graph as data: its nodes, their inputs, and their lines in the user's files."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from streamkit.dataflow.endpoints import TopicSink, TopicSource
from streamkit.dataflow.steps import Step, TimedStep
from streamkit.errors import TopologyError
from streamkit.policies import FAIL, DeadLetter, Policy
from streamkit.record import Kind, Topic
from streamkit.serde.kinds import is_protocol

NAME_BYTES_MAX = 63
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Location:
    """A line in a user's file."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True, slots=True)
class SourceTiming:
    """How the event times of a source behave; see `SourceOptions`."""

    out_of_order_ms: int = 0
    idle_ms: int = 60_000


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One source, stage or sink.

    ``endpoint`` is where a source reads or a sink writes: a topic, a function or a connector.
    ``value_type`` is the type of the results, for a sink that of the values it writes, and
    ``input_type`` that of the inputs; each is None without an annotation. ``is_keyed``: its records
    have the key of their group. ``key_type`` is the type of that key, or None if it is not known.
    ``is_late``: it gets the records that were too late for its input, not the results.
    ``is_table``: it is a table, which is read before the streams. ``is_replay``: it reads dead
    letters, which go to the stages that they came from. ``tables`` are the tables that it looks up.
    ``dead_letters`` is the sink for records that fail here; ``takes_letters``: this is such a sink.
    ``key_format`` is the format of the keys of a source.
    """

    name: str
    kind: Literal["source", "stage", "sink"]
    steps: tuple[Step, ...] = ()
    inputs: tuple[Node, ...] = ()
    endpoint: Any = None
    on_error: Policy = FAIL
    location: Location = Location()
    value_type: Any = None
    input_type: Any = None
    is_keyed: bool = False
    key_type: Any = None
    is_late: bool = False
    is_table: bool = False
    is_replay: bool = False
    timing: SourceTiming = SourceTiming()
    tables: tuple[Node, ...] = ()
    dead_letters: Node | None = None
    takes_letters: bool = False
    key_format: Any = None


@dataclass(slots=True)
class Topology:
    """The nodes in the order in which they were added; inputs come before their readers."""

    nodes: list[Node] = field(default_factory=list)
    # The sinks of dead letters, by what they write to.
    _dead_letters: dict[str, Node] = field(default_factory=dict)

    def add(self, node: Node) -> Node:
        """Add a node; its name must be new.

        Raises:
            TopologyError: The name is in use or not valid, or an input belongs to another graph.
        """
        if not is_name(node.name):
            raise TopologyError(
                f"{node.name!r} is not a valid stage name: "
                f"use 1 to {NAME_BYTES_MAX} characters: a-z, 0-9 and -",
                at=str(node.location),
                hint='set another name with name="..."',
            )
        for other in self.nodes:
            if other.name == node.name:
                raise TopologyError(
                    f"two stages have the name {node.name!r}; the other is at {other.location}",
                    at=str(node.location),
                    hint='give one of them another name with name="..."',
                )
        for each in (*node.inputs, *node.tables):
            if each not in self.nodes:
                raise TopologyError(
                    f"{node.name!r} reads {each.name!r}, which belongs to another App",
                    at=str(node.location),
                )
        if node.on_error.retry is not None and not _can_retry(node):
            raise TopologyError(
                f"{node.name!r} waits for other records, so none of them can be tried again",
                hint="put what may fail into a stage of its own, and give that stage the retries",
            )
        if node.on_error.dead_letter is not None:
            target = self.dead_letter_sink(node.on_error.dead_letter, node.location)
            node = replace(node, dead_letters=target)
        self.nodes.append(node)
        return node

    def dead_letter_sink(self, letters: DeadLetter, location: Location) -> Node:
        """Return the sink for dead letters to one place; add it if it is new."""
        target = letters.target
        topic = target if isinstance(target, Topic) else Topic(str(target))
        is_topic = isinstance(target, str | Topic)
        found = self._dead_letters.get(topic.name)
        if found is None:
            name = f"to-{topic.name}"[:60].rstrip("-") if is_topic else "dead-letters"
            found = Node(
                self.free_name(name if is_name(name) else "dead-letters"),
                "sink",
                endpoint=TopicSink(topic.name, topic.partitions) if is_topic else target,
                location=location,
                takes_letters=True,
            )
            self._dead_letters[topic.name] = found
            self.nodes.append(found)
        return found

    def of_kind(self, kind: str) -> list[Node]:
        return [node for node in self.nodes if node.kind == kind]

    def readers(self, node: Node) -> list[Node]:
        """Return the nodes that read a node, in order."""
        return [other for other in self.nodes if node in other.inputs]

    def is_read(self, node: Node) -> bool:
        """Return whether another node reads a node, or looks it up."""
        return any(node in other.inputs or node in other.tables for other in self.nodes)

    def free_name(self, base: str) -> str:
        """Return ``base``, or the first of ``base-2``, ``base-3``, ... that is not in use."""
        names = {node.name for node in self.nodes}
        name, number = base, 1
        while name in names:
            number += 1
            name = f"{base}-{number}"
        return name

    def get(self, name: str) -> Node:
        """Return a node by name.

        Raises:
            TopologyError: The graph has no such node; the hint has a similar name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        close = difflib.get_close_matches(name, [node.name for node in self.nodes], 1)
        hint = f"did you mean {close[0]!r}?" if close else ""
        raise TopologyError(f"the app has no stage {name!r}", hint=hint)

    def check(self, *, allows_open_ends: bool = False) -> None:
        """Refuse a graph that cannot run. ``allows_open_ends`` allows stages without readers.

        Raises:
            TopologyError: The graph cannot run; the message shows the user's file and line.
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
            if node.kind != "sink" and not self.is_read(node) and not allows_open_ends:
                yield TopologyError(
                    f"nothing reads {node.name!r}",
                    at=str(node.location),
                    hint="add a sink for it, or remove it",
                )
            for each in node.inputs:
                if clashes(each.value_type, node.input_type):
                    yield TopologyError(
                        f"{node.name!r} expects {type_name(node.input_type)}, but "
                        f"{each.name!r} produces {type_name(each.value_type)}",
                        at=str(node.location),
                    )
        yield from self._letter_loops()
        yield from self._shared_resources()

    def _letter_loops(self) -> Iterable[TopologyError]:
        """Yield errors for stages that read their own dead letters, which would fail again."""
        for node in self.nodes:
            target = None if node.dead_letters is None else node.dead_letters.endpoint
            if isinstance(target, TopicSink) and target.topic in _topics_read(node):
                yield TopologyError(
                    f"{node.name!r} reads topic {target.topic!r}, and also writes its dead letters "
                    "to it, so each letter would be an input that fails again",
                    at=str(node.location),
                    hint="write the dead letters to another topic; to process them again, use "
                    "--replay",
                )

    def _shared_resources(self) -> Iterable[TopologyError]:
        """Yield errors for sinks that overwrite each other, such as two writers of one file."""
        owners: dict[Any, Node] = {}
        for node in self.of_kind("sink"):
            resource = _resource_of(node.endpoint)
            owner = owners.setdefault(resource, node)
            if resource is not None and owner is not node:
                yield TopologyError(
                    f"{node.name!r} writes to {node.endpoint}, and so does {owner.name!r} "
                    f"at {owner.location}",
                    at=str(node.location),
                    hint="merge both streams into one sink, or write to two different places",
                )


def _topics_read(node: Node) -> set[str]:
    """Return the topics from which the inputs of a node are made."""
    above, found = [node], {node}
    while above:
        new = set(above.pop().inputs) - found
        above += new
        found |= new
    return {
        each.endpoint.topic
        for each in found
        if isinstance(each.endpoint, TopicSource) and not each.is_replay
    }


def _can_retry(node: Node) -> bool:
    """Return whether a record may come to a node again, after others."""
    return all(step.can_repeat for step in node.steps if isinstance(step, TimedStep))


def is_name(text: str) -> bool:
    """Return whether a text is a valid name of an app or a stage."""
    return len(text) <= NAME_BYTES_MAX and _NAME.fullmatch(text) is not None


def stage_name(function_name: str) -> str:
    """Return the stage name for a function name: `_` becomes `-`."""
    return function_name.strip("_").replace("_", "-").lower()


def clashes(given: Any, expected: Any) -> bool:
    """Return whether two types are certainly incompatible; only plain classes are compared."""
    if not _is_plain(given) or not _is_plain(expected):
        return False
    try:
        return not issubclass(given, (expected, *_PROMOTED.get(expected, ())))
    except TypeError:  # a class that does not support `issubclass`
        return False


def refuse_other_type(format: object, kind: Kind, word: str) -> None:
    """Refuse a format whose values are certainly not of a type.

    Args:
        format: A format; its attribute ``type`` is the type of its values, if it has one.
        kind: The type of the values.
        word: What the stage does with them: they are ``expected`` or ``given``.

    Raises:
        TopologyError: The types differ.
    """
    own = getattr(format, "type", None) if hasattr(format, "for_use") else None
    given, expected = (own, kind) if word == "expected" else (kind, own)
    if own is not None and clashes(given, expected):
        raise TopologyError(
            f"the format has values of type {type_name(own)}, but {type_name(kind)} is {word}",
            hint="use the same type in both places, or leave it out of the format",
        )


def _resource_of(endpoint: Any) -> Any:
    """Return what only one sink may use: the resource of a connector, or a sink object itself."""
    resource = getattr(endpoint, "resource", None)
    if callable(resource):
        found = resource()
        return None if found is None else str(found)
    writes_itself = hasattr(endpoint, "flush") and not hasattr(endpoint, "writer")
    return id(endpoint) if writes_itself else None


def type_name(kind: Any) -> str:
    """Return a type as a user would write it."""
    return kind.__name__ if isinstance(kind, type) else str(kind)


# Classes that type checkers accept instead of another one, although they are not subclasses.
_PROMOTED: dict[Any, tuple[type, ...]] = {
    float: (int,),
    complex: (int, float),
    bytes: (bytearray, memoryview),
}


def _is_plain(kind: Any) -> bool:
    """Return whether a type is a class for which `issubclass` gives a certain answer."""
    if not isinstance(kind, type) or typing.get_origin(kind) is not None:
        return False
    if kind is Any or Any in kind.__mro__ or typing.is_typeddict(kind):
        return False
    # A class may satisfy a protocol or an abstract class without deriving from it.
    return not is_protocol(kind)


def as_mermaid(topology: Topology) -> str:
    """Return the graph as a Mermaid diagram."""
    shapes = {"source": '(["{}"])', "stage": '["{}"]', "sink": '[/"{}"/]'}
    lines = ["flowchart LR"]
    for node in topology.nodes:
        label = f"{node.name}{_where(node)}"
        lines.append(f"    {node.name}{shapes[node.kind].format(label)}")
    for node in topology.nodes:
        lines.extend(f"    {each.name} --> {node.name}" for each in node.inputs)
        lines.extend(f"    {each.name} -.-> {node.name}" for each in node.tables)
        if node.dead_letters is not None:
            lines.append(f"    {node.name} -. fails .-> {node.dead_letters.name}")
    return "\n".join(lines)


def as_text(topology: Topology) -> str:
    """Return the graph as lines of text, each node below its first input."""
    lines: list[str] = []
    drawn: set[Node] = set()

    def draw(node: Node, depth: int) -> None:
        kind = "table" if node.is_table else node.kind
        head = "  " * depth + ("└ " if depth else "")
        again = " (drawn above)" if node in drawn else ""
        letters = node.dead_letters
        aside = "" if letters is None else f"  (dead letters → {letters.endpoint})"
        lines.append(f"{head}{node.name}  [{kind}{_where(node)}]{aside}{again}")
        if node in drawn:
            return
        drawn.add(node)
        for reader in topology.readers(node):
            draw(reader, depth + 1)

    for source in topology.of_kind("source"):
        draw(source, 0)
    return "\n".join(lines)


def _where(node: Node) -> str:
    arrows = {"source": "←", "stage": "⇄", "sink": "→"}
    return "" if node.endpoint is None else f" {arrows[node.kind]} {node.endpoint}"
