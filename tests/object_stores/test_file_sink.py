"""A file sink that writes objects: the contract, errors, and names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import obstore
import pytest

from streamkit import App, Secret
from streamkit.connectors.files import Files, FileSink, Jsonl
from streamkit.errors import ConfigError, UsageError
from streamkit.testing import check_sink
from tests.file_sink.reading import FLIGHTS, Flight
from tests.object_stores.conftest import Bucket


def objects_of(bucket: Bucket, prefix: str = "") -> dict[str, bytes]:
    pages = obstore.list(bucket.objects, prefix or None)
    names = sorted(meta["path"] for page in pages for meta in page)
    return {name: bytes(obstore.get(bucket.objects, name).bytes()) for name in names}


def rows_of(bucket: Bucket) -> list[Flight]:
    found = []
    for name, data in objects_of(bucket).items():
        text = gzip.decompress(data) if name.endswith(".gz") else data
        found += [Flight(**json.loads(line)) for line in text.splitlines()]
    return found


@pytest.mark.parametrize("name", ["f.jsonl", "a/{origin}/{n}.jsonl.gz"])
def test_a_sink_of_objects_keeps_the_contract(bucket: Bucket, name: str) -> None:
    def clear() -> None:
        for path in objects_of(bucket):
            bucket.delete(path)

    check_sink(
        lambda: FileSink(bucket.url(name), store=bucket.store, roll_rows=15),
        lambda: rows_of(bucket),
        FLIGHTS[:40],
        clear=clear,
        exactly_once=True,
        unopenable=lambda: FileSink("s3://nowhere/f.jsonl", store=bucket.store),
        blocked_ms_max=1_000,
    )


def copies(tmp_path: Path, sink: FileSink) -> int:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in FLIGHTS))
    app = App("copy")
    app.stream(Files(source, Jsonl()), Flight, name="rows").to(sink, name="out")
    return app.run(embedded=True, once=True, data_dir=tmp_path / "data")


def test_a_job_writes_objects_that_exist_never_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("out/JFK.jsonl", b"mine")
    assert copies(tmp_path, FileSink(bucket.url("out/{origin}.jsonl"), store=bucket.store)) == 0
    found = objects_of(bucket)
    assert found.pop("out/JFK.jsonl") == b"mine"
    assert sorted(found) == ["out/EWR.jsonl", "out/JFK-1.jsonl", "out/LGA.jsonl"]
    assert sum(data.count(b"\n") for data in found.values()) == len(FLIGHTS)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.suffix == ".tmp"]


def test_a_large_object_is_uploaded_in_parts(bucket: Bucket, tmp_path: Path) -> None:
    out = FileSink(bucket.url("big.jsonl"), store=bucket.store)
    source = tmp_path / "in.jsonl"
    line = msgspec.json.encode({"text": "x" * 10_000}) + b"\n"
    source.write_bytes(line * 1_500)
    app = App("big")
    app.stream(Files(source, Jsonl()), dict[str, str], name="rows").to(out, name="out")
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert objects_of(bucket) == {"big.jsonl": line * 1_500}


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("https://host/f.csv", "objects are written to"),
        ("s3://{origin}/f.csv", "objects are written to"),
        ("ftp://host/f.csv", "not known"),
        ("s3://me:pass@bucket/f.csv", "has a password"),
    ],
)
def test_urls_that_cannot_be_written_are_refused(path: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        FileSink(path)
    assert "pass@" not in str(caught.value)


def test_a_bucket_that_does_not_exist_is_an_error_at_the_start_without_secrets(
    bucket: Bucket, tmp_path: Path
) -> None:
    store: dict[str, Any] = {**bucket.store, "secret_access_key": Secret("very-secret")}
    sink = FileSink("s3://nowhere/f.jsonl", store=store)
    assert "secret" not in repr(sink)
    with pytest.raises(ConfigError, match="s3://nowhere does not exist"):
        copies(tmp_path, sink)
