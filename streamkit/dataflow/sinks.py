"""Builds the steps before a sink: set the key, convert the value, encode it as bytes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

from streamkit.dataflow.contracts import Sink
from streamkit.dataflow.encoding import Encode
from streamkit.dataflow.endpoints import FunctionSink, TopicSink
from streamkit.dataflow.functions import call_problem, check_callable, is_generator
from streamkit.dataflow.operators import SetKeys, Unwrap
from streamkit.dataflow.options import SinkOptions, topic_options
from streamkit.dataflow.steps import Step
from streamkit.dataflow.topology import clashes, type_name
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Compression, Topic
from streamkit.serde.kinds import in_record, may_be_record
from streamkit.serde.values import (
    ValueEncoder,
    encode_key,
    encoder_for,
    encoder_for_topic,
)

# The methods of a sink object, and example arguments of each.
_WRITER_METHODS: dict[str, tuple[Any, ...]] = {"open": (), "write": ([],), "flush": (), "close": ()}


def sink_endpoint(target: Any, options: SinkOptions) -> Any:
    """Return the endpoint for a sink target of the user.

    Raises:
        TopologyError: The target is not a sink.
        UsageError: An option is not valid, or is only for topics.
    """
    if isinstance(target, str):
        target = Topic(target)
    if isinstance(target, Topic):
        return _topic_sink(target, options)
    names = [each for each in topic_options(options) if each != "value"]
    if options.get("value") is not None and not isinstance(target, Sink):
        names.append("value")
    if names:
        raise UsageError(f"{', '.join(names)}: only a topic has this option, not {target!r}")
    if not isinstance(target, FunctionSink):
        _refuse_unwritable(target)
    return target


def sink_steps(
    target: Any,
    key: Callable[[Any], Any] | None,
    shaping: tuple[Step, ...],
    value_type: Any,
    serde: Any,
    giver: str,
) -> tuple[Step, ...]:
    """Return the steps before a sink.

    ``value_type`` is the annotated type of the values or None; ``giver`` is the stage that
    returns them.

    Raises:
        TopologyError: Values of that type cannot be written to the target.
    """
    keys = () if key is None else (SetKeys(_as_key(key)),)
    encoder = _encoder(target, value_type, serde, giver)
    if encoder is None:
        return (*keys, *shaping)
    # `key=` has priority over the key of a Record, unless a function of the sink returns it.
    unwrap = (Unwrap(keeps_keys=bool(keys) and not shaping),) if may_be_record(value_type) else ()
    return (*keys, *shaping, *unwrap, Encode(encoder))


def default_name(endpoint: Any) -> str:
    """Return a name for a sink that the user did not name."""
    if isinstance(endpoint, TopicSink):
        return f"to-{endpoint.topic}"[:60].rstrip("-")
    if isinstance(endpoint, Sink):
        return endpoint.name
    return type(endpoint).__name__


def _topic_sink(topic: Topic[Any], options: SinkOptions) -> TopicSink:
    compression = options.get("compression")
    if compression is not None and compression not in get_args(Compression):
        raise UsageError(
            f"{compression!r} is not a valid compression",
            hint=f"use {', '.join(get_args(Compression))}",
        )
    for name in ("batch_size", "max_request_size"):
        size = options.get(name)
        if size is not None and (not isinstance(size, int) or size < 1):
            raise UsageError(f"{name}={size!r} must be at least 1 byte")
    partitioner = options.get("partitioner")
    if partitioner is not None:
        check_callable(partitioner, "partitioner=", values=2)
    linger = options.get("linger")
    return TopicSink(
        topic.name,
        topic.partitions,
        partitioner,
        options.get("batch_size"),
        linger.total_seconds() if isinstance(linger, timedelta) else linger,
        compression,
        options.get("max_request_size"),
    )


def _refuse_unwritable(target: Any) -> None:
    """Refuse a target that is neither a connector nor a sink object."""
    if isinstance(target, type):
        raise TopologyError(
            f"{target.__name__} is a class, not a sink",
            hint=f"use an instance: {target.__name__}(...)",
        )
    if isinstance(target, Sink):
        return
    missing = [name for name in _WRITER_METHODS if not callable(getattr(target, name, None))]
    if missing:
        raise TopologyError(
            f"{target!r} is not a sink: it has no {', '.join(missing)}",
            hint="use a topic, a connector, or an object with open, write, flush and close",
        )
    for name, given in _WRITER_METHODS.items():
        method = getattr(target, name)
        problem = call_problem(method, given)
        if is_generator(method):
            problem = "it is a generator, so its code would never run"
        if problem:
            what = "a list of values" if given else "nothing"
            raise TopologyError(f"{name} of {target!r} cannot be called with {what}: {problem}")


def _encoder(target: Any, value_type: Any, serde: Any, giver: str) -> ValueEncoder | None:
    """Return the encoder for a sink; None if the sink accepts values without encoding."""
    if isinstance(target, str | Topic):
        if serde is not None:
            return encoder_for(None, serde)
        topic_type = target.type if isinstance(target, Topic) else None
        written = in_record(value_type)
        if topic_type is not bytes and written is not bytes and clashes(written, topic_type):
            raise TopologyError(
                f"the topic {getattr(target, 'name', target)!r} has values of type "
                f"{type_name(topic_type)}, but {giver!r} produces {type_name(written)}"
            )
        return encoder_for_topic(value_type, topic_type)
    return target.encoder(value_type, serde) if isinstance(target, Sink) else None


def _as_key(key: Callable[[Any], Any]) -> Callable[[Any], bytes | None]:
    check_callable(key, "key=")

    def as_bytes(value: Any) -> bytes | None:
        return encode_key(key(value))

    return as_bytes
