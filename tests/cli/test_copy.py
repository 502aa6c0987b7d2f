"""`streamkit copy`: from one place to another, and again from where it has stopped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from streamkit.cli.copy import app_of, copy_name
from streamkit.connectors import ends, registry
from streamkit.connectors.ends import source_of
from streamkit.connectors.files import JsonLines
from streamkit.connectors.registry import ConnectorFacts, Found
from streamkit.errors import UsageError
from tests.cli.processes import run
from tests.testing.toy_source import Lists


def test_a_copy_resumes_after_the_last_record(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for numbers in ((1, 2), (3,)):
        lines = "".join(f'{{"n": {number}}}\n' for number in numbers)
        assert run(tmp_path, "produce", "orders", given=lines.encode()).code == 0
        done = run(tmp_path, "copy", "fluvio:orders", str(out))
        assert done.code == 0, done.err
        assert f"{len(numbers)} records in, {len(numbers)} out" in done.err
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"n": 1},
        {"n": 2},
        {"n": 3},
    ]


def test_an_end_that_no_connector_knows_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no connector reads or writes 'out\.xyz'") as caught:
        app_of("fluvio:orders", "out.xyz")
    assert "fluvio:NAME" in (caught.value.hint or "")
    assert "*.jsonl" in (caught.value.hint or "")


def test_an_end_that_can_only_be_read_is_an_error_as_the_second_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists = ConnectorFacts("lists", "Reads lists.", source=Lists, schemes=("lists",))
    monkeypatch.setattr(ends, "find_all", lambda: [Found("lists", lists)])
    with pytest.raises(UsageError, match=r"'lists:out' cannot be written"):
        app_of("fluvio:orders", "lists:out")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("out.csv", lambda path: path.read_text().splitlines() == ["n,s", "1,", "2.5,x"]),
        ("out.jsonl.gz", lambda path: gzip.decompress(path.read_bytes()).count(b"\n") == 2),
        (
            "out.parquet",
            lambda path: parquet.read_table(path).to_pydict() == {"n": [1, 2.5], "s": [None, "x"]},
        ),
    ],
    ids=["csv", "jsonl.gz", "parquet"],
)
def test_a_topic_is_copied_to_one_file(
    tmp_path: Path, name: str, read: Callable[[Path], bool]
) -> None:
    given = b'{"n": 1}\n{"n": 2.5, "s": "x"}\n'
    assert run(tmp_path, "produce", "orders", given=given).code == 0
    done = run(tmp_path, "copy", "fluvio:orders", str(tmp_path / name))
    assert done.code == 0, done.err
    assert read(tmp_path / name)


def test_a_copy_to_an_avro_file_is_refused_because_it_has_no_schema() -> None:
    with pytest.raises(UsageError, match=r"out\.avro: an Avro file needs a schema"):
        app_of("fluvio:orders", "out.avro")


def test_passwords_of_urls_are_neither_in_errors_nor_in_names() -> None:
    with pytest.raises(UsageError) as caught:
        source_of("lists://ann:secret@host/orders")
    assert "secret" not in str(caught.value)
    name = copy_name("lists://ann:secret@host/orders", "fluvio:orders")
    assert name == copy_name("lists://ann:other@host/orders", "fluvio:orders")
    assert "secret" not in name


def test_names_depend_on_both_ends() -> None:
    names = {
        copy_name(source, target)
        for source in ("fluvio:a", "fluvio:b")
        for target in ("a.jsonl", "b/a.jsonl", "fluvio:c")
    }
    assert len(names) == 6
    assert copy_name("fluvio:a", "a.jsonl") == copy_name(
        "fluvio:a", str(Path("a.jsonl").absolute())
    )
    assert copy_name("sqlite:///a.db#t", "fluvio:a") == copy_name(
        f"sqlite:///{Path('a.db').absolute()}#t", "fluvio:a"
    )


def test_a_connector_with_a_scheme_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ConnectorFacts(
        "lists",
        "Reads lists.",
        source=Lists,
        schemes=("lists",),
        source_of=lambda end: Lists(((end.encode(),),)),
    )
    monkeypatch.setattr("streamkit.connectors.ends.find_all", lambda: [Found("lists", facts)])
    assert source_of("lists://one") == Lists(((b"lists://one",),))
    app = app_of("lists://one", "fluvio:orders")
    assert [node.kind for node in app.topology.nodes] == ["source", "sink"]


def test_a_suffix_names_the_connector_of_a_file() -> None:
    (sink,) = app_of("fluvio:orders", "jsonl:out").topology.of_kind("sink")
    assert sink.endpoint == JsonLines("out")
    assert {".jsonl", ".ndjson", ".jsonl.gz"} < set(registry.find("files-jsonl").suffixes)


@dataclass(frozen=True)
class RawLists(Lists):
    """Lists of bytes."""

    @property
    def raw_type(self) -> type[bytes]:
        return bytes


@pytest.mark.parametrize(("kind", "copied"), [(Lists, Any), (RawLists, bytes)])
def test_bytes_are_copied_as_they_are_if_the_source_says_so(
    monkeypatch: pytest.MonkeyPatch, kind: type[Lists], copied: Any
) -> None:
    facts = ConnectorFacts(
        "lists", "Reads lists.", schemes=("lists",), source_of=lambda end: kind(((b"1",),))
    )
    monkeypatch.setattr("streamkit.connectors.ends.find_all", lambda: [Found("lists", facts)])
    (source,) = app_of("lists://one", "fluvio:orders").topology.of_kind("source")
    assert source.value_type is copied


def test_an_error_of_a_copy_names_no_line_of_a_library(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a":1}\n{bad\n')
    ended = run(tmp_path, "copy", "in.jsonl", "out.jsonl")
    assert ended.code == 1
    assert "failed on in.jsonl line 2" in ended.err
    assert ".py:" not in ended.err
