"""Files as a source: what rows are, which files are read, and errors with their place."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

import lz4.frame
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import App, Record
from streamkit.connectors.files import Csv, Files, JsonArray, Jsonl, Text
from streamkit.errors import DataError, StageError, StreamKitError, TopologyError, UsageError
from tests.connectors.reading import FLIGHTS, Flight, read, read_text


class Mapping(TypedDict):
    carrier: str
    number: int


class Everything(msgspec.Struct):
    when: datetime
    day: date
    price: Decimal
    is_late: bool
    note: str = "none"


CSV = "carrier,number,delay\nUA,1,3.5\nAA,2,\nB6,3,-2.0\n"


def test_rows_of_csv_become_objects(tmp_path: Path) -> None:
    assert read_text(tmp_path / "f.csv", CSV, Csv(), Flight) == FLIGHTS


@pytest.mark.parametrize(
    "data",
    [
        CSV.rstrip("\n"),
        CSV.replace("\n", "\r\n"),
        "\ufeff" + CSV,
        CSV.replace("UA", '"UA"'),
        CSV.replace("\nAA", "\n\n\nAA"),
        CSV.replace("AA,2,", "AA,2,NA"),
        "delay,number,more,carrier\n3.5,1,x,UA\n,2,x,AA\n-2.0,3,x,B6\n",
    ],
    ids=["no last line end", "crlf", "bom", "quotes", "empty lines", "NA", "other columns"],
)
def test_csv_files_may_differ(tmp_path: Path, data: str) -> None:
    assert read_text(tmp_path / "f.csv", data, Csv(), Flight) == FLIGHTS


def test_rows_of_csv_may_be_dicts_or_lists(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    assert read_text(path, CSV, Csv(), dict)[1] == {"carrier": "AA", "number": "2", "delay": ""}
    assert read_text(path, CSV, Csv(), list)[0] == ["UA", "1", "3.5"]
    kept = read_text(path, "a,b\n1,2\n,4\n", Csv(), dict[str, int | None])
    assert kept == [{"a": 1, "b": 2}, {"a": None, "b": 4}]
    assert read_text(path, CSV, Csv(), Mapping)[0] == {"carrier": "UA", "number": 1}


def test_texts_are_converted_to_the_types_of_the_fields(tmp_path: Path) -> None:
    data = "when,day,price,is_late\n2013-01-01T10:00:00Z,2013-01-02,12.30,true\n"
    (row,) = read_text(tmp_path / "f.csv", data, Csv(), Everything)
    assert row.price == Decimal("12.30")
    assert row.is_late is True
    assert (row.day, row.note) == (date(2013, 1, 2), "none")


def test_columns_can_be_named_where_the_file_has_no_header(tmp_path: Path) -> None:
    form = Csv[Any](header=["carrier", "number"], delimiter=";")
    assert read_text(tmp_path / "f.csv", "UA;1\nAA;2\n", form, Flight) == [
        Flight("UA", 1),
        Flight("AA", 2),
    ]


def test_the_type_may_be_that_of_the_format(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(CSV)
    app = App("files")
    flights = app.stream(Files(tmp_path / "f.csv", Csv(Flight)))
    with app.test() as job:
        job.read(flights)
        assert job.output(flights) == FLIGHTS


def test_values_can_be_sent_in_a_test(tmp_path: Path) -> None:
    app = App("files")
    flights = app.stream(Files(tmp_path / "f.csv", Csv(Flight)))
    with app.test() as job:
        job.send(flights, *FLIGHTS)
        assert job.output(flights) == FLIGHTS


def test_json_lines_become_objects(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + b"\n\r\n".join(map(msgspec.json.encode, FLIGHTS))
    assert read_text(tmp_path / "f.jsonl", data, Jsonl(), Flight) == FLIGHTS


def test_items_of_a_json_array_become_objects(tmp_path: Path) -> None:
    data = msgspec.json.encode(FLIGHTS)
    assert read_text(tmp_path / "f.json", data, JsonArray(), Flight) == FLIGHTS


def test_lines_of_text_keep_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    assert read_text(path, "a\r\n\nb", Text(), str) == ["a", "", "b"]
    assert read_text(path, b"\xe4\n", Text("latin-1"), str) == ["ä"]
    assert read_text(path, b"\xff\n", Text(), bytes) == [b"\xff"]


def lz4_of(data: bytes) -> bytes:
    return bytes(lz4.frame.compress(data))


def zstd_of(data: bytes) -> bytes:
    zstd = pytest.importorskip("backports.zstd", reason="Python 3.14 has it built in")
    return bytes(zstd.compress(data))


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("lz4", lz4_of),
        ("zst", zstd_of),
    ],
)
def test_compressed_files_are_read_and_damage_is_an_error(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    rows = [f"{number},{number * 7919 % 1_000_003}" for number in range(50_000)]
    data = compress(("\n".join(["a,b", *rows]) + "\n").encode())
    path = tmp_path / f"f.csv.{suffix}"
    found = read_text(path, data, Csv(), dict[str, int])
    assert sum(row["a"] for row in found) == sum(range(50_000))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=f"f.csv.{suffix}"):
        read(Files(path, Csv()), dict[str, int])


def test_files_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/9.txt", "a/deep/er/1.txt", "a/10.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    found = read(Files(f"{tmp_path}/**/*.txt", Text()), str)
    assert found == ["a/9.txt", "a/deep/er/1.txt", "b/2.txt"]
    both: list[str | Path] = [tmp_path / "b/2.txt", f"{tmp_path}/b/*.txt"]
    assert read(Files(both, Text()), str) == ["b/2.txt"]


def test_a_path_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file matches"):
        read(Files(tmp_path / "*.csv", Csv()), dict)
    assert read(Files(tmp_path / "*.csv", Csv(), may_be_empty=True), dict) == []


@pytest.mark.parametrize("data", ["", "a,b\n"])
def test_a_file_without_rows_is_allowed(tmp_path: Path, data: str) -> None:
    assert read_text(tmp_path / "f.csv", data, Csv(), dict) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("carrier,number\nUA,1\nAA,two\n", r"f\.csv line 3: .*number"),
        ("carrier,number\nUA,1\n\nAA\n", r"f\.csv line 4: the row has 1 field, .* 2 columns"),
        ('carrier,number\n"U\nA",1\nAA,2,3\n', r"f\.csv line 4: the row has 3 fields"),
        ("carrier\nUA\n", r"f\.csv line 2: the file has no column 'number'"),
        (b"carrier,number\nU\xffA,1\n", r"f\.csv line 2: .*'carrier' is not valid utf-8"),
    ],
)
def test_an_invalid_row_is_an_error_with_its_line(
    tmp_path: Path, data: str | bytes, message: str
) -> None:
    with pytest.raises(StageError, match=message):
        read_text(tmp_path / "f.csv", data, Csv(), Flight)


def test_an_invalid_row_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(CSV.replace("AA,2", "AA,two").encode() + b"U\xff,4,\n")
    app = App("files")
    flights = app.stream(Files(path, Csv(Flight)), on_error="skip")
    with app.test() as job:
        job.read(flights)
        assert job.output(flights) == [FLIGHTS[0], FLIGHTS[2]]


def test_a_later_stage_names_the_line_too(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(CSV)
    app = App("files")
    flights = app.stream(Files(tmp_path / "f.csv", Csv(Flight)))
    flights.map(lambda flight: flight.number // (flight.number - 2), name="divided")
    with app.test() as job, pytest.raises(StageError, match=r"'divided' failed on .*f\.csv line 3"):
        job.read(flights)


def test_a_quote_that_is_never_closed_is_an_error_with_its_line(tmp_path: Path) -> None:
    data = 'a,b\n1,"2\n' + f"{'x' * 999}\n" * 20_000
    with pytest.raises(DataError, match=r"f\.csv: a row that ends at line .*\n.*quote"):
        read_text(tmp_path / "f.csv", data, Csv(), dict)


@pytest.mark.parametrize("data", ['a,b\n1,"2\n3,4\n', 'a,b\n1,2\n3,"4', 'a,b\n1,2\n"3,4\n\n'])
def test_a_quote_that_is_open_at_the_end_is_an_error(tmp_path: Path, data: str) -> None:
    with pytest.raises(DataError, match=r"f\.csv: the row at line [23] is not complete"):
        read_text(tmp_path / "f.csv", data, Csv(), dict)


@pytest.mark.parametrize("data", [",\n", "\n1,2\n"])
def test_a_header_that_names_no_columns_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(DataError, match="does not name the columns"):
        read_text(tmp_path / "f.csv", data, Csv(), dict)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Csv[Any](encoding="utf-16"),
        lambda: Csv[Any](delimiter=",,"),
        lambda: Csv[Any](header=False),
        lambda: Files("a.csv", "csv"),  # type: ignore[arg-type]
        lambda: Files([], Csv[Any]()),
        lambda: Files("a.json", JsonArray[Any](), follow=True),
        lambda: Files("a.csv", Csv[Any](), every=-1),
    ],
)
def test_options_that_are_not_valid_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()


def test_types_that_rows_cannot_have_are_refused() -> None:
    app = App("files")
    with pytest.raises(TopologyError, match="rows of CSV cannot be"):
        app.stream(Files("a.csv", Csv()), int)
    with pytest.raises(StreamKitError, match="only a topic has this option"):
        app.stream(Files("a.csv", Csv()), Flight, start="end")
    with pytest.raises(TopologyError, match="have no type"):
        app.stream(Files("a.csv", Csv()))


def test_a_decorated_source_gets_values_or_records(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(CSV)
    app = App("files")

    @app.source(Files(tmp_path / "f.csv", Csv(Flight)))
    def numbers(flight: Flight) -> int | None:
        return flight.number if flight.delay else None

    @app.source(Files(tmp_path / "f.csv", Csv()))
    def lines(row: Record[Flight]) -> tuple[str, int]:
        return row.topic, row.offset

    with app.test() as job:
        job.read(numbers)
        job.read(lines)
        assert job.output(numbers) == [1, 3]
        assert job.output(lines) == [(str(tmp_path / "f.csv"), at) for at in (2, 3, 4)]


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=40))
def test_what_the_csv_module_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path = tmp_path_factory.mktemp("files") / "f.csv"
    found = read_text(path, written.getvalue(), Csv(), list)
    assert found == [list(row) for row in rows]


@given(st.lists(st.sampled_from(['{"a": 1}', '{"a":', "1}", '{"a": 1} {"a": 2}', "{", "}", "[1]"])))
def test_a_line_of_json_is_one_value_whatever_the_lines_around_it_are(lines: list[str]) -> None:
    decoder = Jsonl().decoder(Any)
    assert decoder is not None
    assert decoder.many is not None
    rows = [line.encode() for line in lines]

    def alone(row: bytes) -> Any:
        try:
            return decoder.one(row)
        except msgspec.DecodeError:
            return "not valid"

    expected = [alone(row) for row in rows]
    try:
        found = decoder.many(rows)
    except (DataError, msgspec.DecodeError):
        assert "not valid" in expected
    else:
        assert found == expected
