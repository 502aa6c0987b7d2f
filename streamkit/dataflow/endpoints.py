"""Where sources read and sinks write, as data that the engine does not interpret."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from streamkit.record import Offset
from streamkit.serde.binding import BoundFormat, Serde

V = TypeVar("V")


class CustomSink(Protocol[V]):
    """A custom sink with full control; each method may be async.

    A commit calls ``flush``; when it returns, the values written before must be safe.
    """

    def open(self) -> object: ...

    def write(self, rows: list[V], /) -> object: ...

    def flush(self) -> object: ...

    def close(self) -> object: ...


@dataclass(frozen=True, slots=True)
class TopicSource:
    """A topic to read. ``start`` is used only if nothing is committed yet.

    ``partitions`` are the partitions to read; ``partition_count`` is the count that its `Topic`
    declares. ``format`` is a custom format of the values, and ``key_format`` one of the keys.
    """

    topic: str
    start: Offset = field(default_factory=Offset.beginning)
    partitions: tuple[int, ...] | None = None
    isolation: str | None = None
    max_bytes: int | None = None
    partition_count: int | None = None
    format: Serde | BoundFormat | None = None
    key_format: Serde | None = None

    def __str__(self) -> str:
        return f"topic {self.topic}"


@dataclass(frozen=True, slots=True)
class TopicSink:
    """A topic to write. If ``linger_s`` is None, batches are sent after each chunk."""

    topic: str
    partitions: int | None = None
    partitioner: Callable[..., Any] | None = None
    batch_size_bytes: int | None = None
    linger_s: float | None = None
    compression: str | None = None
    max_request_size_bytes: int | None = None

    def __str__(self) -> str:
        return f"topic {self.topic}"


class FileTable(ABC):
    """A small file with the rows of a table, such as `streamkit.connectors.tables.CsvTable`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A name for the table."""

    @abstractmethod
    def rows(self, kind: Any) -> list[Any]:
        """Read all rows, decoded to a type.

        Raises:
            DataError: The file cannot be read, or a row is not of the type; it names the line.
        """


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A user's generator.

    ``is_replayable`` means that it has a parameter ``resume`` and can resume after a committed
    position. ``position_type`` is the annotation of that parameter.
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
    """A user function, called for each record, or with lists of up to ``batch`` records."""

    function: Callable[..., Any]
    batch: int | None = None

    def __str__(self) -> str:
        return f"function {getattr(self.function, '__name__', 'sink')}"
