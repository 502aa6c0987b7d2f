"""Options of methods and decorators, as keywords: of every stage, and of topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from streamkit.dataflow.calling import CallingOptions
from streamkit.dataflow.topology import SourceTiming
from streamkit.errors import UsageError
from streamkit.policies import OnError, Policy, policy_of
from streamkit.record import Compression, Isolation, Offset
from streamkit.serde.binding import Serde
from streamkit.windows import duration_ms

Start = Offset | Literal["beginning", "end"]


class StageOptions(TypedDict, total=False):
    """Options of every stage, source and sink.

    Attributes:
        on_error: What happens when the function raises, or a value cannot be decoded or
            written: ``"fail"`` stops the job at this record (the default), ``"skip"`` counts the
            record and continues; `streamkit.policies.dead_letter` writes it to another place, and
            `streamkit.policies.retry` tries again first.
        name: The stage's name; without it, the name of the function.
    """

    on_error: OnError
    name: str | None


class StatefulOptions(StageOptions, total=False):
    """Options of a stage that keeps a state.

    Attributes:
        ttl: After this time without being set, in event time, a value is gone.
        migrate: Makes a value of the present type from the stored one, as msgspec decodes it
            without a type, when the type of the state has changed.
    """

    ttl: float | timedelta | None
    migrate: Callable[[Any], Any] | None


class FunctionStageOptions(StatefulOptions, CallingOptions, total=False):
    """Options of a stage that is a decorated function."""


class TimeOptions(TypedDict, total=False):
    """Options of the event time of a source.

    Attributes:
        event_time: Returns the event time of a value: a datetime with a time zone, or ms since
            1970. By default the timestamp of the record.
        out_of_order: How much earlier than the highest event time of its partition a record may
            be, in seconds or as a timedelta; 0 by default.
        idle: After this time without new records, a partition no longer holds windows open, in
            seconds or as a timedelta; one minute by default.
    """

    event_time: Callable[[Any], datetime | int] | None
    out_of_order: float | timedelta
    idle: float | timedelta


class TopicSourceOptions(TypedDict, total=False):
    """Options of a topic that is read.

    Attributes:
        start: Where to start if nothing is committed yet.
        partitions: The partitions to read; by default all.
        isolation: By default, the safe one for the topic's replication.
        max_bytes: Maximum size of one response of a partition.
        value: The format of the values: one of `streamkit.formats`, or your own.
        key_format: The format of the keys, for a `Context` with a type such as ``Context[int]``.
    """

    start: Start
    partitions: Sequence[int] | None
    isolation: Isolation | None
    max_bytes: int | None
    value: Serde | None
    key_format: Serde | None


class GeneratorOptions(StageOptions, TimeOptions, total=False):
    """Options of a source that is a generator."""


class SourceOptions(StageOptions, TimeOptions, TopicSourceOptions, total=False):
    """Options of a source that reads a topic."""


class TopicSinkOptions(TypedDict, total=False):
    """Options of a topic that is written. None of them weakens the guarantee of a commit.

    Attributes:
        partitioner: Chooses partitions for a column of keys.
        batch_size: Soft limit of a batch in bytes.
        max_request_size: Hard limit in bytes of a batch with a single record.
        linger: How long a batch may wait for more records; by default until the chunk ends.
        compression: By default the compression of the topic, or none.
        value: The format of the values: one of `streamkit.formats`, or your own.
    """

    partitioner: Callable[..., Any] | None
    batch_size: int | None
    max_request_size: int | None
    linger: float | timedelta | None
    compression: Compression | None
    value: Serde | None


class SinkOptions(StageOptions, TopicSinkOptions, total=False):
    """Options of a sink that writes a topic."""


class FunctionSinkOptions(StageOptions, CallingOptions, total=False):
    """Options of a sink that is a decorated function."""


class ShapingOptions(SinkOptions, CallingOptions, total=False):
    """Options of a decorated function that returns what a topic gets."""


def checked_options(options: Any, known: type) -> None:
    """Refuse an option that does not exist.

    Raises:
        UsageError: An option does not exist; the hint lists those that do.
    """
    names = known.__annotations__
    unknown = [name for name in options if name not in names]
    if unknown:
        # ``batch`` selects an overload, so it is a parameter of its own.
        listed = [*names, "batch"] if "max_wait" in names else names
        raise UsageError(
            f"{unknown[0]!r} is not a valid option", hint=f"the options are {', '.join(listed)}"
        )


_OF_TOPICS = TopicSourceOptions.__annotations__.keys() | TopicSinkOptions.__annotations__


def topic_options(options: StageOptions) -> list[str]:
    """Return the names of the options that only topics have."""
    return [name for name, value in options.items() if value is not None and name in _OF_TOPICS]


def stage_options(options: StatefulOptions) -> StageOptions:
    """Return the options that every stage has."""
    found: StageOptions = {}
    if "name" in options:
        found["name"] = options["name"]
    if "on_error" in options:
        found["on_error"] = options["on_error"]
    return found


def timing_of(options: TimeOptions) -> SourceTiming:
    """Return how the event times of a source behave.

    Raises:
        UsageError: A duration is not valid.
    """
    return SourceTiming(
        duration_ms(options.get("out_of_order", 0), "out_of_order", least=0),
        duration_ms(options.get("idle", 60), "idle"),
    )


def on_error_of(options: StageOptions) -> Policy:
    """Return the policy for records that fail.

    Raises:
        UsageError: The policy is not valid.
    """
    return policy_of(options.get("on_error", "fail"))
