"""Builds the steps before a sink: set the key, convert the value, encode it as bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from streamkit.dataflow.contracts import Sink
from streamkit.dataflow.encoding import Encode
from streamkit.dataflow.endpoints import FunctionSink, TopicSink
from streamkit.dataflow.functions import call_problem, check_callable, is_generator, result_of
from streamkit.dataflow.operators import SetKeys, Unwrap
from streamkit.dataflow.options import SinkOptions, topic_options
from streamkit.dataflow.steps import Step
from streamkit.dataflow.topology import clashes, refuse_other_type, type_name
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Compression, Kind, Topic
from streamkit.serde.binding import Serde, Usage, bound
from streamkit.serde.keys import key_encoder
from streamkit.serde.kinds import in_record, may_be_record
from streamkit.serde.values import ValueEncoder, encoder_for, encoder_for_topic

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


@dataclass(frozen=True, slots=True)
class KeyOption:
    """How the keys of a sink are made: ``key=`` and ``key_format=``."""

    function: Callable[[Any], Any] | None = None
    format: Serde | None = None


def sink_steps(
    target: Any,
    key: KeyOption,
    shaping: tuple[Step, ...],
    value_type: Any,
    serde: Any,
    giver: str,
) -> tuple[Step, ...]:
    """Return the steps before a sink.

    ``value_type`` is the annotated type of the values or None; ``giver`` is the stage that
    returns them.

    Raises:
        TopologyError: Values or keys of that type cannot be written to the target.
        UsageError: ``key_format=`` has no effect.
    """
    keys = _key_steps(target, key)
    encoder = _encoder(target, value_type, serde, giver)
    if encoder is None:
        return (*keys, *shaping)
    # `key=` has priority over the key of a Record, unless a function of the sink returns it.
    if not may_be_record(value_type):
        return (*keys, *shaping, Encode(encoder))
    kept = target.record_type if isinstance(target, Sink) else None
    unwrap = Unwrap(keeps_keys=bool(keys) and not shaping, kept=kept)
    return (*keys, *shaping, unwrap, Encode(encoder))


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
        topic_type = target.type if isinstance(target, Topic) else None
        written = in_record(value_type)
        if serde is not None:
            return _encoder_with(serde, str(getattr(target, "name", target)), topic_type, written)
        if topic_type is not bytes and written is not bytes and clashes(written, topic_type):
            raise TopologyError(
                f"the topic {getattr(target, 'name', target)!r} has values of type "
                f"{type_name(topic_type)}, but {giver!r} produces {type_name(written)}"
            )
        return encoder_for_topic(value_type, topic_type)
    return target.encoder(value_type, serde) if isinstance(target, Sink) else None


def _encoder_with(serde: Any, topic: str, topic_type: Kind, written: Kind) -> ValueEncoder:
    """Return the encoder of a format for values of a type; the type of the topic decides."""
    is_typed = topic_type is not None and topic_type is not bytes
    kind = topic_type if is_typed and written is not bytes else written
    refuse_other_type(serde, kind, "given")
    return encoder_for(None, bound(serde, Usage(kind, topic, is_written=True)))


def _key_steps(target: Any, key: KeyOption) -> tuple[Step, ...]:
    if key.function is None:
        if key.format is not None:
            raise UsageError(
                "key_format= has no effect without key=",
                hint="name the function that returns the keys: key=lambda row: row.id",
            )
        return ()
    check_callable(key.function, "key=")
    has_format = isinstance(target, str | Topic) or (
        isinstance(target, Sink) and target.raw_type is not None
    )
    if key.format is not None and not has_format:
        raise UsageError(f"key_format: only a topic has this option, not {target!r}")
    kind = result_of(key.function, {})
    refuse_other_type(key.format, kind, "given")
    usage = Usage(kind, str(getattr(target, "name", target)), "key", is_written=True)
    return (SetKeys(_as_key(key.function, key_encoder(key.format, usage))),)


def _as_key(
    key: Callable[[Any], Any], encode: Callable[[Any], bytes | None]
) -> Callable[[Any], bytes | None]:
    def as_bytes(value: Any) -> bytes | None:
        return encode(key(value))

    return as_bytes
