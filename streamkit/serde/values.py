"""Converts bytes to values and back by type: bytes raw, str as UTF-8, everything else as JSON.

A type has the same format for reading and writing, so values written with a type can be read
with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, get_args, get_origin

import msgspec

from streamkit.errors import TopologyError
from streamkit.record import Kind, Record
from streamkit.serde.binding import BoundFormat, FindFault, Serde, method_of
from streamkit.serde.finite import Fault, lost_float
from streamkit.serde.json_values import dumps, encode_json
from streamkit.serde.kinds import (
    RAW_KINDS,
    bare,
    in_record,
    is_protocol,
    is_text,
    may_hold_floats,
    members,
    mixes_keys,
    unsupported_in,
)
from streamkit.serde.pydantic_values import holds_pydantic, pydantic_dumps, pydantic_loads


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """How the values of a topic are read. ``as_record``: the stage gets the whole record."""

    loads: Callable[[bytes], Any] | None
    as_record: bool = False


@dataclass(frozen=True, slots=True)
class ValueEncoder:
    """How values are written.

    ``fault`` compares a column of values with their bytes and returns the first row whose bytes do
    not represent its value. It is None if that cannot happen.
    """

    dumps: Callable[[Any], bytes]
    fault: FindFault | None = None


def format_for(kind: Any, serde: Serde | BoundFormat | None = None) -> ValueFormat:
    """Return how to read values of a type, or with a custom format.

    Raises:
        TopologyError: Values of the type cannot be read from JSON; the message says what to change.
    """
    kind = bare(kind)
    as_record = kind is Record or get_origin(kind) is Record
    if serde is not None:
        return ValueFormat(method_of(serde, "loads"), as_record)
    if as_record:
        return ValueFormat(_loads_for(get_args(kind)[0]) if get_args(kind) else None, as_record)
    return ValueFormat(_loads_for(kind))


def encoder_for(kind: Any, serde: Serde | BoundFormat | None = None) -> ValueEncoder:
    """Return how to write values of a type, or with a custom format.

    If ``kind`` is None, the type is not known: then each value is written by its own type as
    bytes, text or JSON. For a `Record`, its value is written.

    Raises:
        TopologyError: Values of the type cannot be written; the message says what to change.
    """
    if serde is not None:
        fault = serde.fault if isinstance(serde, BoundFormat) else not_bytes
        return ValueEncoder(method_of(serde, "dumps"), fault)
    kind = bare(in_record(kind))
    if kind is None or _is_raw_union(kind):
        return ValueEncoder(_untyped, lost_float)
    if is_text(kind):
        return ValueEncoder(_text)
    if kind in RAW_KINDS:
        return ValueEncoder(_raw)
    return json_encoder(kind)


def json_encoder(kind: Kind) -> ValueEncoder:
    """Return how to write values of a type as JSON; text has quotes.

    Raises:
        TopologyError: Values of the type cannot be written as JSON; the message says why.
    """
    if holds_pydantic(kind):
        return ValueEncoder(_of_pydantic(pydantic_dumps, kind), _fault_of_models(kind))
    _refuse_unsupported(kind, "written as", _is_surely_plain)
    _refuse_mixed_keys(kind)
    if kind is Any:
        return ValueEncoder(dumps, _fault_of_any)
    return ValueEncoder(dumps, lost_float if may_hold_floats(kind) else None)


def encoder_for_topic(kind: Any, topic_kind: Any) -> ValueEncoder:
    """Return how to write values of a type to a topic; the type of the topic decides.

    Raises:
        TopologyError: Values of the type cannot be written; the message says what to change.
    """
    if topic_kind is None or bare(topic_kind) is bytes:  # bytes is also the default of `Topic`
        return encoder_for(kind)
    kind = bare(in_record(kind))
    if kind in RAW_KINDS:
        return encoder_for(kind)
    found = encoder_for(topic_kind)
    # A function without a return annotation may return bytes that are encoded already.
    return found if kind is not None or found.dumps is _untyped else _or_bytes(found)


def encode_value(value: Any) -> bytes:
    """Write one value by its own type: bytes raw, str as UTF-8, everything else as JSON.

    Raises:
        TypeError: The value cannot be written as JSON.
        ValueError: The value contains NaN or infinity, which JSON does not have.
    """
    return _untyped(value) if isinstance(value, (str, *RAW_KINDS)) else encode_json(value)


def encode_as(value: Any, kind: Any, serde: Serde | BoundFormat | None = None) -> bytes:
    """Write one value as a topic of a type stores it; for tests.

    Bytes are written as they are. Text that is not a valid value of the type is written unchanged,
    because it may be JSON.
    """
    if serde is not None:
        return value if type(value) is bytes else serde.dumps(value)
    if isinstance(value, str) and _can_be(kind, value):
        return encoder_for(kind).dumps(value)
    return encode_value(value)


def not_bytes(values: Sequence[Any], encoded: Sequence[Any]) -> Fault | None:
    """Return the first row that a custom format did not encode to bytes."""
    if all(map(isinstance, encoded, repeat(bytes))):
        return None
    row = next(row for row, data in enumerate(encoded) if not isinstance(data, bytes))
    found = type(encoded[row]).__name__
    return row, TypeError(f"the format returned {found} instead of bytes")


def _can_be(kind: Any, text: str) -> bool:
    kind = bare(in_record(kind))
    if kind is None or kind in RAW_KINDS:
        return False
    try:
        msgspec.convert(text, kind)
    except (msgspec.ValidationError, TypeError, NameError):
        return False
    return True


def _loads_for(kind: Any) -> Callable[[bytes], Any] | None:
    kind = bare(kind)
    if kind is bytes:
        return None
    if kind in RAW_KINDS:
        return bytearray if kind is bytearray else memoryview
    if kind is str:
        return bytes.decode
    if is_text(kind):
        return lambda data: msgspec.convert(data.decode(), kind)
    return json_loads(Any if kind is None else kind)


def json_loads(kind: Kind) -> Callable[[bytes], Any]:
    """Return how to read values of a type from JSON; text has quotes.

    Raises:
        TopologyError: Values of the type cannot be read from JSON; the message says what to change.
    """
    if holds_pydantic(kind):
        loads: Callable[[bytes], Any] = _of_pydantic(pydantic_loads, kind)
        return loads
    _refuse_unsupported(kind, "decoded from", lambda unsupported: True)
    return _decoder(kind)


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    try:
        return msgspec.json.Decoder(kind).decode
    except (TypeError, NameError, AttributeError, ValueError) as error:
        hint = "give the Structs of a union a tag: class A(msgspec.Struct, tag=True)"
        raise TopologyError(
            f"values of {kind} cannot be decoded: {error}",
            hint=hint if "union" in str(error).lower() else "",
        ) from None


def _of_pydantic(choose: Callable[[Any], Callable[[Any], Any]], kind: Any) -> Any:
    try:
        return choose(kind)
    except Exception as error:  # pydantic has its own classes, which are not imported here
        raise TopologyError(f"pydantic cannot work with values of {kind}: {error}") from None


def _refuse_unsupported(kind: Any, how: str, is_refused: Callable[[Any], bool]) -> None:
    try:
        refused = [each for each in unsupported_in(kind) if is_refused(each)]
    except Exception:  # an annotation that cannot be resolved; `_decoder` has a better error
        return
    if refused:
        name = getattr(refused[0], "__name__", str(refused[0]))
        raise TopologyError(
            f"values of type {name} cannot be {how} JSON",
            hint=_INSTEAD.get(name, "make it a msgspec.Struct or a dataclass")
            + ", or name your own format with value=",
        )


def _refuse_mixed_keys(kind: Any) -> None:
    if mixes_keys(kind):
        raise TopologyError(
            f"values of {kind} cannot be read back: all keys in JSON are strings",
            hint="use keys of one type, as in dict[int, ...]",
        )


_INSTEAD = {
    "deque": "use list",
    "OrderedDict": "use dict, which keeps its order too",
    "defaultdict": "use dict",
    "Counter": "use dict[str, int]",
    "Iterable": "use list",
    "Iterator": "use list",
}


def _is_surely_plain(kind: Any) -> bool:
    """Return whether no instance of a class can be written, not even of a subclass."""
    if kind is complex:
        return True  # numpy derives classes from it
    if not isinstance(kind, type) or issubclass(kind, dict | list) or type.__subclasses__(kind):
        return False
    return not is_protocol(kind)


def _fault_of_any(values: Sequence[Any], encoded: Sequence[bytes]) -> Fault | None:
    """Refuse bytes in values of type Any: they would be read back as base64 text."""
    if not set(map(type, values)).isdisjoint(RAW_KINDS):
        row = next(row for row, value in enumerate(values) if isinstance(value, RAW_KINDS))
        return row, TypeError(
            "the value is bytes, but its type is Any, which is written as JSON: annotate bytes"
        )
    return lost_float(values, encoded)


def _is_raw_union(kind: Any) -> bool:
    kinds = members(kind)
    return len(kinds) > 1 and all(each in (str, *RAW_KINDS) for each in kinds)


def _fault_of_models(kind: Any) -> FindFault:
    """Refuse instances of other classes: pydantic would write only the fields of the model."""

    def fault(values: Sequence[Any], encoded: Sequence[bytes]) -> Fault | None:
        if isinstance(kind, type) and not set(map(type, values)) <= {kind}:
            for row, value in enumerate(values):
                if type(value) is not kind:
                    return row, TypeError(
                        f"the value is {type(value).__name__}, but its declared type is "
                        f"{kind.__name__}: fields that {kind.__name__} does not have would be lost"
                    )
        return lost_float(values, encoded)

    return fault


def _or_bytes(encoder: ValueEncoder) -> ValueEncoder:
    encode = encoder.dumps
    return ValueEncoder(
        lambda value: value if type(value) is bytes else encode(value), encoder.fault
    )


def _untyped(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, RAW_KINDS):
        return bytes(value)
    return dumps(value)


def _raw(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, RAW_KINDS):
        return bytes(value)
    raise TypeError(f"the value is {type(value).__name__}, but its declared type is bytes")


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"the value is {type(value).__name__}, but its declared type is str")
