"""How the values of Kafka records are read and written: tombstones, headers, formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from streamkit.dataflow.contracts import Decoder
from streamkit.dataflow.functions import without_none
from streamkit.errors import DataError
from streamkit.record import Kind, Record, Value
from streamkit.serde.binding import BoundFormat, FindFault, Serde
from streamkit.serde.finite import Fault
from streamkit.serde.kinds import RAW_KINDS, bare, in_record, is_text, may_be_record, members
from streamkit.serde.values import ValueEncoder, encode_as, encoder_for, format_for

V = TypeVar("V")
W = TypeVar("W")

Headers = tuple[tuple[str, bytes | None], ...]
Tombstones = Literal["empty", "skip"]


class KafkaRecord(Record[V], Generic[V], frozen=True):
    """A record of Kafka with its headers. It is a `Record`, so every sink accepts it.

    A source with values of the type ``KafkaRecord[Order]`` returns such records, and a `KafkaSink`
    writes their headers. Other sinks write only value, key and timestamp.
    """

    headers: Headers = ()

    def header(self, name: str) -> bytes | None:
        """Return the last header of a name; None if there is none, or it has no value."""
        return next((value for each, value in reversed(self.headers) if each == name), None)

    def with_value(self, value: W) -> KafkaRecord[W]:
        """Return a record with another value, and the same key, timestamp and headers."""
        return KafkaRecord(
            value,
            self.key,
            self.timestamp_ms,
            self.offset,
            self.partition,
            self.topic,
            self.headers,
        )


# A value and its headers, as the writer of the sink gets them; without headers it gets the value.
WithHeaders = tuple[bytes | None, list[tuple[str, bytes | None]]]


def is_kafka_record(kind: Kind) -> bool:
    """Return whether a type is `KafkaRecord`, with or without the type of its value."""
    return (get_origin(bare(kind)) or bare(kind)) is KafkaRecord


def decoder_for(
    kind: Kind, serde: Serde | BoundFormat | None, tombstones: Tombstones
) -> Decoder | None:
    """Return how rows of the reader become values of a type; None if they are values.

    A row is the bytes of a value, or None for a tombstone. If the type is `KafkaRecord`, a row is
    a record of them.

    Raises:
        TopologyError: Values of the type cannot be read.
    """
    skips = tombstones == "skip"
    if not is_kafka_record(kind):
        loads = _Loads.of(kind, serde)
        many = loads.many if serde is None else None
        return Decoder(loads.one, many, _is_value if skips else None)
    inner = _Loads.of((get_args(bare(kind)) or (bytes,))[0], serde)

    def with_headers(row: KafkaRecord[bytes | None]) -> KafkaRecord[Any]:
        return row.with_value(inner.one(row.value))

    return Decoder(with_headers, keeps=_has_value if skips else None)


def row_of(value: Value, kind: Kind, serde: Serde | BoundFormat | None) -> Value:
    """Return the row that `decoder_for` makes this value from."""
    if not is_kafka_record(kind):
        return _encoded(value, kind, serde)
    record = value if isinstance(value, KafkaRecord) else KafkaRecord(value)
    inner = (get_args(bare(kind)) or (bytes,))[0]
    return record.with_value(_encoded(record.value, inner, serde))


def _encoded(value: Value, kind: Kind, serde: Serde | BoundFormat | None) -> bytes | None:
    if value is None and _allows_none(kind):
        return None
    return encode_as(value, without_none(bare(kind)), serde)


@dataclass(frozen=True, slots=True)
class _Loads:
    """How the bytes of values are read; None if they stay bytes. ``empty`` reads a tombstone."""

    loads: Callable[[bytes], Value] | None
    empty: Callable[[], Value]

    @classmethod
    def of(cls, kind: Kind, serde: Serde | BoundFormat | None) -> _Loads:
        rest = without_none(bare(kind))
        is_plain = _is_plain(rest)
        # Of other types, None may be written as JSON, too.
        loads = format_for(rest if is_plain else kind, serde).loads
        if _allows_none(kind):
            return cls(loads, _none)
        if not is_plain:
            return cls(loads, _refuse)
        return cls(loads, bytes if loads is None else partial(loads, b""))

    def one(self, row: bytes | None) -> Value:
        if row is None:
            return self.empty()
        return row if self.loads is None else self.loads(row)

    def many(self, rows: Sequence[bytes | None]) -> Sequence[Value]:
        if None in rows:
            return list(map(self.one, rows))
        return rows if self.loads is None else list(map(self.loads, rows))  # type: ignore[arg-type]  # there is no None


def _none() -> None:
    return None


def _refuse() -> Value:
    raise DataError(
        "the record has no value (a tombstone)",
        hint='add "| None" to the type, or set tombstones="skip" of the KafkaSource',
    )


def _is_value(row: bytes | None) -> bool:
    return row is not None


def _has_value(row: KafkaRecord[bytes | None]) -> bool:
    return row.value is not None


def _is_plain(kind: Kind) -> bool:
    """Return whether values are bytes or text, for which no bytes are a value, too."""
    return bare(kind) in RAW_KINDS or is_text(kind)


def _allows_none(kind: Kind) -> bool:
    return any(each in (type(None), Any) for each in members(kind))


# --- writing --------------------------------------------------------------------------


def encoder_of(
    kind: Kind, serde: Serde | BoundFormat | None, *, writes_tombstones: bool
) -> ValueEncoder:
    """Return how values of a type are written; a tombstone is None, not bytes.

    Raises:
        TopologyError: Values of the type cannot be written.
    """
    written = in_record(kind)
    inner = _with_tombstones(written, serde, is_wanted=writes_tombstones)
    return _Headers(inner).encoder() if may_be_record(kind) else inner


def _with_tombstones(
    kind: Kind, serde: Serde | BoundFormat | None, *, is_wanted: bool
) -> ValueEncoder:
    rest = without_none(bare(kind))
    is_none = kind is None or _allows_none(kind)
    if is_none and kind not in (None, Any) and _is_plain(rest):
        is_wanted = True  # there are no bytes for None
    if not is_wanted:
        return encoder_for(kind, serde)
    inner = encoder_for(rest, serde)
    dumps = inner.dumps

    def or_none(value: Value) -> Any:
        return None if value is None else dumps(value)

    def unless_empty(value: Value) -> Any:
        return dumps(value) or None

    fault = None if inner.fault is None else _Written(inner.fault).fault
    return ValueEncoder(or_none if is_none else unless_empty, fault)


@dataclass(frozen=True, slots=True)
class _Written:
    """Looks for faults in rows that are not tombstones."""

    found: FindFault

    def fault(self, values: Sequence[Value], encoded: Sequence[Any]) -> Fault | None:
        if None not in encoded:
            return self.found(values, encoded)
        rows = [row for row, data in enumerate(encoded) if data is not None]
        found = self.found([values[row] for row in rows], [encoded[row] for row in rows])
        return None if found is None else (rows[found[0]], found[1])


@dataclass(frozen=True, slots=True)
class _Headers:
    """Encodes values that may be a `KafkaRecord`."""

    inner: ValueEncoder

    def encoder(self) -> ValueEncoder:
        return ValueEncoder(self.dumps, None if self.inner.fault is None else self.fault)

    def dumps(self, value: Value) -> Any:
        if not isinstance(value, KafkaRecord):
            return self.inner.dumps(value)
        data = self.inner.dumps(value.value)
        return (data, checked_headers(value.headers)) if value.headers else data

    def fault(self, values: Sequence[Value], encoded: Sequence[Any]) -> Fault | None:
        assert self.inner.fault is not None, "called only then"
        return self.inner.fault(
            [each.value if isinstance(each, KafkaRecord) else each for each in values],
            [each[0] if type(each) is tuple else each for each in encoded],
        )


def checked_headers(headers: Any) -> list[tuple[str, bytes | None]]:
    """Return headers as the library takes them.

    Raises:
        TypeError: They are not pairs of a text and bytes or None.
    """
    if not isinstance(headers, tuple | list):
        raise TypeError(f"headers={headers!r} must be a tuple of pairs")
    for each in headers:
        is_pair = isinstance(each, tuple | list) and len(each) == 2
        if not (is_pair and isinstance(each[0], str) and isinstance(each[1], bytes | None)):
            raise TypeError(f"the header {each!r} is not a pair of a text and bytes or None")
    return [(name, value) for name, value in headers]
