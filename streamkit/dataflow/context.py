"""The context of a record: its topic, partition, offset, key and timestamp."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from streamkit.record import time_of

K_co = TypeVar("K_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Context(Generic[K_co]):
    """Where a record comes from. A stage gets it if its second parameter is annotated with it.

    ``timestamp_ms`` is in milliseconds since the epoch, UTC; -1 if the record has no timestamp.
    """

    topic: str
    partition: int
    offset: int
    key: K_co
    timestamp_ms: int

    @property
    def timestamp(self) -> datetime | None:
        """The timestamp of the record in UTC; None if it has no timestamp.

        Raises:
            DataError: The time is after the year 9999, which a datetime cannot hold.
        """
        return time_of(self.timestamp_ms)
