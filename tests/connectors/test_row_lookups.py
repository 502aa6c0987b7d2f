"""Lookups in tables that are queried where they are, here in a table of a stranger."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import App, Record
from streamkit.connectors import ConnectorEnv, LookupTable, RowFinder
from streamkit.connectors.files import Files, Jsonl, JsonLines
from streamkit.dataflow.explain import explain
from streamkit.dataflow.stream import Stream
from streamkit.dataflow.topology import as_text
from streamkit.errors import StageError, StreamKitError, TopologyError, TransportError, UsageError
from streamkit.policies import dead_letter, retry


class Customer(msgspec.Struct):
    name: str


class Named(msgspec.Struct):
    number: int
    name: str | None


@dataclass(eq=False)
class Shop(LookupTable):
    """A table in memory that notes its queries."""

    rows: dict[int, str] = field(default_factory=dict)
    queries: list[list[Hashable]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    kinds: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return "customers of the shop"

    def finder(self, env: ConnectorEnv) -> RowFinder:
        self.kinds.append(env.kind)
        return ShopFinder(self)


class ShopFinder(RowFinder):
    keys_max = 3

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    async def open(self) -> None:
        self.shop.opened += 1

    def encoded(self, key: Any) -> Hashable:
        if not isinstance(key, int):
            raise ValueError(f"{key!r} is not the number of a customer")
        return key

    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        self.shop.queries.append(list(keys))
        if self.shop.failures:
            raise self.shop.failures.pop(0)
        return {key: self.shop.rows[key] for key in keys if key in self.shop.rows}

    def decoded(self, row: Any) -> Customer:
        if not row:
            raise ValueError("the customer has no name")
        return Customer(row)

    async def close(self) -> None:
        self.shop.closed += 1


def named(number: int, customer: Customer) -> Named:
    return Named(number, customer.name)


def maybe_named(number: int, customer: Customer | None) -> Named:
    return Named(number, None if customer is None else customer.name)


def add_lookup(orders: Stream[Any], shop: Shop, **options: Any) -> Stream[Named]:
    return orders.lookup(shop, on=same, combine=named, **options)


def same(number: int) -> int | None:
    return number


def run(
    tmp_path: Path,
    numbers: Sequence[Any],
    add: Callable[[Stream[Any]], Stream[Any]],
    *,
    code: int = 0,
) -> list[list[Any]]:
    """Run a job with a lookup, and return all results so far."""
    app = App("lookups")
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in numbers))
    add(app.stream(Files(path, Jsonl(Any)), Any)).to(JsonLines(out))
    assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == code
    found = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    return [list(each.values()) for each in found]


# --- what a lookup gives ----------------------------------------------------------------


def test_each_record_is_combined_with_its_row(tmp_path: Path) -> None:
    shop = Shop({1: "Ada", 2: "Bo"})
    assert run(tmp_path, [2, 1, 7, 2], lambda orders: add_lookup(orders, shop)) == [
        [2, "Bo"],
        [1, "Ada"],
        [2, "Bo"],
    ]
    assert shop.kinds == [Customer]
    assert (shop.opened, shop.closed) == (1, 1)


def test_a_left_lookup_keeps_records_without_a_row_or_a_key(tmp_path: Path) -> None:
    shop = Shop({1: "Ada"})

    def add(orders: Stream[Any]) -> Stream[Named]:
        return orders.lookup(shop, on=lambda n: n or None, combine=maybe_named, how="left")

    assert run(tmp_path, [1, 7, 0], add) == [[1, "Ada"], [7, None], [0, None]]
    assert 0 not in [key for query in shop.queries for key in query]


def test_the_order_and_the_timestamps_of_the_records_stay() -> None:
    app = App("lookups")
    numbers = app.stream("numbers", int)
    found = add_lookup(numbers, Shop())
    with app.test() as job:
        job.set_rows(found, {number: Customer(str(number)) for number in range(100)})
        job.send(numbers, *(Record(n, key=b"k", timestamp_ms=n) for n in range(100)))
        records = job.records(found)
    assert [(r.value.number, r.key, r.timestamp_ms) for r in records] == [
        (n, b"k", n) for n in range(100)
    ]


def test_the_type_of_the_results_is_that_of_combine() -> None:
    app = App("lookups")
    assert add_lookup(app.stream("numbers", int), Shop()).node.value_type is Named


# --- queries ----------------------------------------------------------------------------


def test_records_that_wait_share_queries_of_limited_size(tmp_path: Path) -> None:
    shop = Shop({number: str(number) for number in range(40)})
    numbers = [*range(40), *range(40)]
    found = run(tmp_path, numbers, lambda orders: add_lookup(orders, shop))
    assert found == [[number, str(number)] for number in numbers]
    keys = [key for query in shop.queries for key in query]
    assert len(keys) == 40, "each key once"
    assert set(keys) == set(range(40))
    assert max(map(len, shop.queries)) == 3
    assert len(shop.queries) < 20


@pytest.mark.parametrize("option", [{"cache_rows": 0}, {"cache_for": 0}])
def test_without_a_cache_each_batch_is_a_query(tmp_path: Path, option: dict[str, Any]) -> None:
    shop = Shop({1: "Ada"})
    found = run(tmp_path, [1] * 5_000, lambda orders: add_lookup(orders, shop, **option))
    assert found == [[1, "Ada"]] * 5_000
    assert len(shop.queries) >= 5, "a batch has at most 1,000 records"


def test_that_a_key_has_no_row_is_kept_too(tmp_path: Path) -> None:
    shop = Shop()
    assert run(tmp_path, [1] * 5_000, lambda orders: add_lookup(orders, shop)) == []
    assert shop.queries == [[1]]


# --- failures ---------------------------------------------------------------------------


def test_a_failing_function_row_or_key_fails_its_own_record(tmp_path: Path) -> None:
    shop = Shop({1: "Ada", 2: "", 3: "Cy", 4: "Di"})
    letters = tmp_path / "letters.jsonl"

    def combine(number: int, customer: Customer) -> Named:
        if number == 3:
            raise KeyError("no such order")
        return named(number, customer)

    def add(orders: Stream[Any]) -> Stream[Named]:
        return orders.lookup(
            shop, on=same, combine=combine, on_error=dead_letter(JsonLines(letters))
        )

    found = run(tmp_path, [1, "x", 2, 3, [], 4], add)
    assert found == [[1, "Ada"], [4, "Di"]]
    failed = [msgspec.json.decode(line) for line in letters.read_bytes().splitlines()]
    assert [each["error"] for each in failed] == [
        "ValueError: 'x' is not the number of a customer",
        "ValueError: the customer has no name",
        "KeyError: 'no such order'",
        "ValueError: [] is not the number of a customer",
    ]


def test_a_failing_record_stops_the_job_and_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shop = Shop({1: "Ada", 3: "Cy"})

    def add(orders: Stream[Any]) -> Stream[Named]:
        return orders.lookup(shop, on=lambda n: 7 // (n - 2), combine=named)

    run(tmp_path, [3, 3, 2, 3], add, code=1)
    text = capfd.readouterr().err
    assert "ZeroDivisionError" in text
    assert "line 3" in text
    assert "test_row_lookups.py" in text


def test_a_query_that_fails_stops_the_job_and_the_next_run_goes_on(tmp_path: Path) -> None:
    shop = Shop({1: "Ada", 2: "Bo"}, failures=[StreamKitError("the table is gone")])
    assert run(tmp_path, [1, 2], lambda orders: add_lookup(orders, shop), code=1) == []
    assert run(tmp_path, [1, 2], lambda orders: add_lookup(orders, shop)) == [[1, "Ada"], [2, "Bo"]]
    assert shop.opened == shop.closed == 2


def test_a_query_that_fails_is_repeated_with_retries(tmp_path: Path) -> None:
    shop = Shop(
        {1: "Ada"},
        failures=[TransportError("gone", sent=False), TransportError("gone", sent=False)],
    )
    again = retry(3, delay=0.01)
    found = run(tmp_path, [1, 1], lambda orders: add_lookup(orders, shop, on_error=again))
    assert found == [[1, "Ada"]] * 2
    assert len(shop.queries) == 3


def test_a_table_that_does_not_open_stops_the_start_and_is_closed(tmp_path: Path) -> None:
    class Broken(ShopFinder):
        async def open(self) -> None:
            raise StreamKitError("there is no table customers")

    class BrokenShop(Shop):
        def finder(self, env: ConnectorEnv) -> RowFinder:
            return Broken(self)

    shop = BrokenShop()
    app = App("lookups")
    (tmp_path / "in.jsonl").write_text("1\n")
    orders = app.stream(Files(tmp_path / "in.jsonl", Jsonl(int)))
    add_lookup(orders, shop).to(JsonLines(tmp_path / "out.jsonl"))
    with pytest.raises(StreamKitError, match="there is no table customers"):
        app.run(embedded=True, once=True, data_dir=tmp_path / "data")
    assert shop.closed == 1


# --- the end report ---------------------------------------------------------------------


def test_the_end_report_shows_what_was_queried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shop = Shop({1: "Ada", 2: "Bo"})
    run(tmp_path, [2, 1, 7, 2, 7, 7], lambda orders: add_lookup(orders, shop))
    assert "1 query for 3 keys, 3 records without a row" in capfd.readouterr().err


def test_rows_that_are_kept_are_not_queried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shop = Shop({1: "Ada"})
    run(tmp_path, [1] * 5_000, lambda orders: add_lookup(orders, shop))
    assert "1 query for 1 key\n" in capfd.readouterr().err


# --- the graph --------------------------------------------------------------------------


def test_the_graph_shows_the_table() -> None:
    app = App("lookups")
    add_lookup(app.stream("numbers", int), Shop(), name="customers").to("named")
    assert "customers  [stage ⇄ customers of the shop]" in as_text(app.topology)
    (notes,) = [each.notes for each in explain(app.topology).nodes if each.name == "customers"]
    assert notes == ["looks up rows in customers of the shop"]


def test_the_type_of_the_rows_must_be_known() -> None:
    app = App("lookups")
    numbers = app.stream("numbers", int)
    with pytest.raises(
        TopologyError, match="the type of the rows of customers of the shop"
    ) as info:
        numbers.lookup(Shop(), on=same, combine=lambda number, row: row)
    assert "test_row_lookups.py" in str(info.value.at)
    found = numbers.lookup(Shop(), on=same, combine=lambda number, row: row, row_type=Customer)
    assert found.node.endpoint.row_type is Customer


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cache_rows": -1}, "cache_rows=-1"),
        ({"cache_rows": True}, "cache_rows=True"),
        ({"cache_for": -1}, "cache_for"),
        ({"as_of": True}, "as_of"),
        ({"how": "outer"}, "how='outer'"),
    ],
)
def test_options_that_are_not_valid_are_refused(options: dict[str, Any], text: str) -> None:
    app = App("lookups")
    with pytest.raises((UsageError, TopologyError, TypeError), match=text):
        add_lookup(app.stream("numbers", int), Shop(), **options)


# --- tests of users ---------------------------------------------------------------------


def test_a_test_gives_the_rows_itself() -> None:
    app = App("lookups")
    numbers = app.stream("numbers", int)
    shop = Shop({1: "Ada"})
    found = add_lookup(numbers, shop)
    with app.test() as job, pytest.raises(StageError, match="has no rows for 'lookup'"):
        job.send(numbers, 1)
    with app.test() as job:
        job.set_rows("lookup", {1: Customer("Test")})
        job.send(numbers, 1, 2)
        job.set_rows(found, {2: Customer("Two")})
        job.send(numbers, 1, 2)
        assert job.output(found) == [Named(1, "Test"), Named(2, "Two")]
        with pytest.raises(UsageError, match="'numbers' looks up no rows"):
            job.set_rows(numbers, {})
    assert shop.opened == 0
