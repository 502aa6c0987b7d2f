"""Files as tables: CSV and JSON lines, read at each start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import App
from streamkit.connectors.tables import CsvTable, JsonLinesTable
from streamkit.dataflow.explain import explain
from streamkit.errors import DataError, StageError, TopologyError, UsageError


class Airport(msgspec.Struct, frozen=True):
    code: str
    name: str
    height: int | None = None
    since: int = 0


class Flight(msgspec.Struct, frozen=True):
    id: int
    to: str
    at: int = 0


def shown(flight: Flight, airport: Airport | None) -> str:
    return f"{flight.id}{airport.name if airport else '-'}"


def airports_app(table: CsvTable | JsonLinesTable, **options: Any) -> tuple[App, Any, Any, Any]:
    app = App("flights")
    flights = app.stream("flights", Flight, event_time=lambda flight: flight.at)
    airports = app.table(
        table,
        Airport,
        key=lambda airport: airport.code,
        event_time=lambda airport: airport.since,
        out_of_order=1,
    )
    results = flights.lookup(
        airports, on=lambda flight: flight.to, combine=shown, how="left", **options
    )
    return app, flights, airports, results


def written(folder: Path, text: str, name: str = "airports.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# --- Rows ------------------------------------------------------------------------------


def test_a_csv_file_gives_rows_with_the_types_of_their_fields(tmp_path: Path) -> None:
    path = written(
        tmp_path, 'code,name,height,since,more\nBER,"Berlin, East",48,5,x\nAMS,Amsterdam,,0,\n'
    )
    assert CsvTable(path).rows(Airport) == [
        Airport("BER", "Berlin, East", 48, 5),
        Airport("AMS", "Amsterdam", None, 0),
    ]


def test_a_csv_file_has_its_own_delimiter_encoding_and_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("code;name;height\nMUC;München;?\n".encode("latin-1"))
    table = CsvTable(path, delimiter=";", encoding="latin-1", missing=("?",))
    assert table.rows(Airport) == [Airport("MUC", "München", None)]


def test_a_csv_file_may_have_long_fields_and_a_delimiter_at_the_end(tmp_path: Path) -> None:
    path = written(tmp_path, f"code,name,\nBER,{'x' * 200_000},\n")
    assert CsvTable(path).rows(Airport) == [Airport("BER", "x" * 200_000)]


def test_a_jsonl_file_gives_rows_and_empty_lines_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path, '{"code":"BER","name":"Berlin"}\n\n  \n{"code":"AMS","name":"A"}')
    assert JsonLinesTable(path).rows(Airport) == [Airport("BER", "Berlin"), Airport("AMS", "A")]


def test_empty_files_have_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    assert CsvTable(path).rows(Airport) == JsonLinesTable(path).rows(Airport) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("code,name,height\nBER,Berlin,48\nAMS,Amsterdam,low\n", r"airports\.csv:3: .*height"),
        ("code,name\nBER,Berlin\n\nAMS\n", r"airports\.csv:4: .* one field for .* 2 columns"),
        ("code,name,height\nBER,Berlin\n", r"airports\.csv:2: .* one field for .* 3 columns"),
        ("code,name\nBER,Berlin,48\n", r"airports\.csv:2: .* one field for .* 2 columns"),
        ("code,name,code\nBER,Berlin,AMS\n", r"airports\.csv has several columns 'code'"),
        ("code\nBER\n", r"airports\.csv:2: .*name"),
        ("code,name\nBER,NA\n", r"airports\.csv:2: .*name"),
    ],
)
def test_an_invalid_csv_row_is_an_error_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        CsvTable(written(tmp_path, text)).rows(Airport)


@pytest.mark.parametrize("line", ['{"code":"AMS"}', "{", "[]", "\xff"])
def test_an_invalid_json_row_is_an_error_with_its_line(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, '{"code":"BER","name":"Berlin"}\n\n' + line + "\n", "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl:3: "):
        JsonLinesTable(path).rows(Airport)


@pytest.mark.parametrize("kind", [CsvTable, JsonLinesTable])
def test_a_missing_file_is_an_error_with_its_path(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(DataError, match=r"cannot read the table .*nothing\.csv"):
        kind(tmp_path / "nothing.csv").rows(Airport)


def test_a_file_with_another_encoding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("code,name\nMUC,München\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot read the table"):
        CsvTable(path).rows(Airport)


# --- Lookups ---------------------------------------------------------------------------


def test_a_file_is_read_before_the_streams_and_again_at_each_start(tmp_path: Path) -> None:
    path = written(tmp_path, "code,name\nBER,Berlin\nAMS,Amsterdam\n")
    app, flights, airports, results = airports_app(CsvTable(path))
    with app.test() as job:
        job.send(flights, Flight(1, "BER"))
        written(tmp_path, "code,name\nAMS,Schiphol\n")
        job.restart()
        job.send(flights, Flight(2, "BER"), Flight(3, "AMS"))
        assert job.output(results) == ["1Berlin", "2-", "3Schiphol"]
        assert job.state(airports, "AMS") == Airport("AMS", "Schiphol")


VERSIONS = "code,name,since\nBER,New,500\nBER,Old,100\nAMS,Amsterdam,1200\n"


def test_a_file_has_the_rows_of_several_times(tmp_path: Path) -> None:
    app, flights, _, results = airports_app(CsvTable(written(tmp_path, VERSIONS)), as_of=True)
    with app.test() as job:
        job.send(flights, *(Flight(at, "BER", at) for at in (99, 100, 499, 500, 900)))
        job.drain()
        assert job.output(results) == ["99-", "100Old", "499Old", "500New", "900New"]


def test_reading_a_file_again_does_not_change_what_lookups_find(tmp_path: Path) -> None:
    text = VERSIONS.replace("1200", "1600")
    app, flights, _, results = airports_app(CsvTable(written(tmp_path, text)), as_of=True)
    with app.test() as job:
        job.send(flights, Flight(0, "BER", 450))
        job.restart()
        job.send(flights, *(Flight(at, "BER", at) for at in (499, 550, 700)))
        job.drain()
        assert job.output(results) == ["0Old", "499Old", "550New", "700New"]


def test_rows_that_are_no_longer_in_a_file_are_not_found(tmp_path: Path) -> None:
    path = written(tmp_path, "code,name,since\nBER,Berlin,100\nAMS,Amsterdam,100\n")
    app, flights, _, results = airports_app(CsvTable(path), as_of=True)
    with app.test() as job:
        job.send(flights, Flight(1, "BER", 200), Flight(0, "AMS", 201))
        written(tmp_path, "code,name,since\nAMS,Amsterdam,100\n")
        job.restart()
        job.send(flights, Flight(2, "BER", 300), Flight(3, "AMS", 300))
        job.drain()
        assert job.output(results) == ["1Berlin", "0Amsterdam", "2-", "3Amsterdam"]


def test_a_file_is_not_explained_as_stored_data(tmp_path: Path) -> None:
    app, _, _, _ = airports_app(CsvTable(tmp_path / "airports.csv"))
    assert explain(app.topology).states == []


def test_a_row_whose_key_fails_names_the_file(tmp_path: Path) -> None:
    app = App("flights")
    flights = app.stream("flights", Flight)
    airports = app.table(
        CsvTable(written(tmp_path, "code,name\nBER,Berlin\n")), Airport, key=lambda row: None
    )
    flights.lookup(airports, on=lambda flight: flight.to, combine=shown).to("t")
    with pytest.raises(StageError, match="airports"), app.test():
        pass


# --- Files that are refused ------------------------------------------------------------


def test_a_file_needs_a_key_and_a_type(tmp_path: Path) -> None:
    table: Any = App("flights").table
    with pytest.raises(TopologyError, match="give the table key="):
        table(CsvTable(tmp_path / "a.csv"), Airport)
    with pytest.raises(TopologyError, match="have no type"):
        table(CsvTable(tmp_path / "a.csv"))


def test_a_file_has_no_options_of_a_topic(tmp_path: Path) -> None:
    table: Any = App("flights").table
    with pytest.raises(UsageError, match="start"):
        table(CsvTable(tmp_path / "a.csv"), Airport, key=lambda row: row.code, start="end")


@pytest.mark.parametrize("rows", ["airports", CsvTable("airports.csv")])
def test_an_unknown_option_of_a_table_is_refused(rows: Any) -> None:
    table: Any = App("flights").table
    with pytest.raises(UsageError, match="'ttl' is not a valid option"):
        table(rows, Airport, key=lambda row: row.code, ttl=1)
