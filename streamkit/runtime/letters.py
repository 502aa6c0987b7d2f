"""Makes dead letters of records that fail."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamkit.dataflow.dead_letters import (
    InputFormat,
    Letter,
    encode_letter,
    input_format,
    text_fields,
)
from streamkit.dataflow.topology import Node
from streamkit.errors import StageError
from streamkit.policies import DeadLetter
from streamkit.record import NO_TIMESTAMP_MS, Chunk
from streamkit.runtime.failures import error_text, printable, shown

_STACK_CHARACTERS_MAX: Final = 20_000
_FRAMES_MAX: Final = 50
_PACKAGE: Final = f"{Path(__file__).parents[1]}/"


@dataclass(frozen=True, slots=True)
class Poison:
    """The record at which the last runs have failed, if they have, and the sink that takes it."""

    place: str | None
    sink: Node


def place_of(stage: str, topic: str, partition: int, offset: int) -> str:
    """Return a text for a record in a stage."""
    return f"{stage} {topic}-{partition} {offset}"


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Which job writes the letters."""

    app: str = ""
    version: str = ""


class Letters:
    """Makes the dead letters of one task.

    Args:
        job: Which job writes them.
        wall_ms: Returns the time in ms since 1970.
        poison: A record that is put aside whatever the policy of its stage is.
    """

    def __init__(
        self, job: JobFacts, wall_ms: Callable[[], int], poison: Poison | None = None
    ) -> None:
        self._poison = poison
        self._job = job
        self._wall_ms = wall_ms
        self._formats: dict[Node, InputFormat] = {}

    def last_of(self, node: Node, row: Chunk) -> tuple[str, Node | None]:
        """Return what happens to a record that fails for good, and where it is put aside."""
        last = node.on_error.last
        if isinstance(last, DeadLetter):
            return "dead-letter", node.dead_letters
        poison = self._poison
        if last == "fail" and poison is not None:
            place = place_of(node.name, row.topic, row.partition, row.offsets[0])
            return ("dead-letter", poison.sink) if place == poison.place else (last, None)
        return last, None

    def of_input(self, node: Node, row: Chunk, failure: StageError, attempts: int) -> Chunk:
        """Return the letter for one input of a stage, as a chunk for its sink."""
        form = self._formats.get(node)
        if form is None:
            form = self._formats[node] = input_format(node)
        return self._sealed(node, row, failure, attempts, form.written(row.values[0]))

    def of_result(self, node: Node, row: Chunk, failure: StageError) -> Chunk:
        """Return the letter for a result of a stage that a later step of it failed on."""
        return self._sealed(node, row, failure, 1, None)

    def _sealed(
        self, node: Node, row: Chunk, failure: StageError, attempts: int, data: bytes | None
    ) -> Chunk:
        cause = failure.__cause__
        assert cause is not None, "a failed record has an error"
        value = {"value": shown(row.values[0])} if data is None else text_fields("value", data)
        letter = Letter(
            app=self._job.app,
            version=self._job.version,
            stage=node.name,
            topic=row.topic,
            partition=row.partition,
            offset=row.offsets[0],
            timestamp_ms=row.timestamps_ms[0],
            error_type=type(cause).__name__,
            error=error_text(cause),
            attempts=attempts,
            failed_at_ms=self._wall_ms(),
            stack=_stack_of(cause),
            is_replayable=data is not None,
            **value,
            **text_fields("key", row.keys[0]),
        )
        # Without a timestamp, the topic gets the time at which the letter is written.
        return Chunk(
            [encode_letter(letter)],
            row.keys,
            [NO_TIMESTAMP_MS],
            row.offsets,
            row.topic,
            row.partition,
        )


def _stack_of(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next  # the engine, before the user's function
    try:
        lines = traceback.format_exception(type(error), error, frames, _FRAMES_MAX)
    except BaseException as raised:  # by the text of an error of the user
        return f"(the stack cannot be shown: {type(raised).__name__})"
    return printable("".join(lines), _STACK_CHARACTERS_MAX)
