"""A store of objects that is busy, or whose requests and answers are lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamkit import App
from streamkit.connectors.files import Files, FileSink, Jsonl
from tests.file_sink.reading import FLIGHTS, Flight
from tests.object_stores.buckets import Bucket
from tests.object_stores.fault_proxy import Fault, FaultProxy
from tests.object_stores.test_file_sink import rows_of

FAULTS: list[Fault] = [503, 429, 500, "lost request", "lost answer"]


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint) as found:
        yield found


def behind(proxy: FaultProxy, bucket: Bucket) -> dict[str, object]:
    return {**bucket.store, "endpoint": proxy.endpoint}


def copied(source: Files[Flight], sink: FileSink, tmp_path: Path) -> int:
    app = App("copy")
    app.stream(source, name="rows").to(sink, name="out")
    return app.run(embedded=True, once=True, data_dir=tmp_path / "data")


def source_in(tmp_path: Path) -> Files[Flight]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in FLIGHTS))
    return Files(path, Jsonl(Flight))


@pytest.mark.parametrize("fault", FAULTS)
def test_rows_are_written_once_in_spite_of_faults(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, fault: Fault
) -> None:
    proxy.faults = {method: [fault, fault] for method in ("PUT", "LIST", "HEAD")}
    sink = FileSink(bucket.url("out/{origin}.jsonl"), Jsonl(Flight), store=behind(proxy, bucket))
    assert copied(source_in(tmp_path), sink, tmp_path) == 0
    assert sorted(map(repr, rows_of(bucket))) == sorted(map(repr, FLIGHTS))
    assert proxy.faults["PUT"] == [], "the faults came"


@pytest.mark.parametrize("fault", FAULTS)
def test_uploads_in_parts_are_completed_once_in_spite_of_faults(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, fault: Fault
) -> None:
    rows = [Flight(number, "X" * 1_000_000, None) for number in range(12)]
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in rows))
    proxy.faults = {"PUT": [fault], "POST": [fault, fault]}
    sink = FileSink(bucket.url("large.jsonl"), Jsonl(Flight), store=behind(proxy, bucket))
    assert copied(Files(path, Jsonl(Flight)), sink, tmp_path) == 0
    assert rows_of(bucket) == rows
    assert proxy.faults == {"PUT": [], "POST": []}, "the faults came"


@pytest.mark.parametrize("fault", [*FAULTS, "cut answer"])
def test_objects_are_read_whole_in_spite_of_faults(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, fault: Fault
) -> None:
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in FLIGHTS)
    for number in range(3):
        bucket.put(f"in/{number}.jsonl", lines)
    proxy.faults = {"LIST": [fault, fault], "GET": [fault, fault]}
    source = Files(bucket.url("in/*.jsonl"), Jsonl(Flight), store=behind(proxy, bucket))
    out = tmp_path / "out.jsonl"
    assert copied(source, FileSink(out, Jsonl(Flight)), tmp_path) == 0
    assert out.read_bytes() == lines * 3
    assert proxy.faults == {"LIST": [], "GET": []}, "the faults came"
