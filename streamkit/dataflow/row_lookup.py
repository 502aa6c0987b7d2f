"""Lookups in tables that stay where they are, as users write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from streamkit.dataflow.callers import caller_location, caller_scope
from streamkit.dataflow.calling import Called, CallSpec
from streamkit.dataflow.functions import (
    errors_at,
    name_of,
    parameter_type,
    result_of,
    without_none,
)
from streamkit.dataflow.join_stream import check_lookup
from streamkit.dataflow.lookup_tables import LookupTable, RowLookup
from streamkit.dataflow.options import StageOptions, checked_options, on_error_of
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node, Topology
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Kind, Value
from streamkit.windows import Duration, duration_ms

_CACHE_ROWS: Final = 100_000
_CACHE_S: Final = 60.0
# The most records that one call looks up.
_CALL_RECORDS: Final = 1_000


class RowLookupOptions(StageOptions, total=False):
    """Options of a lookup in a table that is queried where it is.

    Attributes:
        cache_rows: How many rows are kept; the least recently used are dropped. 0 keeps none. A key
            without a row counts as one.
        cache_for: For how long a row is kept, in seconds or as a timedelta: a change in the table
            is seen that much later.
    """

    cache_rows: int
    cache_for: Duration


class _Options(RowLookupOptions, total=False):
    row_type: Any


def row_lookup(
    topology: Topology,
    stream: Node,
    table: LookupTable,
    how: Literal["inner", "left"],
    functions: tuple[Callable[..., Value], Callable[..., Value]],
    options: _Options,
) -> Stream[Value]:
    """Add a lookup to a graph. ``functions`` are those of ``on=`` and ``combine=``.

    Raises:
        TopologyError: The type of the rows is not known.
        UsageError: An option is not valid.
    """
    checked_options(options, _Options)
    check_lookup(how, functions)
    on, combine = functions
    cache_rows = options.get("cache_rows", _CACHE_ROWS)
    if type(cache_rows) is not int or cache_rows < 0:
        raise UsageError(f"cache_rows={cache_rows!r} must be a number of rows, or 0")
    location = caller_location()
    with errors_at(location):
        kind = _row_type(table, combine, options)
        table.check(kind)
        endpoint = RowLookup(
            table,
            kind,
            on,
            combine,
            how == "inner",
            cache_rows,
            duration_ms(options.get("cache_for", _CACHE_S), "cache_for", least=0) / 1_000,
        )
        node = Node(
            options.get("name") or topology.free_name("lookup"),
            "stage",
            (Called(_not_open, CallSpec("async", batch=_CALL_RECORDS)),),
            inputs=(stream,),
            endpoint=endpoint,
            on_error=on_error_of(options),
            location=location,
            value_type=without_none(result_of(combine, caller_scope())),
        )
        return Stream(topology, topology.add(node))


def _row_type(table: LookupTable, combine: Callable[..., Value], options: _Options) -> Kind:
    given = options.get("row_type")
    found = parameter_type(combine, caller_scope(), 1) if given is None else given
    if found is None:
        raise TopologyError(
            f"the type of the rows of {table} is not known",
            hint=f"annotate the second parameter of {name_of(combine)!r}, or set row_type=",
        )
    return found


async def _not_open(values: Sequence[Value]) -> Sequence[Value]:
    """Take the place of the function that each run has for its own connection."""
    raise AssertionError("a run replaces this function")
