"""Streams of windows: the verbs after `KeyedStream.window`."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Generic, TypeVar, overload

from streamkit.aggregates import Aggregator, CollectList, Fold
from streamkit.dataflow.accumulating import Accumulator, accumulator
from streamkit.dataflow.callers import caller_location, caller_scope
from streamkit.dataflow.emission import Emission
from streamkit.dataflow.functions import check_callable, errors_at, result_of, without_none
from streamkit.dataflow.keyed_stream import KeyedStream
from streamkit.dataflow.keys import group_key_reader
from streamkit.dataflow.sessions import Counted, Sessions
from streamkit.dataflow.steps import Step
from streamkit.dataflow.stream import Stream, late_stream
from streamkit.dataflow.topology import Node, Topology
from streamkit.dataflow.window_results import (
    Applied,
    AsValues,
    as_results,
    check_fields,
    result_type,
)
from streamkit.dataflow.windowed import Windowed
from streamkit.errors import TopologyError
from streamkit.policies import OnError, policy_of
from streamkit.record import Kind, Value
from streamkit.windows import AnyWindow, CountWindow, Session, Sliding, Tumbling, Window

R = TypeVar("R")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


class WindowResults(KeyedStream[K_co, R_co], Generic[K_co, R_co, V_co]):
    """The results of windows, with the key of their records."""

    @property
    def late(self) -> Stream[V_co]:
        """The records that came too late for every window, as they were."""
        return late_stream(self._topology, self._node)


class WindowedStream(Generic[K_co, V_co]):
    """Records of each key in windows; see `KeyedStream.window`."""

    def __init__(
        self,
        topology: Topology,
        node: Node,
        window: AnyWindow,
        late_ms: int,
        emission: Emission,
    ) -> None:
        self._topology = topology
        self._node = node
        self._window = window
        self._late_ms = late_ms
        self._emission = emission

    @overload
    def aggregate(
        self,
        result: type[R],
        /,
        *,
        name: str | None = None,
        on_error: OnError = "fail",
        **aggregates: Aggregator[Value],
    ) -> WindowResults[K_co, R, V_co]: ...
    @overload
    def aggregate(
        self,
        *,
        name: str | None = None,
        on_error: OnError = "fail",
        **aggregates: Aggregator[Value],
    ) -> WindowResults[K_co, dict[str, Value], V_co]: ...
    def aggregate(  # type: ignore[misc]  # mypy does not see that `result` has no name
        self,
        *result: Value,
        name: str | None = None,
        on_error: OnError = "fail",
        **aggregates: Value,
    ) -> Value:
        """Aggregate the records of each window.

        Args:
            result: The class of the results, with a field for each aggregate. It may also have
                the fields ``key``, ``window_start`` and ``window_end``; times are datetimes, or
                ms since 1970 where the field is an int. Without it, results are dicts.
            name: The identity of the state; by default ``aggregate``.
            on_error: See `StageOptions`.
            aggregates: By the name of their field, such as ``orders=Count()``.

        Raises:
            TopologyError: The aggregates do not fit the fields, or cannot be stored.
        """
        location = caller_location()
        with errors_at(location):
            if not aggregates:
                raise TopologyError(
                    "aggregate has no aggregates", hint="add one, such as orders=Count()"
                )
            for each in aggregates.values():
                if not isinstance(each, Aggregator):
                    raise TopologyError(
                        f"{each!r} is not an aggregate",
                        hint="use for example Count(), from streamkit.aggregates",
                    )
            of = result_type(result[0]) if result else None
            if of is not None:
                check_fields(of, aggregates)
            name = name or self._topology.free_name("aggregate")
            fields = {} if of is None else of.fields
            kinds = [fields.get(field, Value) for field in aggregates]
            found = accumulator(aggregates, kinds, name)
            key_type = fields.get("key", self._node.key_type)
            step = as_results(of, dict(zip(aggregates, found.results, strict=True)), key_type)
            return self._then(found, step, name, on_error, dict if of is None else of.cls)

    def reduce(
        self,
        function: Callable[[V_co, V_co], V_co],
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> WindowResults[K_co, V_co, V_co]:
        """Combine the values of each window: the result is one value.

        Args:
            function: Combines two values. Sliding and session windows combine in any order.
            name: The identity of the state; by default ``reduce``.
            on_error: See `StageOptions`.

        Raises:
            TopologyError: The type of the values is not known, or cannot be stored.
        """
        check_callable(function, "reduce", values=2)
        with errors_at(caller_location()):
            kind = self._value_type("reduce")
            name = name or self._topology.free_name("reduce")
            found = accumulator({"value": _Reducing(function, kind)}, [kind], name)
            results: WindowResults[K_co, V_co, V_co] = self._then(
                found, AsValues(found.results[0]), name, on_error, kind
            )
            return results

    def apply(
        self,
        function: Callable[[Window[K_co], list[V_co]], R | None],
        *,
        limit: int = 10_000,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> WindowResults[K_co, R, V_co]:
        """Call ``function`` with each window and all its values, in order of event time.

        Args:
            function: Gets the `Window` and its values; None drops the result.
            limit: The most values of one window; a record after that fails.
            name: The identity of the state; by default ``apply``.
            on_error: See `StageOptions`.

        Raises:
            TopologyError: The type of the values is not known, or cannot be stored.
        """
        check_callable(function, "apply", values=2)
        scope = caller_scope()
        with errors_at(caller_location()):
            kind = self._value_type("apply")
            name = name or self._topology.free_name("apply")
            values = CollectList(_itself, limit=limit)
            found = accumulator({"values": values}, [types.GenericAlias(list, (kind,))], name)
            step = Applied(function, found.results[0], group_key_reader(self._node.key_type))
            result = without_none(result_of(function, scope))
            results: WindowResults[K_co, R, V_co] = self._then(found, step, name, on_error, result)
            return results

    def _value_type(self, verb: str) -> Kind:
        kind = self._node.value_type
        if kind is None:
            raise TopologyError(
                f"{verb} needs the type of the values, which is not known here",
                hint="annotate what the function of the stage before returns",
            )
        return kind

    def _then(
        self, found: Accumulator, result: Step, name: str, on_error: OnError, value_type: Kind
    ) -> Value:
        node = Node(
            name,
            "stage",
            (self._step(found, name), result),
            inputs=(self._node,),
            on_error=policy_of(on_error),
            location=caller_location(),
            value_type=value_type,
            is_keyed=True,
            key_type=self._node.key_type,
        )
        return WindowResults(self._topology, self._topology.add(node))

    def _step(self, found: Accumulator, name: str) -> Step:
        window = self._window
        if isinstance(window, Sliding | Session):
            for each in found.aggregates:
                if not each.can_merge:
                    raise TopologyError(
                        f"{window} merges aggregates, which a Fold without merge= cannot",
                        hint="give the Fold a function merge=",
                    )
        if isinstance(window, Tumbling | Sliding):
            return Windowed(name, window, self._late_ms, found, self._emission)
        if isinstance(window, Session):
            return Sessions(name, window, self._late_ms, found, self._emission)
        assert isinstance(window, CountWindow), "there are four kinds"
        return Counted(name, window, found, self._emission)


class _Reducing(Fold[Value, Value, Value]):
    """The aggregate of `WindowedStream.reduce`: it begins with the first value."""

    first = "{x}"

    def __str__(self) -> str:
        return "reduce"

    def __init__(self, function: Callable[[Value, Value], Value], kind: Kind) -> None:
        super().__init__(lambda: None, function, function, type=kind)


def _itself(value: Value) -> Value:
    return value
