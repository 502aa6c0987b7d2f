"""Formats for ``value=`` and ``key_format=``: JSON, MessagePack, CSV, Avro, Protobuf, text."""

from streamkit.formats.avro import Avro
from streamkit.formats.csv_line import CsvLine
from streamkit.formats.json import Json
from streamkit.formats.message_pack import MessagePack
from streamkit.formats.plain import Raw, Text
from streamkit.formats.protobuf import Protobuf
from streamkit.formats.registry import SchemaRegistry

__all__ = [
    "Avro",
    "CsvLine",
    "Json",
    "MessagePack",
    "Protobuf",
    "Raw",
    "SchemaRegistry",
    "Text",
]
