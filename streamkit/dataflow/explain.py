"""Says how a graph runs: what it keeps, what waits for time, and which names identify its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from streamkit.dataflow.calling import called_step
from streamkit.dataflow.endpoints import FileTable, FunctionSink, FunctionSource
from streamkit.dataflow.frame_operators import MapFrames
from streamkit.dataflow.lookup_tables import RowLookup
from streamkit.dataflow.steps import Unlimited
from streamkit.dataflow.tables import Lookup
from streamkit.dataflow.topology import Node, Topology
from streamkit.dataflow.watermarks import TimePlan, plan_time, timed_step
from streamkit.policies import FAIL
from streamkit.state.change_log import StateFormat
from streamkit.state.keyed import Keyed, Unstored
from streamkit.state.panes import Panes
from streamkit.state.types import shown_description
from streamkit.state.waiting import UnstoredRecords, WaitingRecords
from streamkit.units import shown_ms

S = TypeVar("S", bound=Keyed | Panes | WaitingRecords)


@dataclass(frozen=True, slots=True)
class StateFacts:
    """A state that a stage keeps: its name and the type of its values."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """How one node runs. ``notes`` are sentences for people."""

    name: str
    kind: str
    reads: list[str]
    states: list[StateFacts] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """How a graph runs, and the names that identify what is stored for it."""

    nodes: list[NodeFacts]
    sources: list[str]
    states: list[str]


def explain(topology: Topology) -> PlanFacts:
    """Return how a graph runs."""
    plan = plan_time(topology)
    nodes = [
        NodeFacts(
            node.name,
            "table" if node.is_table else node.kind,
            [each.name for each in (*node.inputs, *node.tables)],
            _states_of(node),
            list(_notes(node, plan)),
        )
        for node in topology.nodes
    ]
    return PlanFacts(
        nodes,
        [
            node.name
            for node in topology.of_kind("source")
            if not isinstance(node.endpoint, FileTable)
        ],
        sorted({state.name for node in nodes for state in node.states}),
    )


def plan_lines(app: str, plan: PlanFacts) -> list[str]:
    """Write the plan of an app for people."""
    lines = [f"{app}: all stages run together in one task", ""]
    for node in plan.nodes:
        reads = f" of {', '.join(node.reads)}" if node.reads else ""
        lines.append(f"{node.name}  [{node.kind}{reads}]")
        lines += [f"    keeps {each.name}: {each.type}" for each in node.states]
        lines += [f"    {each}" for each in node.notes]
    lines += [
        "",
        "These names identify stored data; a renamed stage begins without it:",
        f"    positions of sources: {', '.join(plan.sources) or 'none'}",
        f"    states: {', '.join(plan.states) or 'none'}",
    ]
    return lines


def _notes(node: Node, plan: TimePlan) -> Iterator[str]:
    is_used = any(node in plan.of_node[each].sources for each in plan.timed)
    if node.kind == "source" and is_used:
        timing = node.timing
        yield (
            f"watermark: the highest event time less {shown_ms(timing.out_of_order_ms)}; a "
            f"partition is idle after {shown_ms(timing.idle_ms)}"
        )
    if isinstance(node.endpoint, FunctionSource) and not node.endpoint.is_replayable:
        yield "cannot be replayed after a crash"
    step = timed_step(node)
    if step is not None:
        time = plan.of_node[node]
        behind = f", {shown_ms(time.hold_ms)} behind" if time.hold_ms else ""
        yield f"waits for the watermark of {', '.join(each.name for each in time.sources)}{behind}"
        if step.hold_ms:
            yield f"results may be {shown_ms(step.hold_ms)} behind the watermark"
    if node.is_late:
        yield "gets the records that came too late"
    if node.on_error != FAIL:
        yield f"a record that fails: {node.on_error}"
    called = called_step(node)
    if isinstance(node.endpoint, RowLookup):
        yield f"looks up rows in {node.endpoint}"
    elif called is not None:
        yield str(called.spec)
    yield from (
        f"gets frames of up to {step.batch} rows, in slices"
        for step in node.steps
        if isinstance(step, MapFrames)
    )
    if node.kind == "sink":
        calls = ", called again for records after the last commit" * isinstance(
            node.endpoint, FunctionSink
        )
        yield f"at least once{calls}"


class _Recorder(Unlimited):
    """A room that notes which states a step opens."""

    def __init__(self) -> None:
        self.states: list[StateFacts] = []

    def state(self, kind: type[S], name: str, form: StateFormat) -> S:
        if kind not in (Unstored, UnstoredRecords):
            self.states.append(StateFacts(name, shown_description(kind.describe(form))))
        return kind(name, form)


def _states_of(node: Node) -> list[StateFacts]:
    recorder = _Recorder()
    for step in node.steps:
        if not isinstance(step, Lookup):  # it reads the state of a table
            step.open(recorder)
    return recorder.states
