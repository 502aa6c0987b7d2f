"""Files as a source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from streamkit.connectors.files.formats import FileFormat, JsonArray
from streamkit.connectors.files.places import Places
from streamkit.connectors.files.reader import FilesReader
from streamkit.connectors.files.urls import check_different, divided, is_object, shown
from streamkit.dataflow.contracts import ConnectorEnv, Decoder, Source
from streamkit.errors import TopologyError, UsageError
from streamkit.record import Kind, Value
from streamkit.serde.binding import Serde
from streamkit.windows import duration_ms

T = TypeVar("T")


@dataclass(frozen=True)  # with slots, Files[Flight](...) would fail in Python 3.11
class Files(Source[T]):
    """Reads files, one after another in the order of their paths; also objects of a store.

    A run resumes at the row after its last commit, also inside a file. Files that were read
    before are read again only if they are other files now; what was appended to them is read. A
    file whose name ends with ``.gz``, ``.bz2``, ``.xz``, ``.zst`` or ``.lz4`` is decompressed.

    Attributes:
        path: A path, or several. ``*`` and ``?`` match within a name, ``**`` any folders. The URLs
            of objects begin with ``s3://``, ``gs://``, ``az://``, ``http://`` or ``https://``.
        format: What is in the files: `Csv`, `Jsonl`, `JsonArray`, `Text`, `Parquet` or
            `AvroFile`.
        follow: Wait for more files and for lines that are appended, until the job is stopped. A
            file that is moved away is read to its end; one that is truncated is read again.
        every: How long to wait between two looks at the files, in seconds or as a timedelta.
        may_be_empty: Without ``follow``: end the job if no file matches, instead of an error.
        store: For objects: the configuration of the store, as obstore names it, such as
            ``{"endpoint": "https://...", "secret_access_key": Secret(...)}``. By default it is
            taken from the environment.
    """

    path: str | Path | Sequence[str | Path]
    format: FileFormat[T]
    follow: bool = False
    every: float | timedelta = 1.0
    may_be_empty: bool = False
    store: Mapping[str, object] | None = field(default=None, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.format, FileFormat):
            raise UsageError(
                f"{self.format!r} is not a file format", hint="use Csv(), Jsonl() or Text()"
            )
        if not self.patterns:
            raise UsageError("Files needs at least one path")
        if self.follow and isinstance(self.format, JsonArray):
            raise UsageError(f"{type(self.format).__name__} files cannot be followed")
        duration_ms(self.every, "every")
        for each in filter(is_object, self.patterns):
            divided(each)
        check_different(self.patterns)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The paths as texts."""
        paths = [self.path] if isinstance(self.path, str | Path) else self.path
        return tuple(map(str, paths))

    @property
    def every_s(self) -> float:
        """How long to wait between two looks, in seconds."""
        return duration_ms(self.every, "every") / 1_000

    @property
    def name(self) -> str:
        first = re.sub(r"[*?\[].*", "", self.patterns[0])
        stem = Path(first).name.split(".")[0] or Path(first).parent.name
        return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:60].rstrip("-") or "files"

    @property
    def value_type(self) -> Kind:
        return self.format.kind

    @property
    def gives_columns(self) -> bool:
        return self.format.gives_columns

    def decoder(self, kind: Kind, serde: Serde | None) -> Decoder | None:
        if serde is not None:
            raise TopologyError(
                "value= is not possible for Files, whose format is the second argument",
                hint='for lines in your own format, use Files("in/*.txt", Text()) and a stage',
            )
        return self.format.decoder(kind)

    def encoded(self, value: Value, kind: Kind, serde: Serde | None) -> Value:
        return self.format.encoded(value, kind)

    def place(self, topic: str, partition: int, offset: int) -> str:
        return f"{topic} {self.format.unit} {offset}"

    def reader(self, env: ConnectorEnv) -> FilesReader:
        return FilesReader(
            self.patterns,
            self.format.for_type(env.kind),
            env,
            follow_s=self.every_s if self.follow else None,
            may_be_empty=self.may_be_empty or self.follow,
            places=Places(self.store),
        )

    def __repr__(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.repr}
        return shown(f"Files({', '.join(f'{name}={each!r}' for name, each in values.items())})")

    def __str__(self) -> str:
        return shown(f"files {', '.join(self.patterns)}")
