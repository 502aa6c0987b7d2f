"""The pages about the wire protocol run, and their tables are those of `streamkit.protocol`."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args, get_type_hints

import pytest

from streamkit.protocol import (
    consumer_offset_log,
    control_plane,
    data_plane,
    error_codes,
    smartmodule_io,
    smartmodules,
    specs,
)
from streamkit.protocol.apis import SC_APIS, SPU_APIS, Answers, Api
from streamkit.protocol.batch import (
    BYTES_BEFORE_LENGTH,
    CRC_AT,
    CRC_COVERS_FROM,
    HEADER_BYTES,
    BatchHeader,
    read_batch_header,
)
from streamkit.protocol.compression import Codec
from streamkit.protocol.error_codes import CODES, ERROR_CODE, MODULE_KINDS, RETRYABLE_CODES
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
from streamkit.protocol.specs import (
    KINDS,
    PartitionResolution,
    SpuResolution,
    TopicCompression,
    TopicResolution,
)
from streamkit.protocol.varint import OPTIONAL_RECORD_DATA, RECORD_DATA, VARINT
from tests.docs.pages import ROOT, Page

FOLDER: Final = ROOT / "docs" / "protocol"
PAGES: Final = sorted(FOLDER.glob("*.md"))
MODULES: Final = (
    data_plane,
    control_plane,
    error_codes,
    smartmodules,
    smartmodule_io,
    specs,
    consumer_offset_log,
)
# Shown as variants of an enum, not with a table of their own.
VARIANTS: Final = {
    *("Predefined", "AdHoc", "Aggregate", "Join", "JoinStream", "Generic", "PairDetailFailure"),
}
# Their payloads stand in the table of error codes.
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
STRUCT_FORMATS: Final = {"i8": 1, "i16": 2, "u32": 4, "i32": 4, "i64": 8}


@dataclass(frozen=True)
class Table:
    """A table of a page: the heading above it, the line above it, its head and its cells."""

    heading: str
    caption: str
    head: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        at = self.head.index(name)
        return [row[at] for row in self.rows]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(name: str) -> Iterator[Table]:
    heading = caption = ""
    lines = iter((FOLDER / name).read_text().splitlines())
    for line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            rows = [cells(line)]
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            yield Table(heading, caption, rows[0], rows[2:])
        elif line:
            caption = line


def table(name: str, heading: str, first: str) -> Table:
    """Return the table under a heading whose first column is called ``first``."""
    (found,) = (t for t in tables(name) if t.heading == heading and t.head[0] == first)
    return found


def words(text: str) -> str:
    return text.replace("`", "").replace("*", "")


# --- The pages --------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    Page(path, tmp_path).run()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_row_has_all_its_cells(path: Path) -> None:
    for each in tables(path.name):
        assert {len(row) for row in each.rows} == {len(each.head)}, each.heading


def test_the_index_and_the_navigation_name_every_page() -> None:
    index = (FOLDER / "index.md").read_text()
    navigation = (ROOT / "mkdocs.yml").read_text()
    for path in PAGES:
        assert path.name == "index.md" or f"({path.name})" in index
        assert f"protocol/{path.name}\n" in navigation


def test_every_heading_that_the_code_points_to_is_there() -> None:
    pointer = re.compile(r'docs/protocol/([\w-]+\.md),\s+"([^"]+)"')
    for folder in ("streamkit", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for page, heading in pointer.findall(re.sub(r"\s+#?\s*", " ", path.read_text())):
                headings = re.findall(r"^#+ (.*)$", (FOLDER / page).read_text(), re.MULTILINE)
                assert heading in headings, f"{path.name} points to {page}, {heading!r}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_bytes_of_an_example_are_recorded_or_a_vector(path: Path, known_bytes: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        for data in shown_bytes(block):
            assert data in known_bytes, data


@pytest.fixture(scope="module")
def known_bytes() -> str:
    """Return the text of all vectors and recorded sessions, whose bytes stand there in hex."""
    folder = ROOT / "tests" / "vectors"
    return "".join(path.read_text() for path in sorted(folder.rglob("*.json*")))


def shown_bytes(block: str) -> Iterator[str]:
    """Yield the hex that a block turns into bytes."""
    for node in ast.walk(ast.parse(block)):
        match node:
            case ast.Call(func=ast.Attribute(attr="fromhex"), args=[ast.Constant(value=str(text))]):
                yield text.replace(" ", "")


# --- Requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "apis"), [("Requests to an SPU", SPU_APIS), ("Requests to the SC", SC_APIS)]
)
def test_the_api_keys_and_versions_are_those_of_the_code(
    heading: str, apis: dict[int, Api[Any, Any]]
) -> None:
    shown = [row[:4] + row[5:] for row in table("frames.md", heading, "key").rows]
    assert shown == [
        [
            str(api.key),
            api.name,
            str(api.min_version),
            str(api.max_version),
            "stream" if api.answers is Answers.STREAM else "one",
        ]
        for _, api in sorted(apis.items())
    ]


def test_the_requests_that_are_never_listed_are_those_of_the_code() -> None:
    shown = {row[1]: row[4] for row in table("frames.md", "Requests to an SPU", "key").rows}
    never = {name for name, listed in shown.items() if listed == "no"} - {"ApiVersions"}
    assert never == {api.name for api in SPU_APIS.values() if api.is_unlisted}


# --- Error codes ------------------------------------------------------------------------


def test_the_error_codes_are_those_of_the_code() -> None:
    shown = [(int(row[0]), row[1]) for row in table("error-codes.md", "Codes", "code").rows]
    assert shown == sorted((int(code), info.name) for code, info in CODES.items())


def test_the_payloads_are_those_of_the_code() -> None:
    for row in table("error-codes.md", "Codes", "code").rows:
        payload = CODES[int(row[0])].payload
        shown = re.findall(r"(\w+) `([^`]+)`", row[2])
        if payload is None:
            assert not row[2], row
        else:
            compare(payload, [(name, kind, None) for name, kind in shown])


def test_the_codes_to_retry_are_those_of_the_code() -> None:
    found = re.search(
        r"streamkit retries the codes ([\d, and]+)\.", (FOLDER / "error-codes.md").read_text()
    )
    assert found is not None
    assert {int(code) for code in re.findall(r"\d+", found[1])} == set(map(int, RETRYABLE_CODES))
    marked = {
        int(row[0]) for row in table("error-codes.md", "Codes", "code").rows if row[4] == "retry"
    }
    assert marked == set(map(int, RETRYABLE_CODES))


# --- Batches ----------------------------------------------------------------------------


def header_rows() -> list[tuple[int, int, str, str]]:
    shown = table("batches.md", "Batch header", "offset")
    return [(int(row[0]), int(row[1]), row[2], words(row[3])) for row in shown.rows]


def test_the_batch_header_has_the_fields_of_the_code_without_a_gap() -> None:
    rows = header_rows()
    assert [name for _, _, name, _ in rows] == [
        field.name for field in dataclasses.fields(BatchHeader)
    ]
    end = 0
    for offset, size, name, kind in rows:
        assert (offset, size) == (end, STRUCT_FORMATS[kind]), name
        end += size
    assert end == HEADER_BYTES
    starts = {name: offset for offset, _, name, _ in rows}
    assert starts["crc"] == CRC_AT
    assert starts["attributes"] == CRC_COVERS_FROM
    assert starts["batch_len"] + 4 == BYTES_BEFORE_LENGTH


@pytest.mark.parametrize(("offset", "size", "name", "kind"), header_rows())
@pytest.mark.parametrize("first", [0x01, 0x81])
def test_a_field_of_the_batch_header_is_where_the_page_says(
    offset: int, size: int, name: str, kind: str, first: int
) -> None:
    if name == "batch_len":
        first = 0x01  # a negative one is refused
    data = bytearray(HEADER_BYTES)
    data[8:12] = (1000).to_bytes(4, "big")
    field = data[offset : offset + size] = bytes(range(first, first + size))
    expected = int.from_bytes(field, "big", signed=kind.startswith("i"))
    assert getattr(read_batch_header(bytes(data)), name) == expected


def test_the_codecs_are_those_of_the_code() -> None:
    shown = [(int(row[0]), row[1]) for row in table("batches.md", "Attributes", "codec").rows]
    assert shown == [(codec.value, codec.name.lower()) for codec in Codec]


# --- Layouts ----------------------------------------------------------------------------

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
    """Return what the annotation of each field says of the wire; nothing if none does."""
    hints = get_type_hints(cls, include_extras=True)
    return {
        field.name: getattr(hints[field.name], "__metadata__", ())
        for field in dataclasses.fields(cls)
    }


def is_layout(value: Any, module: ModuleType) -> bool:
    if not (isinstance(value, type) and value.__module__ == module.__name__):
        return False
    return dataclasses.is_dataclass(value) and any(marks_of(value).values())


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
    """Compare a type with what a page shows; of a container also the classes inside."""
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
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield inner
        yield from inner_classes(inner)


def range_text(gate: since) -> str:
    """Write a range of versions as the pages do."""
    if gate == ALWAYS:
        return "all"
    if gate.last == since(0).last:
        return f"{gate.first} and later"
    if gate.first == gate.last:
        return f"{gate.first} only"
    return f"up to {gate.last}" if gate.first == 0 else f"{gate.first} to {gate.last}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_that_of_the_code(name: str) -> None:
    compare(class_of(name), LAYOUTS[name])


def test_no_layout_is_left_out() -> None:
    known = {
        name
        for module in MODULES
        for name, value in vars(module).items()
        if is_layout(value, module)
    }
    assert known - VARIANTS - PAYLOADS == set(LAYOUTS) - {"ReplicaKey", "TransformErrorPayload"}


@pytest.mark.parametrize(
    ("column", "variants", "wire"),
    [
        (
            "tag of `wasm`",
            [smartmodules.Predefined("x"), smartmodules.AdHoc(b"")],
            smartmodules.WASM,
        ),
        (
            "tag of `kind`",
            [
                smartmodules.Filter(),
                smartmodules.Map(),
                smartmodules.ArrayMap(),
                smartmodules.Aggregate(),
                smartmodules.FilterMap(),
                smartmodules.Join(),
                smartmodules.JoinStream(),
                smartmodules.Generic(),
            ],
            smartmodules.KIND,
        ),
    ],
)
def test_the_tags_of_an_invocation_are_those_of_the_code(
    column: str, variants: list[Any], wire: Any
) -> None:
    shown = [(int(row[0]), row[1]) for row in table("smartmodules.md", "Invocation", column).rows]
    assert shown == [(encode(wire, each, 25)[0], type(each).__name__) for each in variants]


def test_the_kinds_of_a_failed_module_are_those_of_the_code() -> None:
    (kind,) = (
        row[2] for row in table("error-codes.md", "Payloads", "field").rows if row[0] == "kind"
    )
    assert words(kind) == ", ".join(f"{tag} {name}" for tag, name in MODULE_KINDS.items())


def test_the_compressions_of_a_topic_are_those_of_the_code() -> None:
    shown = [(int(row[0]), row[1]) for row in table("admin.md", "Topics", "compression").rows]
    assert shown == [(each.value, each.name.lower()) for each in TopicCompression]


@pytest.mark.parametrize(
    ("caption", "states"),
    [
        ("TopicStatus", TopicResolution),
        ("PartitionStatus", PartitionResolution),
        ("SpuStatus", SpuResolution),
    ],
)
def test_the_states_of_an_object_are_those_of_the_code(caption: str, states: type[IntEnum]) -> None:
    (shown,) = (t for t in tables("admin.md") if t.caption == f"`{caption}`:")
    found = re.findall(r"(\d) ([a-z ]+)", words(shown.column("meaning")[0]))
    named = {int(number): name.strip() for number, name in found}
    expected = {each.value: each.name.lower().replace("_", " ") for each in states}
    expected |= {3: "leader elected"} if states is PartitionResolution else {}
    assert named == expected


def test_the_object_types_are_those_of_the_code() -> None:
    shown = {words(name) for name in table("admin.md", "Objects", "type").column("type")}
    assert shown == set(KINDS)


def test_the_old_numbers_of_object_types_are_those_of_the_code() -> None:
    (create,) = (
        row[1] for row in table("admin.md", "The envelope", "message").rows if row[0] == "Create"
    )
    shown = {int(tag): name for tag, name in re.findall(r"(\d) ([A-Z]\w+)", create)}
    tags = {kind.classic_tag: name for name, kind in KINDS.items() if kind.classic_tag is not None}
    assert shown == tags


# --- Types ------------------------------------------------------------------------------


def test_the_varints_are_those_of_the_code() -> None:
    for number, data in table("types.md", "Varints", "number").rows:
        assert encode(VARINT, int(number), 0).hex() == words(data)
