"""A file sink that writes objects: the contract, errors, and names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import obstore
import pytest

from streamkit import App, Secret
from streamkit.connectors.files import Files, FileSink, Jsonl
from streamkit.errors import ConfigError, UsageError
from streamkit.testing import check_sink
from tests.file_sink.reading import FLIGHTS, Flight
from tests.object_stores.buckets import Bucket


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


@pytest.mark.parametrize(
    ("any_bucket", "name"),
    [
        ("s3", "f.jsonl"),
        ("s3", "a/{origin}/{n}.jsonl.gz"),
        ("gs", "f.jsonl"),
        ("az", "a/{origin}/{n}.jsonl.gz"),
    ],
    indirect=["any_bucket"],
)
def test_a_sink_of_objects_keeps_the_contract(any_bucket: Bucket, name: str) -> None:
    def clear() -> None:
        for path in objects_of(any_bucket):
            any_bucket.delete(path)

    check_sink(
        lambda: FileSink(any_bucket.url(name), store=any_bucket.store, roll_rows=15),
        lambda: rows_of(any_bucket),
        FLIGHTS[:40],
        clear=clear,
        exactly_once=True,
        unopenable=lambda: FileSink(f"{any_bucket.nowhere}/f.jsonl", store=any_bucket.store),
        blocked_ms_max=1_000,
    )


def copies(tmp_path: Path, sink: FileSink) -> int:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in FLIGHTS))
    app = App("copy")
    app.stream(Files(source, Jsonl()), Flight, name="rows").to(sink, name="out")
    return app.run(embedded=True, once=True, data_dir=tmp_path / "data")


def test_a_job_writes_objects_that_exist_never_again(any_bucket: Bucket, tmp_path: Path) -> None:
    any_bucket.put("out/JFK.jsonl", b"mine")
    assert (
        copies(tmp_path, FileSink(any_bucket.url("out/{origin}.jsonl"), store=any_bucket.store))
        == 0
    )
    found = objects_of(any_bucket)
    assert found.pop("out/JFK.jsonl") == b"mine"
    assert sorted(found) == ["out/EWR.jsonl", "out/JFK-1.jsonl", "out/LGA.jsonl"]
    assert sum(data.count(b"\n") for data in found.values()) == len(FLIGHTS)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.suffix == ".tmp"]


def test_a_large_object_is_uploaded_in_parts(any_bucket: Bucket, tmp_path: Path) -> None:
    out = FileSink(any_bucket.url("big.jsonl"), store=any_bucket.store)
    source = tmp_path / "in.jsonl"
    line = msgspec.json.encode({"text": "x" * 10_000}) + b"\n"
    source.write_bytes(line * 1_500)
    app = App("big")
    app.stream(Files(source, Jsonl()), dict[str, str], name="rows").to(out, name="out")
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert objects_of(any_bucket) == {"big.jsonl": line * 1_500}


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
    any_bucket: Bucket, tmp_path: Path
) -> None:
    sink = FileSink(f"{any_bucket.nowhere}/f.jsonl", store=any_bucket.store)
    with pytest.raises(ConfigError, match=f"{any_bucket.nowhere} does not exist") as caught:
        copies(tmp_path, sink)
    for each in any_bucket.store.values():
        if isinstance(each, Secret):
            assert each.reveal() not in f"{sink!r} {sink} {caught.value}"
