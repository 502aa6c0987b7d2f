"""What a stage may know of the record it works on, beside its value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from streamkit.record import time_of

K_co = TypeVar("K_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Context(Generic[K_co]):
    """Where a record comes from. A stage gets one by a second parameter annotated with it.

    ``timestamp_ms`` counts milliseconds since the epoch, UTC; -1 where there is none.
    """

    topic: str
    partition: int
    offset: int
    key: K_co
    timestamp_ms: int

    @property
    def timestamp(self) -> datetime | None:
        """When the record was made, in UTC; None where it carries no time.

        Raises:
            DataError: It is after the year 9999, which a datetime cannot hold.
        """
        return time_of(self.timestamp_ms)
