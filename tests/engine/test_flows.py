"""Records in a user's graph, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import msgspec
import pytest

from streamkit import App, Context, Record, Topic
from streamkit.connectors.files import JsonLines
from streamkit.dataflow.stream import Stream
from streamkit.errors import StageError


class Flight(msgspec.Struct):
    carrier: str
    delay: float | None = None


class Arrival(msgspec.Struct, tag=True):
    at: str


class Departure(msgspec.Struct, tag=True):
    at: str


@dataclass
class Plane:
    tail: str


class Airport(TypedDict):
    code: str


UA, AA = Flight("UA", 30.0), Flight("AA")


@pytest.fixture
def app() -> App:
    return App("flows")


def test_a_function_maps_a_value_or_drops_it_by_returning_none(app: App) -> None:
    flights = app.stream("flights", Flight)

    @app.stage(flights)
    def delays(flight: Flight) -> float | None:
        return flight.delay

    with app.test() as job:
        job.send(flights, UA, AA)
        assert job.output(delays) == [30.0]


def test_the_method_map_passes_on_none_as_a_value(app: App) -> None:
    delays = app.stream("flights", Flight).map(lambda flight: flight.delay)
    with app.test() as job:
        job.send("flights", UA, AA)
        assert job.output(delays) == [30.0, None]


def test_a_generator_may_yield_any_number_of_values_including_none(app: App) -> None:
    flights = app.stream("flights", Flight)

    @app.stage(flights)
    def letters(flight: Flight) -> Iterator[str | None]:
        yield from flight.carrier
        if flight.delay is None:
            yield None

    with app.test() as job:
        job.send(flights, UA, AA)
        assert job.output(letters) == ["U", "A", "A", "A", None]


def test_a_decorated_function_can_still_be_called(app: App) -> None:
    @app.source("flights")
    def flights(flight: Flight) -> str:
        return flight.carrier

    assert flights(UA) == "UA"


def test_a_stage_reads_two_streams(app: App) -> None:
    one, two = app.stream("one", Flight), app.stream("two", Flight)

    @app.stage(one, two)
    def carriers(flight: Flight) -> str:
        return flight.carrier

    merged = one.merge(two).map(lambda flight: flight.carrier)
    with app.test() as job:
        job.send(one, UA)
        job.send(two, AA)
        job.send(one, UA)
        assert job.output(carriers) == ["UA", "AA", "UA"]
        assert job.output(merged) == ["UA", "AA", "UA"]


def numbered(number: int, flight: Flight) -> int:
    return number


def test_a_stream_has_any_number_of_readers(app: App) -> None:
    flights = app.stream("flights", Flight)
    readers = [flights.map(partial(numbered, number)) for number in range(3)]
    with app.test() as job:
        job.send(flights, UA)
        assert [job.output(reader) for reader in readers] == [[0], [1], [2]]


def test_stream_methods_can_be_chained(app: App) -> None:
    def shouted(words: Stream[str], mark: str) -> Stream[str]:
        return words.map(lambda word: word.upper() + mark)

    words = (
        app.stream("lines", str)
        .filter(lambda line: line != "")
        .flat_map(str.split)
        .pipe(shouted, mark="!")
    )
    words.to("words", key=lambda word: word[0])
    with app.test() as job:
        job.send("lines", "a bc", "", "d")
        assert job.output(words) == ["A!", "BC!", "D!"]
        assert [(each.key, each.value) for each in job.records("words")] == [
            (b"A", b"A!"),
            (b"B", b"BC!"),
            (b"D", b"D!"),
        ]


def test_a_context_has_the_origin_of_a_record(app: App) -> None:
    flights = app.stream("flights", Flight)

    @app.stage(flights)
    def where(flight: Flight, context: Context[str]) -> str:
        return f"{context.topic}-{context.partition}@{context.offset} {context.key}"

    @app.stage(flights)
    def keys(flight: Flight, context: Context[bytes]) -> Iterator[Any]:
        yield context.key
        yield context.timestamp_ms

    with app.test() as job:
        job.send(flights, Record(UA, b"k", 5), Record(AA, b"l", 6))
        assert job.output(where) == ["flights-0@0 k", "flights-0@1 l"]
        assert job.output(keys) == [b"k", 5, b"l", 6]


def test_an_output_keeps_the_timestamp_and_the_key_of_its_input(app: App) -> None:
    app.stream("flights", Flight).flat_map(lambda flight: [1, 2]).to("numbers")
    with app.test() as job:
        job.send("flights", Record(UA, b"k", 5))
        assert [(each.key, each.timestamp_ms) for each in job.records("numbers")] == [(b"k", 5)] * 2


@pytest.mark.parametrize(
    ("kind", "stored", "value"),
    [
        (bytes, b"\xff\x00", b"\xff\x00"),
        (str, "größe".encode(), "größe"),
        (Flight, b'{"carrier":"UA","delay":30}', UA),
        (Plane, b'{"tail":"N1"}', Plane("N1")),
        (Airport, b'{"code":"EWR"}', {"code": "EWR"}),
        (dict, b'{"a":[1]}', {"a": [1]}),
        (list[int], b"[1,2]", [1, 2]),
        (int, b"7", 7),
        (Arrival | Departure, b'{"type":"Departure","at":"EWR"}', Departure("EWR")),
    ],
)
def test_a_source_gets_values_of_its_annotated_type(
    app: App, kind: Any, stored: bytes, value: Any
) -> None:
    @app.source("values")
    def values(row: kind) -> Any:
        return row

    with app.test() as job:
        job.send("values", stored)
        assert job.output(values) == [value]


def test_a_source_gets_whole_records_if_annotated(app: App) -> None:
    @app.source("raw")
    def raw(record: Record[bytes]) -> Any:
        return record

    @app.source("bare")
    def bare(record: Record) -> Any:  # type: ignore[type-arg]  # bytes without a type argument
        return record

    @app.source("decoded")
    def decoded(record: Record[Flight]) -> Any:
        return record

    with app.test() as job:
        for topic in ("raw", "bare", "decoded"):
            job.send(topic, Record(b'{"carrier":"AA"}', b"k", 5))
        assert job.output(raw) == [Record(b'{"carrier":"AA"}', b"k", 5, 0, 0, "raw")]
        assert job.output(bare) == [Record(b'{"carrier":"AA"}', b"k", 5, 0, 0, "bare")]
        assert job.output(decoded) == [Record(AA, b"k", 5, 0, 0, "decoded")]


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        (lambda flight: flight.carrier, b"UA"),
        (lambda flight: b"\xff", b"\xff"),
        (lambda flight: "", b""),
        (lambda flight: None, None),
    ],
)
def test_a_key_is_bytes_str_or_none(
    app: App, key: Callable[[Any], Any], stored: bytes | None
) -> None:
    app.stream("flights", Flight).to("out", key=key)
    with app.test() as job:
        job.send("flights", Record(UA, b"incoming"))
        assert [each.key for each in job.records("out")] == [stored]


def test_a_key_of_another_type_is_refused(app: App) -> None:
    app.stream("numbers", int).to("out", key=lambda number: number)  # type: ignore[arg-type,return-value]
    with app.test() as job, pytest.raises(StageError, match="not int"):
        job.send("numbers", 1)


def test_a_record_returned_by_a_sink_is_written_with_its_key_and_timestamp(app: App) -> None:
    flights = app.stream("flights", Flight)

    @app.sink(flights, to="out")
    def out(flight: Flight) -> Record[bytes]:
        return Record(b"mine", b"my key", 9)

    with app.test() as job:
        job.send(flights, UA)
        (record,) = job.records("out")
        assert (record.value, record.key, record.timestamp_ms) == (b"mine", b"my key", 9)


def test_a_sink_that_returns_none_writes_no_record(app: App) -> None:
    flights = app.stream("flights", Flight)

    @app.sink(flights, to=Topic("late", Flight))
    def late(flight: Flight) -> Flight | None:
        return flight if flight.delay else None

    with app.test() as job:
        job.send(flights, UA, AA)
        assert job.output("late") == [b'{"carrier":"UA","delay":30.0}']


@pytest.mark.parametrize(
    ("value", "stored"),
    [(b"raw", b"raw"), ("text", b"text"), ({"a": 1}, b'{"a":1}'), (7, b"7"), (None, b"null")],
)
def test_values_are_written_raw_as_text_or_as_json(app: App, value: Any, stored: bytes) -> None:
    app.stream("in", bytes).map(lambda _: value).to("out")
    with app.test() as job:
        job.send("in", b"")
        assert job.output("out") == [stored]


def test_a_json_lines_file_can_be_a_sink(app: App) -> None:
    flights = app.stream("flights", Flight)
    flights.to(JsonLines("never-opened"), name="file")
    with app.test() as job:
        job.send(flights, AA)
        (file,) = [node for node in app.topology.nodes if node.name == "file"]
        assert file.kind == "sink"


def test_a_send_on_which_a_stage_fails_has_no_output(app: App) -> None:
    numbers = app.stream("numbers", int)
    halves = numbers.map(lambda number: 10 // number)
    with app.test() as job:
        job.send(numbers, 5)
        with pytest.raises(StageError, match=r"numbers-0 offset 2: ZeroDivisionError") as caught:
            job.send(numbers, 2, 0)
        assert f"{__file__}:" in str(caught.value)
        assert job.output(halves) == [2]


def test_the_error_has_the_line_of_the_user_code_and_not_of_a_library(app: App) -> None:
    import json

    def parsed(text: str) -> Any:
        return json.loads(text)  # the user's line

    app.stream("texts", str).map(parsed)
    with app.test() as job, pytest.raises(StageError) as caught:
        job.send("texts", "{")
    assert "in parsed: return json.loads(text)  # the user's line" in str(caught.value)


def test_the_error_has_the_line_of_the_user_code_in_a_folder_named_streamkit(app: App) -> None:
    names: dict[str, Any] = {}
    code = "def failing(value):\n    raise ValueError(value)\n"
    exec(compile(code, "/home/me/streamkit/app.py", "exec"), names)
    app.stream("texts", str).map(names["failing"])
    with app.test() as job, pytest.raises(StageError) as caught:
        job.send("texts", "x")
    assert "at: /home/me/streamkit/app.py:2 in failing" in str(caught.value)


def test_a_value_is_shown_cut_and_escaped(app: App) -> None:
    app.stream("texts", str).map(lambda text: 1 // 0)
    with app.test() as job, pytest.raises(StageError) as caught:
        job.send("texts", "\x1b[31m" + "x" * 10_000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
