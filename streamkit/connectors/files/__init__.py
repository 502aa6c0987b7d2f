"""Files as sources and sinks."""

from __future__ import annotations

from streamkit.connectors.files.avro import AvroFile
from streamkit.connectors.files.formats import Csv, FileFormat, JsonArray, Jsonl, Text
from streamkit.connectors.files.json_lines_sink import JsonLines
from streamkit.connectors.files.parquet import Parquet
from streamkit.connectors.files.sink import FileSink
from streamkit.connectors.files.source import Files

__all__ = [
    "AvroFile",
    "Csv",
    "FileFormat",
    "FileSink",
    "Files",
    "JsonArray",
    "JsonLines",
    "Jsonl",
    "Parquet",
    "Text",
]
