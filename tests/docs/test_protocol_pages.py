"""The protocol pages run, and their lists match `streamkit.protocol`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import pytest

from streamkit.protocol import smartmodules
from streamkit.protocol.apis import SC_APIS, SPU_APIS, Api
from streamkit.protocol.batch import (
    BYTES_BEFORE_LENGTH,
    CRC_AT,
    CRC_COVERS_FROM,
    HEADER_BYTES,
    BatchHeader,
    read_batch_header,
)
from streamkit.protocol.compression import Codec
from streamkit.protocol.error_codes import CODES, MODULE_KINDS, RETRYABLE_CODES
from streamkit.protocol.schema import encode
from streamkit.protocol.specs import KINDS, PartitionResolution, SpuResolution
from streamkit.protocol.topic_specs import TopicCompression, TopicResolution
from streamkit.protocol.varint import VARINT
from tests.docs.pages import ROOT, Page
from tests.docs.protocol_tables import FOLDER, PAGES, table, tables, words

SIZES: Final = {"i8": 1, "i16": 2, "u32": 4, "i32": 4, "i64": 8}


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


def test_every_heading_that_the_code_points_to_exists() -> None:
    pointer = re.compile(r'docs/protocol/([\w-]+\.md)((?:(?:,| and|, and) "[^"]+")+)')
    for folder in ("streamkit", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            text = re.sub(r"\s+(?:# )?", " ", path.read_text())
            for page, named in pointer.findall(text):
                headings = set(re.findall(r"^#+ (.*)$", (FOLDER / page).read_text(), re.MULTILINE))
                missing = set(re.findall(r'"([^"]+)"', named)) - headings
                assert not missing, f"{path.name} points to {page}: {missing}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_bytes_of_an_example_are_in_a_recording_or_a_vector(
    path: Path, known_bytes: str
) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        for data in shown_bytes(block):
            assert data in known_bytes, data


@pytest.fixture(scope="module")
def known_bytes() -> str:
    """Return the text of all vectors and recorded sessions, in which bytes are hex."""
    folder = ROOT / "tests" / "vectors"
    return "".join(path.read_text() for path in sorted(folder.rglob("*.json*")))


def shown_bytes(block: str) -> Iterator[str]:
    """Yield the hex texts that a block converts to bytes."""
    for node in ast.walk(ast.parse(block)):
        match node:
            case ast.Call(func=ast.Attribute(attr="fromhex"), args=[ast.Constant(value=str(text))]):
                yield text.replace(" ", "")


# --- Requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "apis"), [("Requests to an SPU", SPU_APIS), ("Requests to the SC", SC_APIS)]
)
def test_the_api_keys_and_versions_match_the_code(
    heading: str, apis: dict[int, Api[Any, Any]]
) -> None:
    shown = [row[:4] + row[5:] for row in table("frames.md", heading, "key").rows]
    assert shown == [
        [
            str(api.key),
            api.name,
            str(api.min_version),
            str(api.max_version),
            api.response_count.value,
        ]
        for _, api in sorted(apis.items())
    ]


def test_the_unlisted_requests_match_the_code() -> None:
    shown = {row[1]: row[4] for row in table("frames.md", "Requests to an SPU", "key").rows}
    never = {name for name, listed in shown.items() if listed == "no"} - {"ApiVersions"}
    assert never == {api.name for api in SPU_APIS.values() if api.is_unlisted}


# --- Error codes ------------------------------------------------------------------------


def test_the_error_codes_match_the_code() -> None:
    shown = [(int(row[0]), row[1]) for row in table("error-codes.md", "Codes", "code").rows]
    assert shown == sorted((int(code), info.name) for code, info in CODES.items())


def test_the_codes_to_retry_match_the_code() -> None:
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


def test_the_fields_of_the_batch_header_match_the_code_and_leave_no_gap() -> None:
    rows = header_rows()
    assert [name for _, _, name, _ in rows] == list(BatchHeader.__struct_fields__)
    end = 0
    for offset, size, name, kind in rows:
        assert (offset, size) == (end, SIZES[kind]), name
        end += size
    assert end == HEADER_BYTES
    starts = {name: offset for offset, _, name, _ in rows}
    assert starts["crc"] == CRC_AT
    assert starts["attributes"] == CRC_COVERS_FROM
    assert starts["batch_len"] + 4 == BYTES_BEFORE_LENGTH


@pytest.mark.parametrize(("offset", "size", "name", "kind"), header_rows())
@pytest.mark.parametrize("first", [0x01, 0x81])
def test_a_field_of_the_batch_header_has_the_offset_on_the_page(
    offset: int, size: int, name: str, kind: str, first: int
) -> None:
    if name == "batch_len":
        first = 0x01  # a negative length is refused
    data = bytearray(HEADER_BYTES)
    data[8:12] = (1000).to_bytes(4, "big")
    field = data[offset : offset + size] = bytes(range(first, first + size))
    expected = int.from_bytes(field, "big", signed=kind.startswith("i"))
    assert getattr(read_batch_header(bytes(data)), name) == expected


def test_the_codecs_match_the_code() -> None:
    shown = [(int(row[0]), row[1]) for row in table("batches.md", "Attributes", "codec").rows]
    assert shown == [(codec.value, codec.name.lower()) for codec in Codec]


# --- Enums ------------------------------------------------------------------------------


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
def test_the_tags_of_an_invocation_match_the_code(
    column: str, variants: list[Any], wire: Any
) -> None:
    shown = [(int(row[0]), row[1]) for row in table("smartmodules.md", "Invocation", column).rows]
    assert shown == [(encode(wire, each, 25)[0], type(each).__name__) for each in variants]


def test_the_kinds_of_a_failed_module_match_the_code() -> None:
    (kind,) = (
        row[2] for row in table("error-codes.md", "Payloads", "field").rows if row[0] == "kind"
    )
    assert words(kind) == ", ".join(f"{tag} {name}" for tag, name in MODULE_KINDS.items())


def test_the_compressions_of_a_topic_match_the_code() -> None:
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
def test_the_states_of_an_object_match_the_code(caption: str, states: type[IntEnum]) -> None:
    (shown,) = (t for t in tables("admin.md") if t.caption == f"`{caption}`:")
    found = re.findall(r"(\d) ([a-z ]+)", words(shown.column("meaning")[0]))
    named = {int(number): name.strip() for number, name in found}
    expected = {each.value: each.name.lower().replace("_", " ") for each in states}
    expected |= {3: "leader elected"} if states is PartitionResolution else {}
    assert named == expected


def test_the_object_types_match_the_code() -> None:
    shown = {words(name) for name in table("admin.md", "Objects", "type").column("type")}
    assert shown == set(KINDS)


def test_the_old_numbers_of_object_types_match_the_code() -> None:
    (create,) = (
        row[1] for row in table("admin.md", "The envelope", "message").rows if row[0] == "Create"
    )
    shown = {int(tag): name for tag, name in re.findall(r"(\d) ([A-Z]\w+)", create)}
    tags = {kind.classic_tag: name for name, kind in KINDS.items() if kind.classic_tag is not None}
    assert shown == tags


# --- Types ------------------------------------------------------------------------------


def test_the_varints_match_the_code() -> None:
    for number, data in table("types.md", "Varints", "number").rows:
        assert encode(VARINT, int(number), 0).hex() == words(data)
