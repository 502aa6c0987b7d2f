"""Whole jobs that write files: errors of rows, files that exist, later runs, options."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest

from streamkit import App, Record
from streamkit.connectors.files import Csv, Files, FileSink, JsonArray, Jsonl, Parquet, Text
from streamkit.errors import ConfigError, TopologyError, UsageError
from streamkit.policies import dead_letter
from tests.file_sink.reading import FLIGHTS, Flight, content, flights_in, flights_of, shown

ROWS = b"".join(msgspec.json.encode(flight) + b"\n" for flight in FLIGHTS)


def copies(tmp_path: Path, rows: bytes, sink: FileSink, kind: Any = Flight, **options: Any) -> int:
    """Run a job that copies JSON lines to a file sink; return its exit code."""
    source = tmp_path / "in.jsonl"
    source.write_bytes(rows)
    app = App("copy")
    app.stream(Files(source, Jsonl()), kind, name="rows").to(sink, name="out", **options)
    return app.run(embedded=True, once=True, data_dir=tmp_path / "data")


@pytest.mark.parametrize("kind", [Flight, dict], ids=["typed", "dicts"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json", "csv.gz", "parquet"])
def test_each_format_has_the_rows_of_typed_and_of_plain_values(
    tmp_path: Path, suffix: str, kind: Any
) -> None:
    out = tmp_path / "out"
    assert copies(tmp_path, ROWS, FileSink(out / f"f.{suffix}"), kind) == 0
    assert flights_in(out) == FLIGHTS


def test_a_later_run_adds_a_file_and_leaves_the_first_one_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert copies(tmp_path, ROWS, FileSink(out / "f.csv")) == 0
    first = (out / "f.csv").read_bytes()
    more = [Flight(1_000 + number, "JFK", 0.0) for number in range(3)]
    data = ROWS + b"".join(msgspec.json.encode(each) + b"\n" for each in more)
    assert copies(tmp_path, data, FileSink(out / "f.csv")) == 0
    assert [path.name for path in shown(out)] == ["f-1.csv", "f.csv"]
    assert (out / "f.csv").read_bytes() == first
    assert flights_in(out) == [*FLIGHTS, *more]


def test_a_file_of_another_program_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "f.csv").write_text("mine")
    (out / "f-1.csv").symlink_to("nowhere")
    assert copies(tmp_path, ROWS, FileSink(out / "f.csv")) == 0
    assert (out / "f.csv").read_text() == "mine"
    assert len(content(out / "f-2.csv").splitlines()) == len(FLIGHTS) + 1


def test_a_file_has_at_most_the_given_rows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert copies(tmp_path, ROWS, FileSink(out / "{origin}-{n}.csv", roll_rows=13)) == 0
    sizes = [len(content(path).splitlines()) - 1 for path in shown(out)]
    assert sorted(sizes) == sorted([13] * 15 + [2, 2, 1])
    assert flights_in(out) == FLIGHTS


def test_a_row_that_cannot_be_written_follows_on_error(tmp_path: Path) -> None:
    out, letters = tmp_path / "out", tmp_path / "letters.jsonl"
    rows = ROWS + b'{"id": 7777, "origin": "' + b"x" * 300 + b'", "delay": 1}\n'
    sink = FileSink(out / "{origin}/f.csv")
    assert copies(tmp_path, rows, sink, on_error="skip") == 0
    assert flights_in(out) == FLIGHTS

    source = tmp_path / "in.jsonl"
    app = App("letters")
    stream = app.stream(Files(source, Jsonl()), Flight, name="rows")
    policy = dead_letter(FileSink(letters))
    stream.to(FileSink(tmp_path / "out2/{origin}/f.csv"), name="out", on_error=policy)
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data2") == 0
    (letter,) = map(json.loads, letters.read_text().splitlines())
    assert "too long" in json.dumps(letter)
    assert flights_in(tmp_path / "out2") == FLIGHTS


def test_a_row_that_cannot_be_written_stops_the_job_after_the_rows_before_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = b'{"id": 1, "origin": "JFK", "delay": 1}\n{"id": 2, "delay": 1}\n'
    sink = FileSink(tmp_path / "out" / "{origin}.csv")
    assert copies(tmp_path, rows, sink, dict[str, Any]) == 1
    assert "in.jsonl line 2: the value has no field 'origin'" in capfd.readouterr().err
    assert [path.name for path in shown(tmp_path / "out")] == ["JFK.csv"]


class Everything(msgspec.Struct, omit_defaults=True, rename="camel"):
    the_text: str = "plain"
    at: datetime | None = None
    day: date | None = None
    tags: list[str] = []


def test_csv_has_every_field_in_its_column(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = [
        Everything('a,"b"\nc', datetime(2024, 1, 1, tzinfo=UTC), date(2024, 1, 2), ["x", "y"]),
        Everything(),
        Everything("é\r"),
    ]
    data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    assert copies(tmp_path, data, FileSink(out / "f.csv"), Everything) == 0
    text = (out / "f.csv").read_bytes().decode()
    assert text == (
        "theText,at,day,tags\n"
        '"a,""b""\nc",2024-01-01T00:00:00Z,2024-01-02,"[""x"",""y""]"\n'
        "plain,,,[]\n"
        '"é\r",,,[]\n'
    )


class Named(TypedDict, total=False):
    name: str
    size: int


def test_the_format_has_options_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = b'{"name": "a;b", "size": 1}\n{"name": "c"}\n'
    assert copies(tmp_path, rows, FileSink(out / "f.x", Csv(delimiter=";")), Named) == 0
    assert (out / "f.x").read_text() == 'name;size\n"a;b";1\nc;\n'
    sink = FileSink(out / "g.x", Csv(header=["name", "size"], encoding="latin-1"))
    assert copies(tmp_path, rows, sink, Named) == 0


def test_columns_of_plain_dicts_are_those_of_all_rows_of_the_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = b'{"a": 1}\n{"b": [1, 2], "a": null}\n{"b": true}\n'
    assert copies(tmp_path, rows, FileSink(out / "f.tsv"), Any) == 0
    assert (out / "f.tsv").read_text() == "a\tb\n1\t\n\t[1,2]\n\ttrue\n"


def test_records_are_written_as_their_values(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sink = FileSink(out / "{origin}.json", JsonArray())
    assert copies(tmp_path, ROWS, sink, Record[Flight]) == 0
    assert flights_in(out) == FLIGHTS


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: FileSink("out"), "does not say which format"),
        (lambda: FileSink("out/f.gz"), "does not say which format"),
        (lambda: FileSink("f.csv", "csv"), "not a file format"),  # type: ignore[arg-type]
        (lambda: FileSink("f.parquet.gz"), "compressed inside"),
        (lambda: FileSink("f.x", Parquet(compression="rar")), "not possible in Parquet"),
        (lambda: FileSink("f.csv", roll_rows=0), "roll_rows=0"),
        (lambda: FileSink("f.csv", roll_after=0), "roll_after"),
        (lambda: FileSink(3), "not a path"),  # type: ignore[arg-type]
    ],
)
def test_options_that_are_not_valid_are_refused(make: Callable[[], FileSink], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        make()


@pytest.mark.parametrize(
    ("kind", "sink", "problem"),
    [
        (int, FileSink("f.csv"), "cannot be rows of CSV"),
        (Flight, FileSink("f.txt", Text()), "not lines of text"),
        (Flight, FileSink("{orign}.csv"), "the field 'orign'"),
        (dict, FileSink("f.csv", Csv(header=["a"])), "needs the type"),
    ],
)
def test_types_that_do_not_fit_are_refused_when_the_graph_is_built(
    kind: Any, sink: FileSink, problem: str
) -> None:
    app = App("refused")
    with pytest.raises(TopologyError, match=problem):
        app.stream("topic", kind).to(sink)


def test_two_sinks_with_the_same_path_are_refused(tmp_path: Path) -> None:
    app = App("twice")
    stream = app.stream("topic", Flight)
    stream.to(FileSink(tmp_path / "f.csv"), name="one")
    stream.to(FileSink(tmp_path / "f.csv"), name="two")
    with pytest.raises(TopologyError, match=r"f\.csv"):
        app.run(embedded=True, once=True, data_dir=tmp_path / "data")


@pytest.mark.skipif(os.getuid() == 0, reason="needs a user other than root")
def test_a_folder_that_may_not_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write files"):
        copies(tmp_path, ROWS, FileSink(tmp_path / "out/f.csv"))


def test_a_path_below_a_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot write files to the folder"):
        copies(tmp_path, ROWS, FileSink(tmp_path / "file/{origin}.csv"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_row_without_columns_is_an_error_of_that_row(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    rows = b'{"id": 1, "origin": "JFK", "delay": 1}\n[1, 2]\n3\n'
    assert copies(tmp_path, rows, FileSink(out), Any, on_error="skip") == 0
    assert flights_of(out) == [Flight(1, "JFK", 1.0)]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json", "jsonl"])
def test_bytes_that_are_not_json_are_an_error_of_that_row(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.txt").write_bytes(b'{"id":1,"origin":"JFK","delay":1}\nhello\n\n')
    out = tmp_path / f"out.{suffix}"
    app = App("bytes")
    app.stream(Files(tmp_path / "in.txt", Text()), bytes).to(FileSink(out), on_error="skip")
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
    assert flights_of(out) == [Flight(1, "JFK", 1.0)]


@pytest.mark.parametrize(
    ("format", "text"), [(Csv(encoding="latin-1"), "日"), (Csv(quotechar=None), "a,b")]
)
def test_a_dict_that_csv_cannot_have_is_an_error_of_that_row(
    tmp_path: Path, format: Csv[Any], text: str
) -> None:
    rows = b"".join(json.dumps({"a": each}).encode() + b"\n" for each in ("x", text, "y"))
    sink = FileSink(tmp_path / "out.csv", format)
    assert copies(tmp_path, rows, sink, dict[str, Any], on_error="skip") == 0
    assert (tmp_path / "out.csv").read_text() == "a\nx\ny\n"
