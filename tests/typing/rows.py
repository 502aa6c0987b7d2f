"""The row classes of the right and the wrong programs."""

from __future__ import annotations

import msgspec


class Flight(msgspec.Struct):
    carrier: str
    flight: int
    arr_delay: float | None


class Late(msgspec.Struct, tag=True):
    carrier: str
    minutes: float


class Early(msgspec.Struct, tag=True):
    carrier: str
    minutes: float
