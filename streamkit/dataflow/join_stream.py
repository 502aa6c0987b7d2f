"""Joins and lookups as users write them: the classes of tables and of results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, Optional, TypedDict, TypeVar

from streamkit.dataflow.callers import caller_location, caller_scope
from streamkit.dataflow.endpoints import FileTable
from streamkit.dataflow.functions import check_callable, errors_at, result_of
from streamkit.dataflow.joins import Combine, How, IntervalJoin, JoinSides, WindowJoin
from streamkit.dataflow.keyed_stream import KeyedStream
from streamkit.dataflow.options import StageOptions, checked_options, on_error_of
from streamkit.dataflow.steps import Step
from streamkit.dataflow.stream import Stream, late_stream
from streamkit.dataflow.tables import AsOfLookup, Lookup
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Kind, Value
from streamkit.state.types import format_of
from streamkit.windows import Duration, Tumbling, duration_ms

R_co = TypeVar("R_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)
K_co = TypeVar("K_co", covariant=True)


class JoinOptions(StageOptions, total=False):
    """Options of a join.

    Attributes:
        within: How far apart the event times of a pair may be, in seconds or as a timedelta.
        window: Pair all records of one window instead; a `Tumbling`.
        late: How far a record may be behind the watermark and still count, in event time.
    """

    within: Duration | None
    window: Tumbling | None
    late: Duration


class LookupOptions(StageOptions, total=False):
    """Options of a lookup.

    Attributes:
        as_of: Use the row that the table had at the event time of the record, and wait for it.
        late: With ``as_of``: how far a record may be behind the watermark and still count.
    """

    as_of: bool
    late: Duration


class Table(Generic[V_co]):
    """The latest value of each key of a topic or a file; see `App.table`."""

    def __init__(self, topology: Topology, node: Node) -> None:
        self._topology = topology
        self._node = node

    @property
    def name(self) -> str:
        """The name of the table, which is also that of its state."""
        return self._node.name

    @property
    def node(self) -> Node:
        """The table in the graph."""
        return self._node


class JoinResults(KeyedStream[K_co, R_co], Generic[K_co, R_co, V_co]):
    """The results of a join, with the key of their records."""

    @property
    def late(self) -> Stream[V_co]:
        """The records of both sides that came too late, as they were."""
        return late_stream(self._topology, self._node)


class LookupResults(Stream[R_co], Generic[R_co, V_co]):
    """The results of a lookup."""

    @property
    def late(self) -> Stream[V_co]:
        """The records that came too late for a lookup with ``as_of``, as they were."""
        return late_stream(self._topology, self._node)


class _Joined(TypedDict):
    """What all joins have in common."""

    name: str
    late_ms: int
    sides: JoinSides


def join(
    topology: Topology,
    sides: tuple[Node, Node],
    how: How,
    combine: Callable[..., Value],
    options: JoinOptions,
) -> JoinResults[Value, Value, Value]:
    """Add a join of two keyed streams to a graph.

    Raises:
        TopologyError: The streams cannot be joined.
        UsageError: An option is not valid.
    """
    checked_options(options, JoinOptions)
    check_callable(combine, "combine=", values=2)
    if how not in ("inner", "left", "outer"):
        raise UsageError(f"how={how!r} is not valid", hint='use "inner", "left" or "outer"')
    location = caller_location()
    with errors_at(location):
        left, right = sides
        name = options.get("name") or topology.free_name("join")
        kinds = [_value_type(each, name) for each in sides]
        forms = (format_of(kinds[0], name), format_of(kinds[1], name))
        common: _Joined = {
            "name": name,
            "late_ms": duration_ms(options.get("late", 0), "late", least=0),
            "sides": JoinSides(forms, how),
        }
        node = Node(
            name,
            "stage",
            (_join_step(common, kinds, options), Combine(combine)),
            inputs=sides,
            on_error=on_error_of(options),
            location=location,
            value_type=result_of(combine, caller_scope()),
            is_keyed=True,
            key_type=left.key_type or right.key_type,
        )
        return JoinResults(topology, topology.add(node))


def _join_step(common: _Joined, kinds: list[Value], options: JoinOptions) -> Step:
    within, window = options.get("within"), options.get("window")
    if (within is None) == (window is None):
        raise UsageError(
            "a join needs either within= or window=",
            hint="for example within=timedelta(minutes=5), or window=Tumbling(hours=1)",
        )
    if within is not None:
        return IntervalJoin(within_ms=duration_ms(within, "within", least=0), **common)
    if not isinstance(window, Tumbling):
        raise UsageError(f"window={window!r}: a join has a Tumbling window")
    name, how = common["name"], common["sides"].how
    left, right = (format_of(_generic(tuple, int, each), name) for each in kinds)
    return WindowJoin(name, window, common["late_ms"], JoinSides((left, right), how))


def lookup(
    topology: Topology,
    stream: Node,
    table: Table[Value],
    how: Literal["inner", "left"],
    functions: tuple[Callable[..., Value], Callable[..., Value]],
    options: LookupOptions,
) -> LookupResults[Value, Value]:
    """Add a lookup to a graph. ``functions`` are those of ``on=`` and ``combine=``.

    Raises:
        TopologyError: The lookup is not possible.
        UsageError: An option is not valid.
    """
    _check_table(table, options)
    check_lookup(how, functions)
    on, combine = functions
    location = caller_location()
    with errors_at(location):
        name = options.get("name") or topology.free_name("lookup")
        rows = table.node
        form = format_of(rows.value_type, rows.name)
        inputs: tuple[Node, ...] = (stream,)
        tables: tuple[Node, ...] = (rows,)
        steps: tuple[Step, ...] = (Lookup(rows.name, form, on, combine, how == "inner"),)
        if options.get("as_of"):
            inputs, tables = (stream, rows), ()
            late_ms = duration_ms(options.get("late", 0), "late", least=0)
            forms = (
                format_of(_value_type(stream, name), name),
                format_of(_optional(rows.value_type), name),
            )
            is_file = isinstance(rows.endpoint, FileTable)
            timed = AsOfLookup(name, on, late_ms, *forms, how == "inner", is_file)
            steps = (timed, Combine(combine))
        node = Node(
            name,
            "stage",
            steps,
            inputs=inputs,
            on_error=on_error_of(options),
            location=location,
            value_type=result_of(combine, caller_scope()),
            tables=tables,
        )
        return LookupResults(topology, topology.add(node))


def _check_table(table: Table[Value], options: LookupOptions) -> None:
    checked_options(options, LookupOptions)
    if not isinstance(table, Table):
        raise UsageError(
            f"{table!r} is not a table",
            hint="make one with app.table(...), or use a connector that finds rows, as SqlTable",
        )
    if "late" in options and not options.get("as_of"):
        raise UsageError("late= is for a lookup with as_of=True")


def check_lookup(how: str, functions: tuple[Callable[..., Value], Callable[..., Value]]) -> None:
    """Refuse a lookup whose functions cannot be called.

    Raises:
        TopologyError: ``on=`` or ``combine=`` cannot be called.
        UsageError: ``how=`` is not valid.
    """
    on, combine = functions
    check_callable(on, "on=")
    check_callable(combine, "combine=", values=2)
    if how not in ("inner", "left"):
        raise UsageError(f"how={how!r} is not valid", hint='use "inner" or "left"')


def _value_type(node: Node, name: str) -> Kind:
    if node.value_type is None:
        raise TopologyError(
            f"{name!r} keeps values of {node.name!r}, whose type is not known",
            hint=f"annotate what the function of {node.name!r} returns",
        )
    return node.value_type


def _optional(kind: Kind) -> Kind:
    container: Kind = Optional
    return container[kind]


def _generic(container: Kind, *items: Kind) -> Kind:
    """Return a type of a container with items of types that are known only at run time."""
    return container[items]
