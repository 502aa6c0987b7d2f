"""Sinks whose types do not match their input or their target."""

from __future__ import annotations

from collections.abc import Iterator

from streamkit import App, Context, Record, Topic
from streamkit.formats import Json

from ..rows import Early, Flight, Late

app = App("sinks")
late_topic = Topic("out", Late)
flights = app.stream("flights", Flight)
late = app.stream("late", Late)
either = app.stream("either", Late | Early)


class Table:
    def open(self) -> None: ...

    def write(self, rows: list[Late]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def key_of_a_flight(flight: Flight) -> str:
    return flight.carrier


@app.sink(late, to="out")  # error: Late
def wrong_value(flight: Flight) -> Flight:
    return flight


@app.sink(late, to="out", key=lambda row: row.callsign)  # error: callsign
def key_of_an_unknown_field(row: Late) -> Late:
    return row


@app.sink(late, to="out", key=lambda row: row.minutes)  # error: float
def key_that_is_a_number(row: Late) -> Late:
    return row


@app.sink(late, to="out", key=key_of_a_flight)  # error: Flight
def key_of_another_type(row: Late) -> Late:
    return row


@app.sink(late, to="out", compression="lzma")  # error: sink
def unknown_compression(row: Late) -> Late:
    return row


@app.sink(late, to="out", batch=10)  # error: sink
def batch_of_a_topic(row: Late) -> Late:
    return row


@app.sink(late, to="out", colour="red")  # error: sink
def unknown_option(row: Late) -> Late:
    return row


@app.sink(late, to="out", max_request_size="1MiB")  # error: sink
def size_as_text(row: Late) -> Late:
    return row


@app.sink(late, to="out", value=Table())  # error: sink
def invalid_format(row: Late) -> Late:
    return row


@app.sink(late, linger=1)  # error: sink
def option_of_a_topic(row: Late) -> None: ...


@app.sink(late, to=42)  # error: sink
def to_a_number(row: Late) -> Late:
    return row


@app.sink(late, to=Topic("out", Flight))  # error: Flight
def another_topic(row: Late) -> Late:
    return row


@app.sink(late, to=Topic("out", Flight))  # error: Flight
def another_topic_from_a_generator(row: Late) -> Iterator[Late]:
    yield row


@app.sink(late, to=Topic("out", Flight))  # error: Flight
def another_topic_with_context(row: Late, context: Context[str]) -> Late:
    return row


@app.sink(late, to=Topic("out", Flight))  # error: Flight
def another_topic_by_record(row: Late) -> Record[Late]:
    return Record(row)


@app.sink(flights, to=Table())  # error: Late
def other_rows_than_the_connector(flight: Flight) -> Flight:
    return flight


@app.sink(late)  # error: Late
def writer_of_another_type(flight: Flight) -> None: ...


@app.sink(late)  # error: Late
def list_without_batch(rows: list[Late]) -> None: ...


@app.sink(late)  # error: Late
def returns_a_value_without_a_target(row: Late) -> Late:
    return row


@app.sink(late)  # error: Late
def yields_values_without_a_target(row: Late) -> Iterator[Late]:
    yield row


@app.sink(late, batch=10)  # error: Late
def one_row_under_batch(row: Late) -> None: ...


@app.sink(late, batch=10)  # error: Late
def other_rows_under_batch(rows: list[Flight]) -> None: ...


@app.sink(late, batch=10)  # error: Late
def returns_the_rows(rows: list[Late]) -> list[Late]:
    return rows


@app.sink(late, batch=10)  # error: Late
async def one_row_under_batch_async(row: Late) -> None: ...


@app.sink(late, batch="10")  # error: sink
def batch_that_is_not_a_number(rows: list[Late]) -> None: ...


@app.sink  # error: sink
def bare(row: Late) -> None: ...


late.to("out", key=lambda row: row.callsign)  # error: callsign
late.to("out", key=lambda row: row.minutes)  # error: float
late.to("out", key=key_of_a_flight)  # error: Flight
late.to("out", compression="lzma")  # error: compression
late.to("out", colour="red")  # error: colour / to
late.to("out", max_request_size="1MiB")  # error: max_request_size
late.to("out", value=Table())  # error: value
late.to("out", key=lambda row: row.callsign, key_format=Json())  # error: callsign
late.to("out", key=lambda row: row.minutes, key_format=5)  # error: key_format
late.to("out", key_format=Json())  # error: to
late.to("out", linger="1s")  # error: linger
late.to(Topic("out", Flight))  # error: Flight
either.to(late_topic)  # error: Late
flights.to(Table())  # error: Table
late.to(42)  # error: int / 42
