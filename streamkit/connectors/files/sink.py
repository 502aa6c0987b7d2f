"""Files as a sink."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from streamkit.connectors.file_sink.content import Content
from streamkit.connectors.file_sink.paths import PathTemplate
from streamkit.connectors.file_sink.targets import COMPRESSED, LocalTarget, ObjectTarget, Target
from streamkit.connectors.file_sink.writer import FileWriter, Limits
from streamkit.connectors.files.avro import AvroFile
from streamkit.connectors.files.formats import Csv, FileFormat, JsonArray, Jsonl, Text
from streamkit.connectors.files.objects import ObjectPlaces
from streamkit.connectors.files.parquet import Parquet
from streamkit.connectors.files.urls import divided, is_object, shown
from streamkit.dataflow.contracts import ConnectorEnv, Sink
from streamkit.env import Disk
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Kind, Value
from streamkit.serde.binding import Serde
from streamkit.serde.finite import Fault
from streamkit.serde.kinds import in_record
from streamkit.serde.values import ValueEncoder
from streamkit.windows import duration_ms

_ROWS_MAX: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class FileSink(Sink[Any]):
    """Files that appear whole, each with its final name, and have each row exactly once.

    Rows wait in the data folder of the job until their file is full. The path says which file a
    row goes to: ``{name}`` is a field of the value, ``{key}`` and ``{timestamp}`` are those of the
    record, and ``{n}`` is the number of the file, from 0. Without ``{n}``, the second file gets a
    number before its suffix. A file that exists is never replaced or changed.

    Attributes:
        path: The path, such as ``out/{origin}/{date:%Y-%m-%d}/part-{n}.parquet``. A suffix ``.gz``,
            ``.bz2``, ``.xz``, ``.zst`` or ``.lz4`` compresses the file.
        format: What is in the files: `Jsonl`, `Csv`, `JsonArray`, `Text`, `Parquet` or `AvroFile`.
            By default the suffix says it.
        roll_rows: The most rows of a file.
        roll_bytes: A file is full when its rows have this size, before compression.
        roll_after: A file is full this time after its first row, in seconds or as a timedelta. All
            files are full when the job ends.
        store: For objects, whose path begins with ``s3://``, ``gs://`` or ``az://``: the
            configuration of the store, as obstore names it. By default it is taken from the
            environment.
    """

    path: str | Path
    format: FileFormat[Any] | None = None
    roll_rows: int | None = None
    roll_bytes: int = 128 << 20
    roll_after: float | timedelta = 600.0
    store: Mapping[str, object] | None = field(default=None, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | Path):
            raise UsageError(f"path={self.path!r} is not a path")
        if self.format is not None and not isinstance(self.format, FileFormat):
            raise UsageError(
                f"{self.format!r} is not a file format", hint="use Csv(), Jsonl() or Parquet()"
            )
        for name in ("roll_rows", "roll_bytes"):
            size = getattr(self, name)
            if size is not None and (type(size) is not int or size < 1):
                raise UsageError(f"{name}={size!r} must be at least 1")
        duration_ms(self.roll_after, "roll_after")
        PathTemplate(str(self.path))
        if is_object(str(self.path)):
            _check_url(str(self.path))
        if self._format.compresses_itself and str(self.path).lower().endswith(COMPRESSED):
            raise UsageError(
                f"{self.path}: a {type(self._format).__name__} file is compressed inside",
                hint="remove the last suffix; the option compression= chooses the compression",
            )

    def __str__(self) -> str:
        return f"files {self.path}"

    @property
    def name(self) -> str:
        first = re.sub(r"\{.*", "", str(self.path))
        stem = Path(first).name.split(".")[0] or Path(first).parent.name
        found = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
        return f"to-{found or 'files'}"[:60].rstrip("-")

    def resource(self) -> str:
        return f"files {self._place}"

    def encoder(self, kind: Kind, serde: Serde | None) -> ValueEncoder | None:
        if serde is not None:
            raise TopologyError(
                "value= is not possible for FileSink, whose format is the second argument",
                hint="for lines in your own format, make them in a stage: FileSink(path, Text())",
            )
        template = PathTemplate(str(self.path))
        if kind is not None:
            template.check_type(in_record(kind))
        encoder = self._content(kind).encoder
        return _with_fields(encoder, template) if template.uses_values else encoder

    def writer(self, env: ConnectorEnv) -> FileWriter:
        limits = Limits(
            self.roll_rows or _ROWS_MAX, self.roll_bytes, duration_ms(self.roll_after, "roll_after")
        )
        target: Target = LocalTarget(Disk())
        if is_object(str(self.path)):
            target = ObjectTarget(ObjectPlaces(self.store or {}), env.folder)
        template = PathTemplate(self._place)
        return FileWriter(template, self._content(env.kind), target, limits, env)

    @property
    def _place(self) -> str:
        """The path, which does not depend on the current folder."""
        return str(self.path) if is_object(str(self.path)) else os.path.abspath(self.path)

    def _content(self, kind: Kind) -> Content:
        return self._format.content(in_record(kind))

    @property
    def _format(self) -> FileFormat[Any]:
        return self.format or _format_for(str(self.path))


def _check_url(path: str) -> None:
    root, _ = divided(path)
    if root.startswith("http") or "{" in root:
        raise UsageError(
            f"{shown(path)}: objects are written to s3://bucket/, gs://bucket/ or az://container/",
            hint="the bucket cannot have a field",
        )


def _with_fields(encoder: ValueEncoder | None, template: PathTemplate) -> ValueEncoder:
    """Return an encoder whose rows are pairs: the fields that the path has, and the row."""
    fields = template.values_of
    dumps = None if encoder is None else encoder.dumps
    fault = None if encoder is None else encoder.fault

    def pair(value: Value) -> Any:
        return fields(value), value if dumps is None else dumps(value)

    def find(values: Any, encoded: Any) -> Fault | None:
        assert fault is not None, "otherwise it is not called"
        return fault(values, [row for _, row in encoded])

    return ValueEncoder(pair, None if fault is None else find)


def _format_for(path: str) -> FileFormat[Any]:
    """Return the format that a path names.

    Raises:
        UsageError: Its suffix is not known.
    """
    suffixes = [each.lower() for each in Path(path).suffixes if each.lower() not in COMPRESSED]
    make = _BY_SUFFIX.get(suffixes[-1] if suffixes else "")
    if make is None:
        raise UsageError(
            f"the suffix of {path!r} does not say which format the file has",
            hint=f"use one of {', '.join(_BY_SUFFIX)}, or name the format: FileSink(path, Jsonl())",
        )
    found: FileFormat[Any] = make()
    return found


_BY_SUFFIX: Final[dict[str, Any]] = {
    ".jsonl": Jsonl,
    ".ndjson": Jsonl,
    ".json": JsonArray,
    ".csv": Csv,
    ".tsv": lambda: Csv[Any](delimiter="\t"),
    ".txt": Text,
    ".parquet": Parquet,
    ".avro": AvroFile,
}
