"""URLs of HTTP servers with a query, such as signed ones, whose query is never shown."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from obstore.store import HTTPStore

from streamkit import App
from streamkit.connectors.ends import sink_of, source_of, without_password
from streamkit.connectors.files import Csv, Files, FileSink, Jsonl, JsonLines, Parquet, Text
from streamkit.connectors.files.stores import Stores
from streamkit.errors import ConfigError, DataError, UsageError
from tests.connectors.reading import FLIGHTS, Flight, read
from tests.connectors.test_files_resume import reader_of, rest, rows_and_positions
from tests.object_stores.http_files import HttpFiles
from tests.object_stores.test_objects import CSV, parquet_data

pytestmark = pytest.mark.anyio
SIGNED = "X-Amz-Credential=a%2Fb&X-Amz-Signature=hidden-one"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def signed(server: HttpFiles, path: str, query: str = SIGNED) -> str:
    server.signed[path] = query
    return server.url(f"{path}?{query}")


def test_files_with_a_signed_url_are_read(http_files: HttpFiles) -> None:
    http_files.files = {"a/f.csv.gz": gzip.compress(CSV), "a/f.parquet": parquet_data()}
    forms: dict[str, Any] = {"a/f.csv.gz": Csv[Any](), "a/f.parquet": Parquet[Any]()}
    for path, form in forms.items():
        assert read(Files(signed(http_files, path), form), Flight) == FLIGHTS
    assert {method for method, _ in http_files.requests} == {"GET"}


@pytest.mark.parametrize("has_parts", [True, False])
def test_an_empty_file_with_a_signed_url_has_no_rows(
    http_files: HttpFiles, has_parts: bool
) -> None:
    http_files.has_parts = has_parts
    http_files.files["f.txt"] = b""
    assert read(Files(signed(http_files, "f.txt"), Text()), str) == []


def test_a_server_without_parts_is_read_with_a_query(http_files: HttpFiles) -> None:
    http_files.has_parts = False
    http_files.files["f.csv"] = CSV
    assert read(Files(signed(http_files, "f.csv"), Csv()), Flight) == FLIGHTS


async def test_reading_resumes_with_another_signature(http_files: HttpFiles) -> None:
    http_files.files["f.csv"] = CSV
    found = await rows_and_positions(Files(signed(http_files, "f.csv"), Csv()))
    again: Files[Any] = Files(signed(http_files, "f.csv", "sig=other"), Csv())
    for number, (_, positions) in enumerate(found, 1):
        assert await rest(again, positions) == [row for row, _ in found[number:]]
    assert "hidden-one" not in str(found)


async def test_a_query_is_never_shown(http_files: HttpFiles) -> None:
    http_files.files["f.jsonl"] = b'{"a":1}\nnot json\n'
    source = Files(signed(http_files, "f.jsonl"), Jsonl(dict[str, int]))
    app = App("signed")
    stream = app.stream(source)
    reader = reader_of(source)
    facts = await reader.open({})
    chunk = await reader.next()
    assert chunk is not None
    await reader.close()
    with pytest.raises(Exception, match=r"f\.jsonl line 2") as failed, app.test() as job:
        job.read(stream)
    shown = f"{source!r} {source} {source.name} {facts} {chunk} {stream} {failed.value}"
    assert "hidden-one" not in shown
    assert "f.jsonl" in shown


@pytest.mark.parametrize("status", [403, 404])
def test_an_error_does_not_show_the_query(http_files: HttpFiles, status: int) -> None:
    http_files.files["f.csv"] = CSV
    url = signed(http_files, "f.csv")
    http_files.faults = [status] * 100
    with pytest.raises((ConfigError, DataError)) as caught:
        read(Files(url, Csv()), Flight)
    assert "hidden-one" not in str(caught.value)
    assert "f.csv" in str(caught.value)
    if status == 403:
        assert caught.value.hint == "the URL may have expired"


def test_urls_that_differ_only_in_their_query_are_refused() -> None:
    paths = ["https://host/get?file=1", "https://host/get?file=2"]
    with pytest.raises(UsageError, match="https://host/get differ only in their query") as caught:
        Files(paths, Text())
    assert "file=" not in str(caught.value)
    Files([paths[0], paths[0], "https://host/other?file=2"], Text())


def test_a_url_that_names_a_host_of_a_store_is_a_file_of_an_http_server() -> None:
    """obstore would sign these requests, although the URL is signed already."""
    for host in ("b.s3.eu-central-1.amazonaws.com", "a.blob.core.windows.net"):
        opened = Stores({}).of(f"https://{host}/c/f.csv?sig=hidden-one")
        assert isinstance(opened, HTTPStore)


def test_escaped_characters_of_a_path_are_sent_as_they_are(http_files: HttpFiles) -> None:
    http_files.files["a%20b%2Bc.txt"] = b"1\n"
    assert read(Files(http_files.url("a%20b%2Bc.txt"), Text()), str) == ["1"]


def test_a_url_with_a_query_cannot_be_written() -> None:
    for path in (f"https://host/f.csv?{SIGNED}", f"https://host/f.jsonl?{SIGNED}"):
        with pytest.raises(UsageError) as caught:
            sink_of(path)
        assert "hidden-one" not in str(caught.value)
    assert isinstance(sink_of("s3://bucket/f.jsonl"), FileSink)
    with pytest.raises(UsageError, match="JsonLines appends to files of this machine"):
        JsonLines("s3://bucket/f.jsonl")


def test_an_end_of_a_copy_may_have_a_query() -> None:
    source = source_of(f"https://host/f.csv.gz?{SIGNED}")
    assert isinstance(source, Files)
    assert "hidden-one" not in without_password(f"https://host/f.csv.gz?{SIGNED}")
    with pytest.raises(UsageError, match="no connector reads or writes") as caught:
        source_of(f"https://host/f.unknown?{SIGNED}")
    assert "hidden-one" not in str(caught.value)
