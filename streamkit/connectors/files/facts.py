"""What `streamkit connectors` shows about files, and the files of `streamkit copy`."""

from __future__ import annotations

from typing import Any, Final

from streamkit.connectors.files.avro import AvroFile
from streamkit.connectors.files.formats import Csv, Jsonl
from streamkit.connectors.files.json_lines_sink import JsonLines
from streamkit.connectors.files.parquet import Parquet
from streamkit.connectors.files.source import Files
from streamkit.connectors.registry import ConnectorFacts

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
    sink_of=lambda end: JsonLines(end.removeprefix("jsonl:")),
)


def _files_of(end: str) -> Files[Any]:
    if end.endswith(".avro"):
        return Files(end, AvroFile[Any]())
    if end.endswith(".parquet"):
        return Files(end, Parquet[Any]())
    delimiter = "\t" if ".tsv" in end else ","
    return Files(end.removeprefix("csv:"), Csv[Any](delimiter=delimiter))


FILES = ConnectorFacts(
    "files",
    "Reads the rows of files: CSV, JSON lines, JSON arrays, text, Parquet and Avro.",
    source=Files,
    example='app.stream(Files("in/*.csv", Csv(Flight)))',
    schemes=("csv",),
    suffixes=(
        *(f"{kind}{each}" for kind in (".csv", ".tsv") for each in _COMPRESSED),
        ".parquet",
        ".avro",
    ),
    source_of=_files_of,
)
