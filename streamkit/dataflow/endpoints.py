"""Where sources read and sinks write, as data. The engine does not know what they mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from streamkit.record import Offset
from streamkit.serde.values import Serde

V = TypeVar("V")


class SinkWriter(Protocol[V]):
    """A sink of one's own with full control; each method may be async.

    A commit covers what was written before a ``flush`` that has returned.
    """

    def open(self) -> object: ...

    def write(self, rows: list[V], /) -> object: ...

    def flush(self) -> object: ...

    def close(self) -> object: ...


class Connector(Protocol):
    """What knows how to write somewhere, such as `streamkit.connectors.files.JsonLines`.

    It may have a method ``resource()``, which returns a text that names what it must have for
    itself alone, as a file, or None; two sinks with one resource are refused.
    """

    def writer(self) -> Any:
        """Make the port that the engine writes to."""


@dataclass(frozen=True, slots=True)
class TopicSource:
    """A topic to read. ``start`` counts only where nothing is committed yet.

    ``partitions`` are those to read, ``partition_count`` how many its `Topic` says there are.
    ``format`` is how values are read where that is not JSON.
    """

    topic: str
    start: Offset = field(default_factory=Offset.beginning)
    partitions: tuple[int, ...] | None = None
    isolation: str | None = None
    max_bytes: int | None = None
    partition_count: int | None = None
    format: Serde | None = None

    def __str__(self) -> str:
        return f"topic {self.topic}"


@dataclass(frozen=True, slots=True)
class TopicSink:
    """A topic to write. ``linger_s`` None: batches go when the chunk ends."""

    topic: str
    partitions: int | None = None
    partitioner: Callable[..., Any] | None = None
    batch_size_bytes: int | None = None
    linger_s: float | None = None
    compression: str | None = None
    max_request_size_bytes: int | None = None

    def __str__(self) -> str:
        return f"topic {self.topic}"


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A generator of the user's. ``is_replayable``: it goes on from a committed position, whose
    type is the annotation of its parameter ``resume``.
    """

    function: Callable[..., Any]
    position_type: Any = Any
    location: str = ""

    @property
    def is_replayable(self) -> bool:
        return "resume" in inspect.signature(self.function).parameters

    def __str__(self) -> str:
        return f"function {getattr(self.function, '__name__', 'source')}"


@dataclass(frozen=True, slots=True)
class FunctionSink:
    """A function of the user's, called per record, or with up to ``batch`` records."""

    function: Callable[..., Any]
    batch: int | None = None

    def __str__(self) -> str:
        return f"function {getattr(self.function, '__name__', 'sink')}"
