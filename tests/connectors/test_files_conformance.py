"""Files keep the contract of connectors, as the public checks test it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors.files import Csv, FileFormat, Files, JsonArray, Jsonl, Text
from streamkit.testing import check_source
from tests.connectors.reading import FLIGHTS, Flight

CSV = b"carrier,number,delay\nUA,1,3.5\nAA,2,\nB6,3,-2.0\n"
JSONL = b'{"carrier":"UA","number":1,"delay":3.5}\n{"carrier":"AA","number":2}\n'
ROWS: list[tuple[str, bytes, Callable[[], FileFormat[Any]], Any, list[Any]]] = [
    ("f.csv", CSV, Csv, Flight, FLIGHTS),
    ("f.csv.gz", gzip.compress(CSV), Csv, Flight, FLIGHTS),
    ("f.jsonl", JSONL, Jsonl, Flight, FLIGHTS[:2]),
    ("f.json", b"[1, 2, 3]", JsonArray, int, [1, 2, 3]),
    ("f.txt", b"a\nb\n\nc", Text, str, ["a", "b", "", "c"]),
]


@pytest.mark.parametrize(
    ("name", "data", "form", "kind", "expected"), ROWS, ids=[each[0] for each in ROWS]
)
def test_files_keep_the_contract_of_a_source(
    tmp_path: Path,
    name: str,
    data: bytes,
    form: Callable[[], FileFormat[Any]],
    kind: Any,
    expected: list[Any],
) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}-{name}").write_bytes(data)
    (tmp_path / f"empty-{name}").write_bytes(b"" if name != "f.json" else b"[]")
    check_source(
        lambda: Files(tmp_path / f"[12]-{name}", form()), [*expected, *expected], kind=kind
    )
