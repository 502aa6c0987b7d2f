"""Gives dead letters to the stages that they came from, as inputs of these stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamkit.dataflow.dead_letters import InputFormat, Letter, decode_letter, input_format
from streamkit.dataflow.topology import Node
from streamkit.errors import DataError
from streamkit.record import Chunk, Record, Value
from streamkit.runtime.failures import describe_failure
from streamkit.runtime.work import Skip, Work


@dataclass(slots=True)
class _Rows:
    """The inputs of one stage."""

    values: list[Value] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)


class Replay:
    """Reads dead letters for one task.

    Args:
        app: The app whose letters are replayed; those of others are left out.
        nodes: The stages of the graph, by name.
    """

    def __init__(self, app: str, nodes: Mapping[str, Node]) -> None:
        self._app = app
        self._nodes = nodes
        self._formats: dict[Node, InputFormat] = {}

    def inputs(self, work: Work) -> list[tuple[Node, Chunk]]:
        """Return the inputs of stages in the letters of a slice.

        A letter that cannot be replayed is skipped. The work ends before one that is not a letter,
        or whose stage or type has changed. The inputs have the offsets of their letters.
        """
        source, part = work.source, work.part
        assert source is not None, "it is a slice of a source"
        found: dict[Node, _Rows] = {}
        for row, data in enumerate(part.values):
            offset = part.offsets[row]
            try:
                letter = decode_letter(data)
                if letter.app != self._app:
                    continue
                node = self._node_of(letter)
                if not letter.is_replayable:
                    error = DataError("the letter only shows its value, which cannot be read back")
                    failure = describe_failure(source, part, row, error)
                    work.skips.append(Skip(source, offset, failure))
                    continue
                value = self._value_of(node, letter)
            except DataError as error:
                work.fail(describe_failure(source, part, row, error), offset)
                break
            rows = found.setdefault(node, _Rows())
            rows.values.append(value)
            rows.rows.append(row)
            rows.letters.append(letter)
        return [(node, _chunk_of(part, rows)) for node, rows in found.items()]

    def _node_of(self, letter: Letter) -> Node:
        node = self._nodes.get(letter.stage)
        if node is None:
            raise DataError(
                f"the letter is for the stage {letter.stage!r}, which this app does not have; if "
                f'you renamed it, set name="{letter.stage}"'
            )
        return node

    def _value_of(self, node: Node, letter: Letter) -> Value:
        form = self._formats.get(node)
        if form is None:
            form = self._formats[node] = input_format(node)
        data = letter.value_bytes
        try:
            value = data if form.loads is None else form.loads(data)
        except Exception as error:  # of the format; the type may have changed
            raise DataError(
                f"the value is not an input of {node.name!r} any more: {error}"
            ) from error
        if not form.as_record:
            return value
        return Record(value, letter.key_bytes, letter.timestamp_ms)


def _chunk_of(part: Chunk, rows: _Rows) -> Chunk:
    return Chunk(
        rows.values,
        [letter.key_bytes for letter in rows.letters],
        [letter.timestamp_ms for letter in rows.letters],
        [part.offsets[row] for row in rows.rows],
        part.topic,
        part.partition,
    )
