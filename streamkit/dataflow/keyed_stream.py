"""`KeyedStream`: a stream whose records are grouped by a key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    TypeVar,
    Unpack,
    overload,
)

from streamkit.dataflow.callers import caller_location, caller_scope
from streamkit.dataflow.emission import Emit, emission_of
from streamkit.dataflow.functions import (
    check_callable,
    errors_at,
    result_of,
    verb_name,
    without_none,
)
from streamkit.dataflow.options import (
    StageOptions,
    StatefulOptions,
    checked_options,
    stage_options,
)
from streamkit.dataflow.state_handle import State
from streamkit.dataflow.stateful import Stateful, first_only, reducing, stateful_form
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import Node
from streamkit.errors import TopologyError
from streamkit.state.types import format_of
from streamkit.windows import AnyWindow, Duration, check_window, duration_ms

if TYPE_CHECKING:
    from typing_extensions import TypeForm

    from streamkit.dataflow.join_stream import (
        JoinOptions,
        JoinResults,
    )
    from streamkit.dataflow.joins import How
    from streamkit.dataflow.window_stream import WindowedStream

V_co = TypeVar("V_co", covariant=True)
U = TypeVar("U")
S = TypeVar("S")
K_co = TypeVar("K_co", covariant=True)
R = TypeVar("R")


class KeyedStream(Stream[V_co], Generic[K_co, V_co]):
    """A stream whose records are grouped by a key; see `Stream.key_by`.

    Every stage that keeps a state has a name, which is the identity of the state: give it with
    ``name=`` if the function may be renamed. `map`, `filter` and `flat_map` keep the keys.
    """

    if TYPE_CHECKING:

        def map(
            self, function: Callable[[V_co], U], **options: Unpack[StageOptions]
        ) -> KeyedStream[K_co, U]: ...

        def filter(
            self, predicate: Callable[[V_co], bool], **options: Unpack[StageOptions]
        ) -> KeyedStream[K_co, V_co]: ...

        def flat_map(
            self, function: Callable[[V_co], Iterable[U]], **options: Unpack[StageOptions]
        ) -> KeyedStream[K_co, U]: ...

    def stateful(
        self,
        state_type: TypeForm[S],
        function: Callable[[V_co, State[S]], U | None],
        **options: Unpack[StatefulOptions],
    ) -> Stream[U]:
        """Call ``function`` with each value and the state of its key; drop the value for None.

        Args:
            state_type: The type of the value that is kept for each key.
            function: Gets the value and a `State`.
            options: See `StatefulOptions`.

        Raises:
            TopologyError: Values of ``state_type`` cannot be stored.
        """
        check_callable(function, "stateful", values=2)
        result = without_none(result_of(function, caller_scope()))
        return self._keeping(function, state_type, verb_name("stateful", function), result, options)

    def reduce(
        self, function: Callable[[V_co, V_co], V_co], **options: Unpack[StatefulOptions]
    ) -> Stream[V_co]:
        """Combine the values of each key: emit ``function(before, value)`` for each record.

        The first value of a key is emitted as it is.

        Raises:
            TopologyError: The type of the values is not known, or cannot be stored.
        """
        check_callable(function, "reduce", values=2)
        kind = self._node.value_type
        if kind is None:
            raise TopologyError(
                "reduce needs the type of the values, which is not known here",
                at=str(caller_location()),
                hint="annotate what the function of the stage before returns",
            )
        name = verb_name("reduce", function)
        with errors_at(caller_location()):
            combined = reducing(function, format_of(kind, name))
        return self._keeping(combined, kind, name, kind, options)

    def deduplicate(
        self, *, within: Duration | None = None, **options: Unpack[StageOptions]
    ) -> Stream[V_co]:
        """Keep the first record of each key, and drop all later ones.

        Args:
            within: Only drop records whose event time is less than this after the one that was
                kept; without it, keys are remembered for ever.
            options: See `StageOptions`.
        """
        kind = self._node.value_type
        checked_options(options, StageOptions)
        stateful: StatefulOptions = {
            "ttl": within,
            "name": options.get("name"),
            "on_error": options.get("on_error", "fail"),
        }
        return self._keeping(first_only, bool, "deduplicate", kind, stateful)

    @overload
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[[V_co, U], R],
        how: Literal["inner"] = "inner",
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]: ...
    @overload
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[[V_co, U | None], R],
        how: Literal["left"],
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]: ...
    @overload
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[[V_co | None, U | None], R],
        how: Literal["outer"],
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]: ...
    def join(
        self,
        other: KeyedStream[K_co, U],
        *,
        combine: Callable[..., R],
        how: How = "inner",
        **options: Unpack[JoinOptions],
    ) -> JoinResults[K_co, R, V_co | U]:
        """Pair records of the same key: close in event time, or in the same window.

        Args:
            other: The right side; it may be this stream.
            combine: Gets the values of a pair.
            how: ``inner`` emits pairs; ``left`` also the records of this stream that have found
                none, with None; ``outer`` those of both.
            options: See `JoinOptions`; ``within`` or ``window`` is needed.

        Raises:
            TopologyError: The type of the values is not known, or cannot be stored.
            UsageError: An option is not valid.
        """
        from streamkit.dataflow.join_stream import join

        check_keyed((other.node,), "join")
        return join(self._topology, (self._node, other.node), how, combine, options)

    def window(
        self,
        window: AnyWindow,
        *,
        late: Duration = 0,
        emit: Emit = "final",
        every: Duration | None = None,
    ) -> WindowedStream[K_co, V_co]:
        """Put the records of each key in windows, to aggregate them.

        Args:
            window: Such as ``Tumbling(hours=1)``; see `streamkit.windows`.
            late: How long a window waits for late records after its end, in event time.
            emit: ``final`` emits the result of a window once, when no record can change it any
                more. ``updates`` emits the present result of the window for each record, and
                nothing when the window closes.
            every: Also emit the present results of all open windows, each time the watermark
                enters another interval of this length. ``emit`` must be ``final``.

        Raises:
            UsageError: The window or an option is not valid.
        """
        from streamkit.dataflow.window_stream import WindowedStream

        late_ms = duration_ms(late, "late", least=0)
        emission = emission_of(check_window(window), late_ms, emit, every)
        return WindowedStream(self._topology, self._node, window, late_ms, emission)

    def _keeping(
        self,
        function: Callable[..., Any],
        state_type: Any,
        default_name: str,
        value_type: Any,
        options: StatefulOptions,
    ) -> Stream[Any]:
        checked_options(options, StatefulOptions)
        name = options.get("name") or self._topology.free_name(default_name)
        with errors_at(caller_location()):
            form, ttl_ms = stateful_form(state_type, name, options)
        step = Stateful(function, name, form, ttl_ms=ttl_ms)
        return self._then(step, name, value_type, stage_options({**options, "name": name}))


def check_keyed(inputs: tuple[Node, ...], name: str) -> None:
    """Refuse a stage with a state whose input is not grouped by a key.

    Raises:
        TopologyError: With the input.
    """
    for each in inputs:
        if not each.is_keyed:
            raise TopologyError(
                f"the stage {name!r} keeps a state for each key, but {each.name!r} has no keys",
                hint=f"group it first: @app.stage({each.name.replace('-', '_')}.key_by(...))",
            )
