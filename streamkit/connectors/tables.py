"""Small files as tables: their rows are read at the start of each run."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from streamkit.connectors.csv_limit import allow_long_fields
from streamkit.dataflow.endpoints import FileTable
from streamkit.errors import DataError
from streamkit.units import counted


@dataclass(frozen=True, slots=True)
class JsonLinesTable(FileTable):
    """A file with one JSON value per line; empty lines are ignored."""

    path: str | Path

    def __str__(self) -> str:
        return f"file {self.path}"

    @property
    def name(self) -> str:
        return _name_of(self.path)

    def rows(self, kind: Any) -> list[Any]:
        decode = msgspec.json.Decoder(kind).decode
        try:
            lines = Path(self.path).read_bytes().splitlines()
        except OSError as error:
            raise DataError(f"cannot read the table {self.path}: {error}") from error
        return list(_decoded(((line, decode) for line in lines), self.path))


@dataclass(frozen=True, slots=True)
class CsvTable(FileTable):
    """A CSV file with a header line, which has the names of the fields.

    Texts are converted to the types of the fields. Each text in ``missing`` is None, which is an
    error in a field that does not allow None.
    """

    path: str | Path
    delimiter: str = ","
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ("", "NA")

    def __str__(self) -> str:
        return f"file {self.path}"

    @property
    def name(self) -> str:
        return _name_of(self.path)

    def rows(self, kind: Any) -> list[Any]:
        allow_long_fields()
        try:
            with Path(self.path).open(newline="", encoding=self.encoding) as file:
                return list(self._converted(csv.DictReader(file, delimiter=self.delimiter), kind))
        except (OSError, UnicodeError, csv.Error) as error:
            raise DataError(f"cannot read the table {self.path}: {error}") from error

    def _converted(self, reader: csv.DictReader[str], kind: Any) -> Iterator[Any]:
        columns = reader.fieldnames or []
        twice = next((each for each in columns if each and columns.count(each) > 1), None)
        if twice is not None:
            raise DataError(f"{self.path} has several columns {twice!r}")
        for row in reader:
            if None in row or None in row.values():  # more fields than columns, or fewer
                raise DataError(
                    f"{self.path}:{reader.line_num}: the row does not have one field for each of "
                    f"the {counted(len(columns), 'column')}"
                )
            given = {name: None if text in self.missing else text for name, text in row.items()}
            try:
                yield msgspec.convert(given, kind, strict=False)
            except msgspec.ValidationError as error:
                raise DataError(f"{self.path}:{reader.line_num}: {error}") from error


def _decoded(lines: Any, path: str | Path) -> Iterator[Any]:
    for number, (line, decode) in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield decode(line)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path}:{number}: {error}") from error


def _name_of(path: str | Path) -> str:
    """Return a stage name for a file."""
    return re.sub(r"[^a-z0-9]+", "-", Path(path).stem.lower()).strip("-") or "table"
