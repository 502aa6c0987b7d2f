"""What `streamkit connectors` shows about files, and the files of `streamkit copy`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from streamkit.connectors.files.avro import AvroFile
from streamkit.connectors.files.formats import Csv, FileFormat, Jsonl
from streamkit.connectors.files.json_lines_sink import JsonLines
from streamkit.connectors.files.parquet import Parquet
from streamkit.connectors.files.sink import FileSink
from streamkit.connectors.files.source import Files
from streamkit.connectors.files.urls import is_object, without_query
from streamkit.connectors.registry import ConnectorFacts
from streamkit.dataflow.contracts import Sink
from streamkit.errors import UsageError

_COMPRESSED: Final = ("", ".gz", ".bz2", ".xz", ".zst", ".lz4")

JSONL = ConnectorFacts(
    "files-jsonl",
    "Appends JSON values to a file, one for each line.",
    sink=JsonLines,
    guarantee="at least once",
    example='stream.to(JsonLines("out.jsonl"))',
    schemes=("jsonl",),
    suffixes=tuple(f"{kind}{each}" for kind in (".jsonl", ".ndjson") for each in _COMPRESSED),
    source_of=lambda end: Files(end.removeprefix("jsonl:"), Jsonl[Any]()),
    sink_of=lambda end: _json_lines_of(end.removeprefix("jsonl:")),
)


def _json_lines_of(path: str) -> Sink[Any]:
    if is_object(path) or path.endswith(_COMPRESSED[1:]):
        return _one_file(path, Jsonl[Any]())
    return JsonLines(path)


def _one_file(path: str, form: FileFormat[Any]) -> FileSink:
    """Return a sink whose file is complete only when the job ends.

    Raises:
        UsageError: It would need a schema.
    """
    if isinstance(form, AvroFile):
        raise UsageError(
            f"{path}: an Avro file needs a schema, so it is not possible to copy to it",
            hint="write it in a job: stream.to(FileSink(path, AvroFile(Order)))",
        )
    return FileSink(path, form, roll_bytes=1 << 62, roll_after=timedelta(days=36_500))


def _format_of(end: str) -> FileFormat[Any]:
    end = without_query(end)
    if end.endswith(".avro"):
        return AvroFile[Any]()
    if end.endswith(".parquet"):
        return Parquet[Any]()
    return Csv[Any](delimiter="\t" if ".tsv" in end else ",")


FILES = ConnectorFacts(
    "files",
    "Reads and writes the rows of files: CSV, JSON lines, JSON arrays, text, Parquet and Avro.",
    source=Files,
    sink=FileSink,
    guarantee="exactly once",
    example='app.stream(Files("in/*.csv", Csv(Flight)))',
    schemes=("csv",),
    suffixes=(
        *(f"{kind}{each}" for kind in (".csv", ".tsv") for each in _COMPRESSED),
        ".parquet",
        ".avro",
    ),
    source_of=lambda end: Files(end.removeprefix("csv:"), _format_of(end)),
    sink_of=lambda end: _one_file(end.removeprefix("csv:"), _format_of(end)),
)
