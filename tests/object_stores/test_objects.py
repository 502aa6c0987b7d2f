"""Objects of S3 and files of HTTP servers as a source, and what can go wrong with them."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import fastavro
import pyarrow
import pytest
from pyarrow import parquet

from streamkit import Secret
from streamkit.connectors import SourceReader
from streamkit.connectors.files import AvroFile, Csv, Files, JsonArray, Jsonl, Parquet, Text
from streamkit.connectors.files import objects as objects_module
from streamkit.errors import ConfigError, DataError, UsageError
from streamkit.testing import check_source
from tests.connectors.reading import FLIGHTS, Flight, read
from tests.connectors.test_files_resume import reader_of, rest, rows_and_positions
from tests.object_stores.buckets import Bucket
from tests.object_stores.http_files import HttpFiles

pytestmark = pytest.mark.anyio

CSV = b"carrier,number,delay\nUA,1,3.5\nAA,2,\nB6,3,-2.0\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def parquet_data(rows: int = 3) -> bytes:
    columns = {
        "carrier": ["UA", "AA", "B6"] * (rows // 3),
        "number": [1, 2, 3] * (rows // 3),
        "delay": [3.5, None, -2.0] * (rows // 3),
    }
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file, row_group_size=2)
    return file.getvalue()


def avro_data() -> bytes:
    fields = [("carrier", "string"), ("number", "long"), ("delay", ["null", "double"])]
    schema = {
        "type": "record",
        "name": "Flight",
        "fields": [{"name": name, "type": kind} for name, kind in fields],
    }
    file = io.BytesIO()
    rows = [{"carrier": e.carrier, "number": e.number, "delay": e.delay} for e in FLIGHTS]
    fastavro.writer(file, schema, rows)
    return file.getvalue()


JSONL = b'{"carrier":"UA","number":1,"delay":3.5}\n{"carrier":"AA","number":2}\n'
JSONL += b'{"carrier":"B6","number":3,"delay":-2.0}\n'
DATA: list[tuple[str, Callable[[], bytes], Any]] = [
    ("f.csv", lambda: CSV, Csv[Any]()),
    ("f.csv.gz", lambda: gzip.compress(CSV), Csv[Any]()),
    ("f.jsonl", lambda: JSONL, Jsonl[Any]()),
    ("f.json", lambda: b"[" + b",".join(JSONL.splitlines()) + b"]", JsonArray[Any]()),
    ("f.parquet", parquet_data, Parquet[Any]()),
    ("f.avro", avro_data, AvroFile[Any]()),
]


@pytest.mark.parametrize(("name", "data", "form"), DATA, ids=[each[0] for each in DATA])
def test_objects_keep_the_contract_of_a_source(
    bucket: Bucket, name: str, data: Callable[[], bytes], form: Any
) -> None:
    bucket.put(f"in/1-{name}", data())
    bucket.put(f"in/2-{name}", data())
    source = Files(bucket.url(f"in/*{name}"), form, store=bucket.store)
    check_source(lambda: source, [*FLIGHTS, *FLIGHTS], kind=Flight)


@pytest.mark.parametrize("any_bucket", ["gs", "az"], indirect=True)
def test_objects_of_other_stores_keep_the_contract_of_a_source(any_bucket: Bucket) -> None:
    any_bucket.put("in/1-f.parquet", parquet_data())
    any_bucket.put("in/2-f.parquet", parquet_data())
    source: Files[Any] = Files(any_bucket.url("in/*"), Parquet(), store=any_bucket.store)
    check_source(lambda: source, [*FLIGHTS, *FLIGHTS], kind=Flight)


@pytest.mark.parametrize(("name", "data", "form"), DATA, ids=[each[0] for each in DATA])
async def test_reading_resumes_after_every_row_of_an_object(
    any_bucket: Bucket, name: str, data: Callable[[], bytes], form: Any
) -> None:
    any_bucket.put(f"in/{name}", data())
    source = Files(any_bucket.url(f"in/{name}"), form, store=any_bucket.store)
    found = await rows_and_positions(source)
    assert len(found) == 3
    for number, (_, positions) in enumerate(found, 1):
        assert await rest(source, positions) == [row for row, _ in found[number:]]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*.txt", ["1", "2"]),
        ("in/**/*.txt", ["3", "1", "2"]),
        ("**/*.txt", ["3", "1", "2"]),
        ("in/[ac].txt", ["1"]),
        ("in/?.txt", ["1", "2"]),
        ("in/b.txt", ["2"]),
        ("in/a+b/c d/ü.txt", ["3"]),
    ],
)
def test_patterns_find_objects(any_bucket: Bucket, pattern: str, expected: list[str]) -> None:
    for path, text in (("a.txt", b"1"), ("b.txt", b"2"), ("a+b/c d/ü.txt", b"3"), ("c", b"4")):
        any_bucket.put(f"in/{path}", text)
    assert read(Files(any_bucket.url(pattern), Text(), store=any_bucket.store), str) == expected


@pytest.mark.parametrize(
    "key",
    [
        *("some spaces.txt", "a+b.txt", "100%.txt", "test%2B.txt", "a:b::c.txt", "#1?.txt"),
        *("run_date=2026-11-26/2026-11-26T13:51:14.9+00:00.txt", "日本.txt", "a&b='c'.txt"),
    ],
)
def test_keys_with_special_characters_are_read(any_bucket: Bucket, key: str) -> None:
    any_bucket.put(f"in/{key}", b"1\n")
    assert read(Files(any_bucket.url("in/**/*.txt"), Text(), store=any_bucket.store), str) == ["1"]
    if "?" not in key:
        assert read(Files(any_bucket.url(f"in/{key}"), Text(), store=any_bucket.store), str) == [
            "1"
        ]


def test_empty_objects_that_mark_folders_are_left_out(any_bucket: Bucket) -> None:
    """data-prepper #3727, s3fs #800, presto #16701."""
    any_bucket.put("in/part-0.parquet", parquet_data())
    any_bucket.put("in/day=1", b"")
    any_bucket.put("in/day=1_$folder$", b"")
    any_bucket.put("in/_SUCCESS", b"")
    source = Files(any_bucket.url("in/**"), Parquet(Flight), store=any_bucket.store)
    assert read(source, Flight) == FLIGHTS


def test_files_and_objects_can_be_read_together(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("f.txt", b"2\n")
    (tmp_path / "f.txt").write_text("1\n")
    source = Files([bucket.url("f.txt"), tmp_path / "f.txt"], Text(), store=bucket.store)
    assert read(source, str) == ["1", "2"]


async def test_an_object_that_was_read_is_not_read_again(any_bucket: Bucket) -> None:
    any_bucket.put("f.txt.gz", gzip.compress(b"1\n2"))
    any_bucket.put("g.json", b"[1,2]")
    for name, form in (("f.txt.gz", Text()), ("g.json", JsonArray[Any]())):
        source: Files[Any] = Files(any_bucket.url(name), form, store=any_bucket.store)
        positions = (await rows_and_positions(source))[-1][1]
        assert '"done":true' in next(iter(positions.values()))
        assert await rest(source, positions) == []


async def test_an_object_that_was_replaced_is_read_from_its_beginning(any_bucket: Bucket) -> None:
    any_bucket.put("f.txt", b"a\nb\n")
    source = Files(any_bucket.url("f.txt"), Text(), store=any_bucket.store)
    positions = (await rows_and_positions(source))[-1][1]
    any_bucket.put("f.txt", b"x\ny\nz\n")
    assert await rest(source, positions) == [b"x", b"y", b"z"]


async def test_new_objects_are_found_while_the_job_runs(any_bucket: Bucket) -> None:
    source = Files(
        any_bucket.url("in/*.txt"), Text(), store=any_bucket.store, follow=True, every=0.01
    )
    reader = reader_of(source)
    await reader.open({})
    found: list[bytes] = []
    with anyio.fail_after(30):
        for name, data in (("b", b"1\n"), ("a", b"2\n3\n")):
            any_bucket.put(f"in/{name}.txt", data)
            chunk = await reader.next()
            assert chunk is not None
            found += chunk.values
    await reader.close()
    assert found == [b"1", b"2", b"3"]


async def read_to_end(reader: SourceReader) -> None:
    try:
        while await reader.next() is not None:
            pass
    finally:
        await reader.close()


async def test_an_object_that_changes_while_it_is_read_is_an_error(
    any_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "_RANGE_BYTES", 1 << 19)
    any_bucket.put("f.txt", b"a\n" * 1_000_000)
    source = Files(any_bucket.url("f.txt"), Text(), store=any_bucket.store)
    reader = reader_of(source)
    await reader.open({})
    assert await reader.next() is not None
    any_bucket.put("f.txt", b"b\n" * 1_000_000)
    with pytest.raises(DataError, match="was replaced by another object while it was read"):
        await read_to_end(reader)


async def test_an_object_that_is_deleted_while_it_is_read_is_an_error(
    any_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "_RANGE_BYTES", 1 << 19)
    any_bucket.put("f.txt", b"a\n" * 1_000_000)
    reader = reader_of(Files(any_bucket.url("f.txt"), Text(), store=any_bucket.store))
    await reader.open({})
    assert await reader.next() is not None
    any_bucket.delete("f.txt")
    with pytest.raises(DataError, match=r"f\.txt: there is no such object"):
        await read_to_end(reader)


async def test_an_object_that_is_deleted_before_it_is_read_is_left_out(bucket: Bucket) -> None:
    bucket.put("a.txt", b"1\n")
    bucket.put("b.txt", b"2\n")
    notes: list[str] = []
    reader = reader_of(Files(bucket.url("*.txt"), Text(), store=bucket.store), notes)
    await reader.open({})
    bucket.delete("b.txt")
    chunk = await reader.next()
    assert chunk is not None
    assert list(chunk.values) == [b"1"]
    assert await reader.next() is None
    assert "was deleted before it was read" in notes[0]
    await reader.close()


def test_a_missing_bucket_and_a_missing_object_are_errors(any_bucket: Bucket) -> None:
    for pattern in (f"{any_bucket.nowhere}/*.txt", f"{any_bucket.nowhere}/f.txt"):
        with pytest.raises(ConfigError, match=f"{any_bucket.nowhere} does not exist"):
            read(Files(pattern, Text(), store=any_bucket.store), str)
    with pytest.raises(DataError, match="no file matches"):
        read(Files(any_bucket.url("f.txt"), Text(), store=any_bucket.store), str)


def test_secrets_are_never_shown(bucket: Bucket, http_files: HttpFiles) -> None:
    source = Files(bucket.url("*.txt"), Text(), store=bucket.store)
    assert "not-to-be-shown" not in f"{source!r} {source}"
    store = {**bucket.store, "no_such_option": Secret("not-to-be-shown")}
    with pytest.raises(ConfigError) as caught:
        read(Files(bucket.url("*.txt"), Text(), store=store), str)
    assert "not-to-be-shown" not in str(caught.value)
    http_files.faults = [403]
    denied = {**bucket.store, "endpoint": http_files.url("").rstrip("/")}
    with pytest.raises(ConfigError, match="access is denied") as caught:
        read(Files(bucket.url("*.txt"), Text(), store=denied), str)
    assert "not-to-be-shown" not in str(caught.value)
    with pytest.raises(UsageError, match=r"s3://\*\*\*@bucket has a password"):
        Files("s3://user:not-to-be-shown@bucket/f.txt", Text())


@pytest.mark.parametrize("path", ["ftp://host/f.csv", "s3:///f.csv", "https://host/*.csv"])
def test_urls_that_cannot_be_read_are_refused(path: str) -> None:
    with pytest.raises(UsageError):
        Files(path, Text())


# --- HTTP ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data", "form"), DATA, ids=[each[0] for each in DATA])
def test_files_of_http_servers_are_read(
    http_files: HttpFiles, name: str, data: Callable[[], bytes], form: Any
) -> None:
    http_files.files[f"a/{name}"] = data()
    assert read(Files(http_files.url(f"a/{name}"), form), Flight) == FLIGHTS


async def test_a_server_without_parts_is_read_from_beginning_to_end(
    http_files: HttpFiles,
) -> None:
    http_files.has_parts = False
    http_files.files["f.csv"] = CSV
    source: Files[Any] = Files(http_files.url("f.csv"), Csv())
    found = await rows_and_positions(source)
    assert len(found) == 3
    for number, (_, positions) in enumerate(found, 1):
        assert await rest(source, positions) == [row for row, _ in found[number:]]


async def test_a_compressed_file_that_was_read_is_not_requested_again(
    http_files: HttpFiles,
) -> None:
    http_files.files["f.csv.gz"] = gzip.compress(CSV)
    source: Files[Any] = Files(http_files.url("f.csv.gz"), Csv())
    positions = (await rows_and_positions(source))[-1][1]
    http_files.requests.clear()
    assert await rest(source, positions) == []
    assert {method for method, _ in http_files.requests} == {"HEAD"}


def test_parquet_from_a_server_without_parts_is_refused(http_files: HttpFiles) -> None:
    http_files.has_parts = False
    file = io.BytesIO()
    noise = pyarrow.array([random.Random(1).randbytes(5_000_000)])
    parquet.write_table(pyarrow.table({"noise": noise}), file)
    http_files.files["f.parquet"] = file.getvalue()
    with pytest.raises(DataError, match="does not send parts of files"):
        read(Files(http_files.url("f.parquet"), Parquet()), dict)


@pytest.mark.parametrize("fault", [503, 500, "cut"])
def test_a_request_that_fails_once_is_sent_again(http_files: HttpFiles, fault: int | str) -> None:
    http_files.files["f.csv"] = CSV
    http_files.faults = [fault]
    assert read(Files(http_files.url("f.csv"), Csv()), Flight) == FLIGHTS
    assert not http_files.faults


def test_a_connection_that_is_always_cut_is_an_error(http_files: HttpFiles) -> None:
    http_files.files["f.csv"] = CSV
    http_files.faults = ["cut"] * 50
    with pytest.raises(DataError, match=r"f\.csv"):
        read(Files(http_files.url("f.csv"), Csv()), Flight)


def test_a_file_that_the_server_does_not_have_is_an_error(http_files: HttpFiles) -> None:
    with pytest.raises(DataError, match="no file matches"):
        read(Files(http_files.url("f.csv"), Csv()), Flight)


def test_a_large_file_is_read_in_parts(http_files: HttpFiles) -> None:
    http_files.files["f.txt"] = b"x" * 99 + b"\n"
    http_files.files["f.txt"] *= 100_000
    assert len(read(Files(http_files.url("f.txt"), Text()), str)) == 100_000
    parts = [part for method, part in http_files.requests if method == "GET"]
    assert len(parts) == 4
    assert parts[1:] == [
        "bytes=0-4194303",
        "bytes=4194304-8388607",
        "bytes=8388608-9999999",
    ]
