"""Finds out whether a decorated function gets frames, and what their rows are."""

from __future__ import annotations

from typing import Any, Final

from streamkit.dataflow.contracts import Source
from streamkit.dataflow.frame_operators import MapFrames
from streamkit.dataflow.functions import FunctionFacts, errors_at, unwrapped
from streamkit.dataflow.topology import Node, type_name
from streamkit.errors import TopologyError
from streamkit.frames.functions import Frames
from streamkit.frames.kinds import FrameKind, frame_kind, is_series
from streamkit.record import Kind

# The rows of frames whose type is not declared.
_ROW: Final = dict[str, Any]


def stage_frames(
    facts: FunctionFacts,
    of_items: FunctionFacts,
    inputs: tuple[Node, ...],
    output_type: Kind,
    batch: int | None,
) -> Frames | None:
    """Return what a stage of frames gets and returns; None if it gets values or lists.

    Args:
        facts: The facts about the function.
        of_items: The same, for a function that gets lists.
        inputs: What it reads.
        output_type: The declared type of its results.
        batch: The most rows of a frame.

    Raises:
        TopologyError: The values of the inputs cannot be columns, or something is not declared.
        UsageError: pyarrow is not installed.
    """
    kind = frame_kind(unwrapped(facts.value_type))
    if kind is None:
        _refuse_result(facts, of_items)
        return None
    if batch is None:
        raise _without_batch(facts, kind, "set how many rows a frame has at most: batch=4096")
    if is_series(unwrapped(facts.result_type)) and output_type is None:
        raise TopologyError(
            f"{facts.name!r} returns a column, whose values have no declared type",
            at=str(facts.location),
            hint="declare it: @app.stage(..., batch=..., output_type=float)",
        )
    with errors_at(facts.location):
        frames = Frames(
            kind,
            _common_type(facts.name, inputs),
            output_type,
            is_row_by_row=of_items.kind in ("map", "async"),
            gives_frames=_gives_frames(facts, of_items),
        )
        frames.check()
    return frames


def sink_frames(
    facts: FunctionFacts, source: Node, batch: int | None, *, has_target: bool
) -> Frames | None:
    """Return what a sink of frames gets; None if it gets values or lists.

    Raises:
        TopologyError: The values of its input cannot be columns.
        UsageError: pyarrow is not installed.
    """
    kind = frame_kind(unwrapped(facts.value_type))
    if kind is None:
        return None
    if has_target:
        hint = "return frames from a stage with batch=, and write its results: stage.to(...)"
        raise _without_batch(facts, kind, hint)
    if batch is None:
        raise _without_batch(facts, kind, "set how many rows a frame has at most: batch=4096")
    with errors_at(facts.location):
        frames = Frames(kind, source.value_type, is_sink=True)
        frames.check()
    return frames


def result_type_of(facts: FunctionFacts, of_items: FunctionFacts) -> Kind:
    """Return the type of the results of a stage of frames: rows are dicts if it returns frames."""
    return _ROW if _gives_frames(facts, of_items) else of_items.result_type


def gives_columns(node: Node) -> bool:
    """Return whether the values of a node are usually columns, which need no batches of calls.

    They are large enough without that.
    """
    if node.kind == "source":
        return isinstance(node.endpoint, Source) and node.endpoint.gives_columns
    (step,) = node.steps if len(node.steps) == 1 else (None,)
    return isinstance(step, MapFrames) and all(map(gives_columns, node.inputs))


def _gives_frames(facts: FunctionFacts, of_items: FunctionFacts) -> bool:
    """Return whether the annotation of the result is a frame, or an iterator of frames."""
    found = (unwrapped(facts.result_type), unwrapped(of_items.result_type))
    return any(frame_kind(each) is not None for each in found)


def _refuse_result(facts: FunctionFacts, of_items: FunctionFacts) -> None:
    """Refuse a frame as the result of a function that gets none: it would be a value."""
    for each in (facts.result_type, of_items.result_type):
        kind = frame_kind(unwrapped(each))
        if kind is not None:
            raise TopologyError(
                f"{facts.name!r} returns a {kind.name}, but it gets no frame",
                at=str(facts.location),
                hint=f"annotate its parameter as {kind.name} and set batch=4096",
            )


def _without_batch(facts: FunctionFacts, kind: FrameKind, hint: str) -> TopologyError:
    return TopologyError(
        f"{facts.name!r} gets a {kind.name}, but it is called with single values",
        at=str(facts.location),
        hint=hint,
    )


def _common_type(name: str, inputs: tuple[Node, ...]) -> Kind:
    """Return the type of the values of several inputs; None if one of them is not known."""
    first, *others = inputs
    for each in others:
        if None not in (first.value_type, each.value_type) and first.value_type != each.value_type:
            raise TopologyError(
                f"the rows of a frame have one type, but for {name!r}, {first.name!r} produces "
                f"{type_name(first.value_type)} and {each.name!r} {type_name(each.value_type)}",
                hint="turn the values of both into one type first, with map",
            )
    return None if any(each.value_type is None for each in inputs) else first.value_type
