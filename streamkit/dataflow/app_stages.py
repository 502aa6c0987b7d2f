"""The part of `App` that adds decorated stages and sinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from streamkit.dataflow.app_sources import AppSources
from streamkit.dataflow.batch_decorators import (
    BatchDecorator,
    BatchSinkDecorator,
    GivingBatchDecorator,
)
from streamkit.dataflow.callers import caller_location, caller_scope
from streamkit.dataflow.contracts import Sink as SinkConnector
from streamkit.dataflow.decorated import (
    input_nodes,
    sink_node,
    stage_node,
    undecorated,
)
from streamkit.dataflow.decorated_function import Sink, Stage
from streamkit.dataflow.decorators import (
    GivingDecorator,
    ShapingDecorator,
    SinkDecorator,
    StageDecorator,
)
from streamkit.dataflow.endpoints import CustomSink, FunctionSink
from streamkit.dataflow.options import (
    FunctionSinkOptions,
    FunctionStageOptions,
    ShapingOptions,
    checked_options,
    topic_options,
)
from streamkit.dataflow.sinks import KeyOption
from streamkit.dataflow.stream import Stream
from streamkit.errors import UsageError
from streamkit.record import Record, Topic
from streamkit.serde.binding import Serde

if TYPE_CHECKING:
    from typing_extensions import TypeForm

X = TypeVar("X")
Y = TypeVar("Y")
Z = TypeVar("Z")
V = TypeVar("V")


class AppStages(AppSources):
    """The stages and sinks of an `App`."""

    # --- stages --------------------------------------------------------------------

    @overload
    def stage(
        self, stream: Stream[X], /, **options: Unpack[FunctionStageOptions]
    ) -> StageDecorator[X]: ...
    @overload
    def stage(
        self, stream: Stream[X], /, *, batch: int, **options: Unpack[FunctionStageOptions]
    ) -> BatchDecorator[X]: ...
    @overload
    def stage(
        self,
        stream: Stream[X],
        /,
        *,
        batch: int,
        output_type: TypeForm[V],
        **options: Unpack[FunctionStageOptions],
    ) -> GivingBatchDecorator[X, V]: ...
    @overload
    def stage(
        self,
        stream: Stream[X],
        /,
        *others: Stream[Any],
        output_type: TypeForm[V],
        **options: Unpack[FunctionStageOptions],
    ) -> GivingDecorator[X, V]: ...
    @overload
    def stage(
        self,
        stream: Stream[X],
        other: Stream[Y],
        /,
        **options: Unpack[FunctionStageOptions],
    ) -> StageDecorator[X | Y]: ...
    @overload
    def stage(
        self,
        stream: Stream[X],
        other: Stream[Y],
        third: Stream[Z],
        /,
        *more: Stream[Any],
        **options: Unpack[FunctionStageOptions],
    ) -> StageDecorator[X | Y | Z]: ...
    def stage(
        self,
        *streams: Stream[Any],
        output_type: Any = None,
        batch: int | None = None,
        **options: Unpack[FunctionStageOptions],
    ) -> Any:
        """Process a stream, or several streams merged into one.

        The result of a function replaces the value, and None drops the record. Each value that
        a generator yields becomes a record. A second parameter annotated with `Context` gets the
        record's key, timestamp and origin.

        Args:
            streams: The streams to read.
            output_type: The type of the results, for a function that returns a union of classes,
                or frames with rows of this type.
            batch: The function gets lists of up to so many values, or frames if its parameter is
                annotated so. With ``-> list[...]`` or a frame it returns one result for each; with
                ``-> Iterator[...]`` any number, whose key and timestamp are those of the last
                record.
            options: See `FunctionStageOptions`.

        Raises:
            TopologyError: The function cannot be a stage; the message shows its file and line.
        """
        scope = caller_scope()
        location = caller_location()
        nodes = input_nodes(streams, "stage", str(location))
        checked_options(options, FunctionStageOptions)

        def decorate(function: Callable[..., Any]) -> Any:
            node = stage_node(undecorated(function), scope, nodes, output_type, options, batch)
            return Stage(undecorated(function), self.topology, self.topology.add(node))

        return decorate

    # --- sinks ---------------------------------------------------------------------

    @overload
    def sink(
        self, stream: Stream[X], /, **options: Unpack[FunctionSinkOptions]
    ) -> SinkDecorator[X]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        batch: int,
        **options: Unpack[FunctionSinkOptions],
    ) -> BatchSinkDecorator[X]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: Topic[Y],
        key: Callable[[X], object],
        key_format: Serde,
        **options: Unpack[ShapingOptions],
    ) -> ShapingDecorator[X, Y | Record[Y] | Record[bytes]]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: str | SinkConnector[Any],
        key: Callable[[X], object],
        key_format: Serde,
        **options: Unpack[ShapingOptions],
    ) -> ShapingDecorator[X, Any]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: Topic[Y],
        key: Callable[[X], bytes | str | None] | None = None,
        **options: Unpack[ShapingOptions],
    ) -> ShapingDecorator[X, Y | Record[Y] | Record[bytes]]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: CustomSink[Y],
        key: Callable[[X], bytes | str | None] | None = None,
        **options: Unpack[FunctionSinkOptions],
    ) -> ShapingDecorator[X, Y]: ...
    @overload
    def sink(
        self,
        stream: Stream[X],
        /,
        *,
        to: str | SinkConnector[Any],
        key: Callable[[X], bytes | str | None] | None = None,
        **options: Unpack[ShapingOptions],
    ) -> ShapingDecorator[X, Any]: ...
    def sink(
        self,
        stream: Stream[Any],
        /,
        *,
        to: Any = None,
        key: Callable[[Any], Any] | None = None,
        key_format: Serde | None = None,
        batch: int | None = None,
        **options: Unpack[ShapingOptions],
    ) -> Any:
        """Write a stream.

        With ``to``, the function returns the value that is written, and None drops the record;
        it may return a `Record` to set key and timestamp. Without ``to``, the function is the
        sink: it is called with each value, or with lists or frames of values if ``batch`` is set.

        Args:
            stream: The stream to write.
            to: A topic, by name or as `Topic`, or a connector object.
            key: Returns the record's key for a value of the stream.
            key_format: The format of the keys, for a topic. Without it, they are bytes, text or
                None.
            batch: The largest list or frame that one call of a function sink gets.
            options: See `ShapingOptions`.

        Raises:
            TopologyError: The function cannot be a sink; the message shows its file and line.
        """
        scope = caller_scope()
        location = caller_location()
        (node,) = input_nodes((stream,), "sink", str(location))
        if batch is not None and (to is not None or batch < 1):
            problem = "must be at least 1" if to is None else "is only for a sink without to="
            raise UsageError(f"batch={batch} {problem}")
        checked_options(options, ShapingOptions)
        if to is None and (names := topic_options(options)):
            raise UsageError(
                f"{', '.join(names)}: only a topic has this option", hint="set the topic with to="
            )

        def decorate(function: Callable[..., Any]) -> Any:
            function = undecorated(function)
            target = FunctionSink(function, batch) if to is None else to
            added = sink_node(function, scope, node, target, KeyOption(key, key_format), options)
            return Sink(function, self.topology.add(added))

        return decorate
