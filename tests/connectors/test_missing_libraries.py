"""Libraries of file formats and stores that are not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from streamkit import App
from streamkit.connectors.files import AvroFile, Files, Parquet, Text
from streamkit.errors import ConfigError
from tests.connectors.reading import read


@pytest.mark.parametrize(
    ("source", "library", "extra"),
    [
        (Files("f.parquet", Parquet(dict)), "pyarrow.parquet", "arrow"),
        (Files("f.avro", AvroFile(dict)), "fastavro", "avro"),
    ],
)
def test_a_format_without_its_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, source: Any, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"\[{extra}\]"):
        App("files").stream(source)


def test_objects_without_their_library_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    for path in ("s3://bucket/*.txt", "https://host/f.txt"):
        with pytest.raises(ConfigError, match=r"\[objects\]"):
            read(Files(path, Text()), str)
    (tmp_path / "f.txt").write_text("1")
    assert read(Files(tmp_path / "f.txt", Text()), str) == ["1"]
