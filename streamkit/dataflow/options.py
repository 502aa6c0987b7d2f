"""Options that verbs and decorators share: of a topic that is read, and of one that is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict

from streamkit.errors import UsageError
from streamkit.record import Compression, Isolation, Offset
from streamkit.serde.values import Serde

Start = Offset | Literal["beginning", "end"]


class TopicSourceOptions(TypedDict, total=False):
    """How a topic is read.

    Attributes:
        start: Where to begin where nothing is committed yet.
        partitions: Which ones; all, if left out.
        isolation: Left out, the safe one for the topic's replication.
        max_bytes: Size of one response of a partition.
        value: Your own format, with ``loads`` and ``dumps``.
    """

    start: Start
    partitions: Sequence[int] | None
    isolation: Isolation | None
    max_bytes: int | None
    value: Serde | None


class TopicSinkOptions(TypedDict, total=False):
    """How a topic is written. None of them can weaken what a commit promises.

    Attributes:
        partitioner: Chooses partitions for a column of keys.
        batch_size: Soft limit of a batch in bytes.
        max_request_size: Hard limit of a record alone in its batch, in bytes.
        linger: How long a batch may wait for more records; left out, until the chunk ends.
        compression: Left out, the topic's own, or none.
        value: Your own format, with ``loads`` and ``dumps``.
    """

    partitioner: Callable[..., Any] | None
    batch_size: int | None
    max_request_size: int | None
    linger: float | timedelta | None
    compression: Compression | None
    value: Serde | None


def checked_options(options: Any, known: type) -> None:
    """Refuse an option that does not exist, as a call with named parameters does.

    Raises:
        UsageError: With the options that exist.
    """
    names = known.__annotations__
    unknown = [name for name in options if name not in names]
    if unknown:
        raise UsageError(
            f"there is no option {unknown[0]!r}", hint=f"the options are {', '.join(names)}"
        )
