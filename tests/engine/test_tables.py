"""Tables and lookups: what is found, when, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamkit import App, Record
from streamkit.aggregates import Count
from streamkit.dataflow.join_stream import LookupResults, Table
from streamkit.dataflow.stream import Stream
from streamkit.errors import StageError, TopologyError, UsageError
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.testing.job import TestJob
from streamkit.windows import Tumbling


class Order(msgspec.Struct, frozen=True):
    id: int
    customer: str | None
    at: int = 0


class Customer(msgspec.Struct, frozen=True):
    id: str
    name: str
    since: int = 0


Orders = Stream[Order]
Customers = Table[Customer]


def shown(order: Order, customer: Customer | None) -> str:
    return f"{order.id}{customer.name if customer else '-'}"


def shop(
    how: Any = "inner", *, combine: Any = shown, key: Any = None, **options: Any
) -> tuple[App, Orders, Customers, LookupResults[str, Order]]:
    app = App("shop")
    orders = app.stream("orders", Order, event_time=lambda order: order.at)
    customers = app.table("customers", Customer, key=key)
    results = orders.lookup(
        customers, on=lambda order: order.customer, combine=combine, how=how, **options
    )
    return app, orders, customers, results


def row(customer: str, name: str, at: int = 0) -> Record[Customer]:
    return Record(Customer(customer, name, at), key=customer.encode(), timestamp_ms=at)


def delete(job: TestJob, customers: Customers, *keys: bytes, at: int = 0) -> None:
    """Send records with an empty value to the table."""
    count = len(keys)
    part = Chunk([b""] * count, keys, [at] * count, range(count), "customers", 0)
    job._process(lambda: job._task.process(customers.node, part))


# --- The latest row --------------------------------------------------------------------


@pytest.mark.parametrize(("how", "wanted"), [("inner", ["1Ada"]), ("left", ["1Ada", "2-", "3-"])])
def test_a_record_is_combined_with_the_row_of_its_key(how: Any, wanted: list[str]) -> None:
    app, orders, customers, results = shop(how)
    with app.test() as job:
        job.send(customers, row("a", "Ada"))
        job.send(orders, Order(1, "a"), Order(2, "b"), Order(3, None))
        assert job.output(results) == wanted


def test_a_lookup_finds_the_latest_row() -> None:
    app, orders, customers, results = shop("left")
    with app.test() as job:
        job.send(customers, row("a", "Ada", 50), row("a", "Eve", 20))
        job.send(orders, Order(1, "a"))
        job.send(customers, row("a", "Bob", 10))
        job.send(orders, Order(2, "a"))
        assert job.output(results) == ["1Eve", "2Bob"]


def test_an_empty_value_deletes_a_row() -> None:
    app, orders, customers, results = shop("left")
    with app.test() as job:
        job.send(customers, row("a", "Ada"), row("b", "Bob"))
        delete(job, customers, b"a", b"unknown")
        job.send(orders, Order(1, "a"), Order(2, "b"))
        job.restart()
        job.send(orders, Order(3, "a"), Order(4, "b"))
        assert job.output(results) == ["1-", "2Bob", "3-", "4Bob"]
        assert job.state(customers, "a") is None


def test_a_table_survives_a_restart() -> None:
    app, orders, customers, results = shop()
    with app.test() as job:
        job.send(customers, row("a", "Ada"), row("b", "Bob"))
        job.restart()
        job.send(customers, row("b", "Ben"))
        job.restart()
        job.send(orders, Order(1, "a"), Order(2, "b"))
        assert job.output(results) == ["1Ada", "2Ben"]
        assert job.state(customers, "b") == Customer("b", "Ben")


def test_a_table_can_take_its_key_from_the_row() -> None:
    app, orders, customers, results = shop(key=lambda customer: customer.id)
    with app.test() as job:
        job.send(customers, Customer("a", "Ada"), Record(Customer("b", "Bob"), key=b"other"))
        job.send(orders, Order(1, "a"), Order(2, "b"), Order(3, "other"))
        assert job.output(results) == ["1Ada", "2Bob"]


def test_a_row_without_a_key_fails() -> None:
    app, _, customers, results = shop()
    results.to("t")
    with app.test() as job, pytest.raises(StageError, match="a record of a table has no key"):
        job.send(customers, Customer("a", "Ada"))


def test_a_row_that_cannot_be_decoded_leaves_the_table_as_it_was() -> None:
    app = App("shop")
    orders = app.stream("orders", Order)
    customers = app.table("customers", Customer, on_error="skip")
    results = orders.lookup(customers, on=lambda order: order.customer, combine=shown)
    with app.test() as job:
        job.send(customers, row("a", "Ada"))
        part = Chunk([b"{", b"5"], [b"a", b"a"], [0, 0], range(8, 10), "customers", 0)
        job._process(lambda: job._task.process(customers.node, part))
        job.send(orders, Order(1, "a"))
        assert job.output(results) == ["1Ada"]


def test_two_lookups_share_a_table() -> None:
    app, orders, customers, results = shop()
    again = orders.lookup(
        customers, on=lambda order: "b", combine=lambda order, found: found.name, name="again"
    )
    with app.test() as job:
        job.send(customers, row("a", "Ada"), row("b", "Bob"))
        job.send(orders, Order(1, "a"))
        assert (job.output(results), job.output(again)) == (["1Ada"], ["Bob"])


def refuses_bob(order: Order, customer: Customer | None) -> str:
    if customer is not None and customer.name == "Bob":
        raise ValueError("Bob")
    return shown(order, customer)


@pytest.mark.parametrize("as_of", [False, True])
def test_a_lookup_that_fails_is_skipped_alone(as_of: bool) -> None:
    app, orders, customers, results = shop(combine=refuses_bob, on_error="skip", as_of=as_of)
    with app.test() as job:
        job.send(customers, row("a", "Ada"), row("b", "Bob"))
        job.send(orders, Order(1, "a"), Order(2, "b"), Order(3, "a"))
        job.drain()
        assert job.output(results) == ["1Ada", "3Ada"]


# --- The row of a time -----------------------------------------------------------------


def test_a_lookup_finds_the_row_of_the_time_of_the_record() -> None:
    app, orders, customers, results = shop("left", as_of=True)
    with app.test() as job:
        job.send(customers, row("a", "Ada", 100), row("a", "Eve", 200))
        delete(job, customers, b"a", at=300)
        job.send(orders, *(Order(at, "a", at) for at in (99, 100, 199, 200, 299, 300, 301)))
        assert job.output(results) == ["99-", "100Ada", "199Ada", "200Eve", "299Eve"]
        job.drain()
        assert job.output(results)[5:] == ["300-", "301-"]


def test_a_record_waits_for_the_watermark_of_the_table() -> None:
    app, orders, customers, results = shop("left", as_of=True)
    with app.test() as job:
        job.send(customers, row("a", "Ada", 0))
        job.send(orders, Order(1, "a", 50), Order(2, "a", 100))
        assert job.output(results) == []
        job.restart()
        job.send(customers, row("b", "Bob", 50))
        assert job.output(results) == []
        job.send(customers, row("a", "Eve", 51))
        assert job.output(results) == ["1Ada"]
        job.send(customers, row("a", "Max", 100))
        job.drain()
        assert job.output(results) == ["1Ada", "2Max"]


def test_a_late_row_is_valid_from_the_watermark() -> None:
    app, orders, customers, results = shop("left", as_of=True)
    with app.test() as job:
        job.send(customers, row("b", "Bob", 100), row("a", "Ada", 20))
        job.send(orders, Order(1, "a", 50), Order(2, "a", 100), Order(3, "c", 500))
        job.drain()
        assert job.output(results) == ["1-", "2Ada", "3-"]


def test_late_records_are_handed_over_and_others_find_old_rows() -> None:
    app, orders, customers, results = shop("left", as_of=True, late=0.1)
    late = results.late
    with app.test() as job:
        job.send(customers, row("a", "Ada", 0), row("a", "Eve", 950), row("x", "X", 5_000))
        job.send(orders, Order(1, "x", 1_000))
        job.send(customers, row("a", "Max", 6_000))
        job.send(orders, Order(2, "a", 900), Order(3, "a", 899))
        job.drain()
        assert job.output(late) == [Order(3, "a", 899)]
        assert sorted(job.output(results)) == ["1-", "2Ada"]


def test_the_key_of_the_record_stays() -> None:
    app, orders, customers, results = shop(as_of=True)
    with app.test() as job:
        job.send(customers, row("a", "Ada"))
        job.send(orders, Record(Order(1, "a", 5), key=b"mine"), Order(2, "a", 6))
        job.drain()
        assert [each.key for each in job.records(results)] == [b"mine", None]


def test_a_quiet_stream_is_looked_up_when_the_table_continues() -> None:
    app, orders, customers, results = shop(as_of=True)
    with app.test() as job:
        job.send(customers, row("a", "Ada", 0))
        job.send(orders, Order(1, "a", 50))
        job.advance(minutes=2)
        assert job.output(results) == ["1Ada"]


def test_an_ended_stream_is_looked_up_when_the_table_continues() -> None:
    """A generator has ended; the topic of the table goes on."""
    app, orders, customers, results = shop(as_of=True)
    results.to("t")
    task = Task(app.topology, never_idle=True)
    assert task.time is not None
    encode = msgspec.json.encode
    for node, value, at in [
        (customers.node, Customer("a", "Ada"), 0),
        (orders.node, Order(1, "a", 50), 50),
    ]:
        work = task.process(node, Chunk([encode(value)], [b"a"], [at], [0], node.name, 0))
        task.settle(work, work.end)
    task.time.ended = {orders.node}
    part = Chunk([encode(Customer("b", "Bob"))], [b"b"], [1_000], [1], "customers", 0)
    work = task.process(customers.node, part)
    assert [list(output.chunk.values) for output in work.outputs] == [[b"1Ada"]]


def test_the_results_of_a_window_are_in_time_for_a_lookup_of_a_table_that_continues() -> None:
    """The stream is quiet, and its windows close by the clock; the table gets new rows."""
    app = App("shop")
    orders = app.stream("orders", Order, event_time=lambda order: order.at)
    customers = app.table("customers", Customer)
    minutes = (
        orders.key_by(lambda order: order.customer or "")
        .window(Tumbling(minutes=1), late=30)
        .apply(lambda window, rows: rows[0], name="minutes")
    )

    @app.stage(minutes)
    def typed(order: Order) -> Order:
        return order

    results = typed.lookup(
        customers, on=lambda order: order.customer, combine=shown, how="left", as_of=True
    )
    late = results.late
    with app.test() as job:
        job.send(customers, row("a", "Ada", 0))
        job.send(orders, Order(1, "a", 1_000))
        for number in range(1, 12):
            job.advance(seconds=30)
            job.send(customers, row("x", "X", 30_000 * number))
        assert job.output(minutes) == [Order(1, "a", 1_000)]
        assert (job.output(results), job.output(late)) == (["1Ada"], [])


def test_windows_after_a_lookup_lose_nothing() -> None:
    app, orders, customers, results = shop("left", as_of=True, late=0.5)
    windows = results.key_by(lambda text: "all").window(Tumbling(seconds=0.1)).aggregate(n=Count())
    late = windows.late
    with app.test() as job:
        job.send(customers, row("a", "Ada", 0), row("a", "Ada", 2_000))
        job.send(orders, Order(1, "a", 1_000), Order(2, "a", 500), Order(3, "a", 1_500))
        job.drain()
        assert (job.output(late), sum(each["n"] for each in job.output(windows))) == ([], 3)


def test_a_record_without_a_timestamp_fails() -> None:
    app = App("shop")
    orders = app.stream("orders", Order)
    customers = app.table("customers", Customer)
    orders.lookup(customers, on=lambda order: order.customer, combine=shown, as_of=True).to("t")
    part = Chunk([b'{"id":1,"customer":"a"}'], [None], [-1], [0], "orders", 0)
    work = Task(app.topology).process(orders.node, part)
    assert work.failure is not None
    assert "has no timestamp" in str(work.failure)


def test_a_deletion_has_the_timestamp_of_its_record() -> None:
    """Its value is empty, so ``event_time`` has nothing to look at."""
    app = App("shop")
    orders = app.stream("orders", Order, event_time=lambda order: order.at)
    customers = app.table("customers", Customer, event_time=lambda customer: customer.since)
    results = orders.lookup(
        customers, on=lambda order: order.customer, combine=shown, how="left", as_of=True
    )
    with app.test() as job:
        job.send(customers, row("a", "Ada", 100))
        delete(job, customers, b"a", at=300)
        job.send(orders, Order(1, "a", 299), Order(2, "a", 300))
        job.drain()
        assert job.output(results) == ["1Ada", "2-"]


# --- Lookups that are refused ----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"how": "outer"}, "how='outer' is not valid"),
        ({"late": 5}, "late= is for a lookup with as_of=True"),
        ({"late": -1, "as_of": True}, "late must be at least 0 ms"),
        ({"within": 5}, "'within' is not a valid option"),
    ],
)
def test_an_invalid_option_of_a_lookup_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        shop(**options)


def test_a_lookup_needs_a_table() -> None:
    app = App("shop")
    orders: Any = app.stream("orders", Order)
    with pytest.raises(UsageError, match="is not a table"):
        orders.lookup(orders, on=lambda order: order.customer, combine=shown)


def test_functions_of_a_lookup_are_checked() -> None:
    app = App("shop")
    orders: Any = app.stream("orders", Order)
    customers = app.table("customers", Customer)
    with pytest.raises(TopologyError, match="combine="):
        orders.lookup(customers, on=lambda order: order.customer, combine=lambda order: order)
    with pytest.raises(TopologyError, match="on="):
        orders.lookup(customers, on="customer", combine=shown)


def test_a_lookup_of_a_time_needs_the_type_of_the_values() -> None:
    app = App("shop")
    orders = app.stream("orders", Order).map(lambda order: order)
    customers = app.table("customers", Customer)
    with pytest.raises(TopologyError, match="whose type is not known"):
        orders.lookup(customers, on=lambda order: "a", combine=shown, as_of=True)


def test_a_table_needs_a_type() -> None:
    table: Any = App("shop").table
    with pytest.raises(TopologyError, match="have no type"):
        table("customers")
    with pytest.raises(TopologyError, match="cannot be stored"):
        table("customers", object)
