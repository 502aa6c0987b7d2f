"""Which format the keys of records have: that of the source they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamkit.dataflow.contracts import Source
from streamkit.dataflow.endpoints import TopicSource
from streamkit.dataflow.functions import FunctionFacts, without_none
from streamkit.dataflow.topology import Node, refuse_other_type
from streamkit.errors import TopologyError
from streamkit.record import Kind
from streamkit.serde.binding import Serde
from streamkit.serde.keys import KeyReader, key_reader


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The format of the keys of a source, or None; ``topic`` is the name of the topic."""

    key_format: Serde | None
    topic: str


def context_keys(facts: FunctionFacts, source: TopicSource | StoredKeys | None) -> KeyReader | None:
    """Return how the context of a function shows keys; None if it has no context.

    Args:
        facts: Those of the function.
        source: Where the records come from; None if that does not say how keys are read.

    Raises:
        TopologyError: Keys cannot be shown as the annotated type.
    """
    if not facts.takes_context:
        return None
    kind: Kind = facts.key_type
    if source is None or source.key_format is None:
        return key_reader(kind)
    if without_none(kind) is not bytes:
        refuse_other_type(source.key_format, without_none(kind), "expected")
    return key_reader(kind, source.key_format, source.topic)


def source_of_keys(nodes: Iterable[Node]) -> TopicSource | StoredKeys | None:
    """Return a source whose key format is that of the records of some nodes.

    None means that keys have no format: the sources name none, or a stage has grouped the records
    by other keys.

    Raises:
        TopologyError: The nodes have keys of different formats.
    """
    sources = [_source(node) for node in nodes]
    formats = [None if each is None else each.key_format for each in sources]
    if any(each != formats[0] for each in formats):
        raise TopologyError(
            "the records come from sources with different formats of keys",
            hint="use the same key_format= for all of them, or annotate Context[bytes]",
        )
    return sources[0] if sources else None


def _source(node: Node) -> TopicSource | StoredKeys | None:
    if node.is_keyed:
        return None
    if isinstance(node.endpoint, TopicSource):
        return node.endpoint
    if isinstance(node.endpoint, Source):
        return StoredKeys(node.key_format, node.endpoint.name)
    return source_of_keys(node.inputs)
