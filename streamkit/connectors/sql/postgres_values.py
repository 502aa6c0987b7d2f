"""How psycopg reads and writes values: JSON as it is, and as text what Python has no value for."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec
from psycopg import Connection, DataError
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.postgres import types as TYPES
from psycopg.pq import Format
from psycopg.types.datetime import (
    DateLoader,
    IntervalLoader,
    TimeLoader,
    TimestampLoader,
    TimestamptzLoader,
    TimetzLoader,
)
from psycopg.types.numeric import FloatDumper
from psycopg.types.string import TextLoader

from streamkit.record import Value

# psycopg has classes of its own for them, which cannot be written as JSON.
_READ_AS_TEXT: Final = (
    *("inet", "cidr"),
    *("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange"),
    *("int4multirange", "int8multirange", "nummultirange"),
    *("datemultirange", "tsmultirange", "tstzmultirange"),
)


class _DaysLoader(IntervalLoader):
    """Refuses months and years, which psycopg takes for 30 and 365 days."""

    def load(self, data: Buffer) -> timedelta:
        text = bytes(data)
        if b"mon" in text or b"year" in text:
            raise DataError(f"the interval {text.decode()!r} has no fixed length")
        return super().load(data)


_TIMES: Final[dict[str, type[Loader]]] = {
    "date": DateLoader,
    "time": TimeLoader,
    "timetz": TimetzLoader,
    "timestamp": TimestampLoader,
    "timestamptz": TimestamptzLoader,
    "interval": _DaysLoader,
}


def register(connection: Connection[tuple[Value, ...]], *, reads_all_times: bool) -> None:
    """Set how a connection reads and writes values.

    Args:
        connection: The connection.
        reads_all_times: Whether times that Python does not have, such as infinity, are read as
            text. That takes longer for all times.
    """
    adapters = connection.adapters
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _RawJson)
    for name in _READ_AS_TEXT:
        adapters.register_loader(name, TextLoader)
    adapters.register_loader("interval", _DaysLoader)
    adapters.register_dumper(float, _FloatDumper)
    if reads_all_times:
        for name, loader in _TIMES.items():
            adapters.register_loader(name, _or_text(loader))
    for dumper in (_CopiedJson, _CopiedJsonb):
        adapters.register_dumper(dumper, dumper)


def _or_text(loader: type[Loader]) -> type[Loader]:
    class OrText(loader):  # type: ignore[misc,valid-type]  # known at run time
        def load(self, data: Buffer) -> Value:
            try:
                return super().load(data)
            except DataError:
                return bytes(data).decode()

    return OrText


class _FloatDumper(FloatDumper):
    """Leaves the size of a number to the column that it is compared with.

    A ``real`` that is read as 1.1 is another number than the ``double precision`` 1.1.
    """

    oid = 0


class _RawJson(Loader):
    """Keeps JSON as it is, since the type of the rows says how to decode it."""

    def load(self, data: Buffer) -> msgspec.Raw:
        return msgspec.Raw(bytes(data))


class _CopiedJson(Dumper):
    """Copies JSON that is text already. It is chosen by the type of the column."""

    format = Format.BINARY
    oid = TYPES["json"].oid

    def dump(self, obj: str) -> bytes:
        return obj.encode()


class _CopiedJsonb(_CopiedJson):
    """The same for ``jsonb``, whose binary form begins with its version."""

    oid = TYPES["jsonb"].oid

    def dump(self, obj: str) -> bytes:
        return b"\x01" + obj.encode()
