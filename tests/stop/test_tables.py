"""Jobs with tables in real processes: a table is read to its end before the streams begin."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from streamkit.sync import Client
from tests.stop.job_environment import Place
from tests.stop.running import Job

APP = """
import msgspec
from streamkit import App
from streamkit.connectors.tables import CsvTable, JsonLinesTable

class Order(msgspec.Struct):
    id: int
    customer: str

class Customer(msgspec.Struct):
    id: str
    name: str

app = App("shop")
orders = app.stream("orders", Order)
customers = app.table({rows}, Customer, name="customers"{options})
results = orders.lookup(
    customers, on=lambda order: order.customer, how="left", name="named",
    combine=lambda order, customer: f"{{order.id}} {{customer.name if customer else '-'}}",
)
results.to("named-orders")
"""
CUSTOMERS = 3_000


def app_in(folder: Path, rows: str = '"customers"', options: str = "") -> Path:
    path = folder / "app.py"
    path.write_text(APP.format(rows=rows, options=options))
    return path


def send(place: Place, topic: str, rows: Iterable[tuple[bytes, object]]) -> None:
    """Write values with keys; None is an empty value. Create the topic if it is missing."""
    pairs = list(rows)
    with Client.connect(place.address) as client:
        if topic not in {each.name for each in client.admin.list_topics()}:
            client.admin.create_topic(topic, 1)
        with client.producer(topic) as producer:
            producer.send_many(
                [b"" if value is None else json.dumps(value).encode() for _, value in pairs],
                keys=[key for key, _ in pairs],
            )


def order(number: int, customer: str) -> tuple[bytes, object]:
    return b"", {"id": number, "customer": customer}


def customer(key: str, name: str) -> tuple[bytes, object]:
    return key.encode(), {"id": key, "name": name}


def named(place: Place) -> list[str]:
    return [value.decode() for value in place.values("named-orders")]


def once(place: Place, app: Path) -> Job:
    job = place.run(app, "--once")
    assert job.process.returncode == 0, job.words
    return job


def test_a_table_is_read_to_its_end_before_the_streams(place: Place) -> None:
    app = app_in(place.folder)
    numbers = range(0, CUSTOMERS, 100)
    send(place, "orders", (order(each, f"c{each}") for each in numbers))
    send(place, "customers", (customer(f"c{each}", f"Name{each}") for each in range(CUSTOMERS)))
    once(place, app)
    assert named(place) == [f"{each} Name{each}" for each in numbers]
    send(place, "orders", [order(1, "c1"), order(2, "c2"), order(3, "c3")])
    send(place, "customers", [customer("c1", "New"), (b"c3", None)])
    once(place, app)
    assert named(place)[len(numbers) :] == ["1 New", "2 Name2", "3 -"]


def test_a_table_is_followed_while_the_job_runs(place: Place) -> None:
    app = app_in(place.folder)
    send(place, "customers", [customer("a", "Ada")])
    send(place, "orders", [order(1, "a")])
    with place.job(app) as job:
        job.wait_for_records(2)
        send(place, "customers", [customer("a", "Eve")])
        job.wait_for_records(3)
        send(place, "orders", [order(2, "a")])
        job.wait_for_records(4)
        job.signal()
        assert job.wait() == 0, job.words
    assert named(place) == ["1 Ada", "2 Eve"]


@pytest.mark.parametrize(
    ("rows", "name", "text"),
    [
        ('CsvTable("customers.csv")', "customers.csv", "id,name\na,Ada\nb,Bob\n"),
        ('JsonLinesTable("customers.jsonl")', "customers.jsonl", '{"id":"a","name":"Ada"}\n'),
    ],
)
def test_a_file_is_read_before_the_streams(place: Place, rows: str, name: str, text: str) -> None:
    app = app_in(place.folder, rows, ", key=lambda row: row.id")
    (place.folder / name).write_text(text)
    send(place, "orders", [order(1, "a"), order(2, "z")])
    job = once(place, app)
    assert f"file {name} with" in job.words
    (place.folder / name).write_text(text.replace("Ada", "Eve"))
    send(place, "orders", [order(3, "a")])
    once(place, app)
    assert named(place) == ["1 Ada", "2 -", "3 Eve"]


def test_an_invalid_row_of_a_file_ends_the_start_with_its_line(place: Place) -> None:
    app = app_in(place.folder, 'CsvTable("customers.csv")', ", key=lambda row: row.id")
    (place.folder / "customers.csv").write_text("id,name\na,Ada\nb\n")
    send(place, "orders", [order(1, "a")])
    job = place.run(app, "--once")
    assert job.process.returncode == 1, job.words
    assert "customers.csv:3: " in job.error_text
    assert "Traceback" not in job.error_text
