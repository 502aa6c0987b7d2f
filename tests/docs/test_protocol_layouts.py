"""The message layouts on the protocol pages match `streamkit.protocol`.

A page shows a dataclass as a table of fields under a line such as "`ProduceRequest`:", or as a
row of a table with the column "fields in order".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from types import ModuleType
from typing import Any, Final, get_args, get_type_hints

import msgspec
import pytest

from streamkit.protocol import (
    consumer_offset_log,
    control_plane,
    data_plane,
    error_codes,
    smartmodule_io,
    smartmodules,
    specs,
    topic_specs,
)
from streamkit.protocol.error_codes import CODES, ERROR_CODE
from streamkit.protocol.record_set import RECORD_SET
from streamkit.protocol.schema import (
    ALWAYS,
    BOOL,
    BYTES,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    converted,
    encode,
    mapping,
    option,
    since,
    sized,
    struct,
    union,
    vec,
    wire_of,
)
from streamkit.protocol.varint import OPTIONAL_RECORD_DATA, RECORD_DATA, VARINT
from tests.docs.protocol_tables import PAGES, table, tables, words

MODULES: Final = (
    data_plane,
    control_plane,
    error_codes,
    smartmodules,
    smartmodule_io,
    specs,
    topic_specs,
    consumer_offset_log,
)
# Shown as variants of an enum, not in a separate table.
VARIANTS: Final = {
    *("Predefined", "AdHoc", "Aggregate", "Join", "JoinStream", "Generic", "PairDetailFailure"),
}
# Shown in the table of error codes.
PAYLOADS: Final = {info.payload.__name__ for info in CODES.values() if info.payload}
PRIMITIVES: Final = {
    **{id(wire_of(kind)): name for kind, name in (
        (I8, "i8"), (I16, "i16"), (I32, "i32"), (I64, "i64"),
        (U8, "u8"), (U16, "u16"), (U32, "u32"), (U64, "u64"),
    )},
    id(BOOL): "bool",
    id(STRING): "String",
    id(BYTES): "Bytes",
    id(ERROR_CODE): "ErrorCode",
    id(RECORD_SET): "RecordSet",
    id(RECORD_DATA): "RecordData",
    id(OPTIONAL_RECORD_DATA): "Option[RecordData]",
    id(VARINT): "varint",
}  # fmt: skip
CONTAINERS: Final = {option: "Option", vec: "Vec", mapping: "Map", union: "enum", sized: "u32"}

Shown = tuple[str, str, str | None]


def layouts() -> Iterator[tuple[str, list[Shown]]]:
    """Yield each dataclass that a page shows, with its fields: name, type and versions."""
    for path in PAGES:
        for each in tables(path.name):
            named = re.match(r"`(\w+)`.*:$", each.caption)
            if each.head[:2] == ["type", "fields in order"]:
                for row in each.rows:
                    fields = re.findall(r"(\w+) `([^`]+)`", row[1])
                    yield row[0].strip("`"), [(name, kind, None) for name, kind in fields]
            elif named and each.head[:2] == ["field", "type"]:
                versions = (
                    each.column("versions") if "versions" in each.head else ["all"] * len(each.rows)
                )
                yield (
                    named[1],
                    [
                        (row[0], row[1], version)
                        for row, version in zip(each.rows, versions, strict=True)
                    ],
                )


LAYOUTS: Final = dict(layouts())


def class_of(name: str) -> Any:
    return next(vars(module)[name] for module in MODULES if name in vars(module))


def marks_of(cls: type[Any]) -> dict[str, tuple[Any, ...]]:
    """Return the wire types in the annotation of each field; an empty tuple if there are none."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: getattr(hints[name], "__metadata__", ()) for name in cls.__struct_fields__}


def is_layout(value: Any, module: ModuleType) -> bool:
    if not (isinstance(value, type) and value.__module__ == module.__name__):
        return False
    return issubclass(value, msgspec.Struct) and any(marks_of(value).values())


def compare(cls: type[Any], shown: list[Shown]) -> None:
    hints = get_type_hints(cls)
    marks = marks_of(cls)
    assert [name for name, _, _ in shown] == list(marks), cls.__name__
    for name, kind, versions in shown:
        where = f"{cls.__name__}.{name}"
        wire = next(mark for mark in reversed(marks[name]) if not isinstance(mark, since))
        check_type(wire, hints[name], kind, where)
        gates = [mark for mark in marks[name] if isinstance(mark, since)]
        if versions is not None:
            assert versions == range_text(gates[0] if gates else ALWAYS), where


def check_type(wire: Any, hint: Any, shown: str, where: str) -> None:
    """Compare a type with the text of a page; for a container, compare the classes inside too."""
    if id(wire) in PRIMITIVES:
        assert words(shown) == PRIMITIVES[id(wire)], where
    elif isinstance(wire, struct):
        assert words(shown) == shown_name(wire.cls), where
    elif isinstance(wire, converted):
        sample = next(iter(hint)) if issubclass(hint, IntEnum) else 1
        bits = 8 * len(encode(wire, sample, 25))
        assert re.match(rf"[iu]{bits}\b", words(shown)), where
    elif not shown.startswith("as in"):
        assert CONTAINERS[type(wire)] in shown, where
        for inner in inner_classes(hint):
            assert shown_name(inner) in shown or "enum" in shown, where


def shown_name(cls: type[Any]) -> str:
    return "ReplicaKey" if cls is data_plane.ReplicaKey else cls.__name__


def inner_classes(hint: Any) -> Iterator[type[Any]]:
    for inner in get_args(hint):
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield inner
        yield from inner_classes(inner)


def range_text(gate: since) -> str:
    """Format a range of versions as on the pages."""
    if gate == ALWAYS:
        return "all"
    if gate.last == since(0).last:
        return f"{gate.first} and later"
    if gate.first == gate.last:
        return f"{gate.first} only"
    return f"up to {gate.last}" if gate.first == 0 else f"{gate.first} to {gate.last}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_matches_the_code(name: str) -> None:
    compare(class_of(name), LAYOUTS[name])


def test_every_layout_is_documented() -> None:
    known = {
        name
        for module in MODULES
        for name, value in vars(module).items()
        if is_layout(value, module)
    }
    assert known - VARIANTS - PAYLOADS == set(LAYOUTS) - {"ReplicaKey", "TransformErrorPayload"}


def test_the_payloads_match_the_code() -> None:
    for row in table("error-codes.md", "Codes", "code").rows:
        payload = CODES[int(row[0])].payload
        shown = re.findall(r"(\w+) `([^`]+)`", row[2])
        if payload is None:
            assert not row[2], row
        else:
            compare(payload, [(name, kind, None) for name, kind in shown])
