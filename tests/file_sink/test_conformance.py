"""File sinks keep the contract of connectors, as the public checks test it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors.files import FileSink, Text
from streamkit.testing import check_sink
from tests.file_sink.reading import FLIGHTS, content, flights_in, shown

NAMES = [
    "f.jsonl",
    "f.csv",
    "f.json",
    "f.json.zst",
    "{origin}/part-{n:03d}.csv.lz4",
    "origin={origin}/{key}-{timestamp:%Y/%m}/f.jsonl.xz",
    "part-{n}.csv.bz2",
    "{origin}/{n}.parquet",
    "f.parquet",
    "{origin}/{n}.avro",
]


@pytest.mark.parametrize("name", NAMES)
def test_file_sinks_keep_the_contract_of_a_sink(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    check_sink(
        lambda: FileSink(out / name, roll_rows=30),
        lambda: flights_in(out),
        FLIGHTS,
        clear=lambda: shutil.rmtree(out, ignore_errors=True),
        exactly_once=True,
        unopenable=lambda: FileSink("/proc/nothing/f.jsonl"),
    )


def test_a_sink_of_text_keeps_the_contract_of_a_sink(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def lines() -> Sequence[Any]:
        return [line for path in shown(out) for line in content(path).decode().splitlines()]

    check_sink(
        lambda: FileSink(out / "part-{n:05d}.log", Text(), roll_bytes=100),
        lines,
        [f"line {number}" for number in range(50)],
        kind=str,
        clear=lambda: shutil.rmtree(out, ignore_errors=True),
        exactly_once=True,
        ordered=True,
        poison=["two\nlines"],
    )
