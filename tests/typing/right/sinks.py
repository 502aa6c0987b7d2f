"""Sinks: topics, connectors, functions and classes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import assert_type

from streamkit import App, Context, Record, Topic
from streamkit.connectors.files import JsonLines
from streamkit.formats import Avro, Json, MessagePack

from ..rows import Early, Flight, Late

written: list[Late] = []
app = App("sinks")
flights = app.stream("flights", Flight)
late = app.stream("late", Late)
either_topic = Topic("either-2", Late | Early)
either = app.stream("either", Late | Early)


@app.sink(late, to="late-1", key=lambda late: late.carrier, compression="lz4", linger=0.1)
def to_name(late: Late) -> Late | None:
    return late if late.minutes else None


@app.sink(late, to=Topic("late-2", Late, partitions=4), linger=timedelta(seconds=1))
def to_topic(late: Late) -> Late | None:
    return late


@app.sink(flights, to=Topic("late-3", Late), key=lambda flight: flight.carrier.encode())
def shaped(flight: Flight) -> Late:
    return Late(flight.carrier, 1.0)


@app.sink(flights, to=Topic("late-4", Late))
def as_record(flight: Flight) -> Record[Late]:
    return Record(Late(flight.carrier, 1.0), key=b"UA")


@app.sink(flights, to=Topic("late-5", Late))
def as_raw_record(flight: Flight) -> Record[bytes] | None:
    return Record(b"{}", key=b"UA")


@app.sink(flights, to=Topic("late-6", Late))
def several(flight: Flight) -> Iterator[Late]:
    yield Late(flight.carrier, 1.0)


@app.sink(flights, to=Topic("late-7", Late))
def with_context(flight: Flight, context: Context[str]) -> Late:
    return Late(context.key, 1.0)


@app.sink(flights, to=Topic("either", Late | Early))
def one_of_two(flight: Flight) -> Late:
    return Late(flight.carrier, 1.0)


@app.sink(late, to=JsonLines("late.jsonl"))
def to_file(late: Late) -> Late:
    return late


@app.sink(late)
def show(late: Late) -> None:
    written.append(late)


@app.sink(late, on_error="skip", name="call")
async def call(late: Late) -> None:
    written.append(late)


@app.sink(late, batch=1000)
def write(rows: list[Late]) -> None:
    written.extend(rows)


@app.sink(late, batch=1000)
async def write_later(rows: list[Late]) -> None:
    written.extend(rows)


class Table:
    def open(self) -> None: ...

    async def write(self, rows: list[Late]) -> None: ...

    async def flush(self) -> None: ...

    def close(self) -> None: ...


@app.sink(flights, to=Table(), key=lambda flight: flight.carrier)
def to_table(flight: Flight) -> Late | None:
    return Late(flight.carrier, 1.0)


class Lines:
    """A custom format."""

    def loads(self, data: bytes) -> list[str]:
        return data.decode().splitlines()

    def dumps(self, value: list[str]) -> bytes:
        return "\n".join(value).encode()


@app.sink(flights, to="lines-1", value=Lines(), max_request_size=4 << 20)
def as_lines(flight: Flight) -> list[str]:
    return [flight.carrier]


app.stream("lines", list[str], value=Lines()).to("lines-2", value=Lines())
late.to("late-11", max_request_size=4 << 20, linger=timedelta(seconds=1))


@app.sink(late, to=Topic("keys-1", Late), key=lambda late: late.minutes, key_format=Json(float))
def with_a_key_format(late: Late) -> Late:
    return late


@app.sink(flights, to="keys-2", key=lambda flight: flight.flight, key_format=Avro(int))
def with_a_key_format_by_name(flight: Flight) -> Late:
    return Late(flight.carrier, 1.0)


late.to("keys-3", key=lambda late: late.minutes, key_format=MessagePack(), value=Json(Late))
late.to(Topic("keys-4", Late), key=lambda late: late, key_format=Lines(), value=Avro())
late.to("late-8", key=lambda late: late.carrier, compression="zstd", batch_size=1 << 20)
late.to(Topic("late-9", Late), key=lambda late: late.carrier.encode(), linger=1)
late.to(either_topic, key=lambda late: late.carrier)
late.to(Topic("late-10", partitions=4), key=lambda late: None)
late.to(JsonLines("late-2.jsonl"))
late.to(Table())
either.to(Topic("either-3", Late | Early))


def use(row: Late) -> None:
    assert_type(to_name(late=row), Late | None)
    write([row])
