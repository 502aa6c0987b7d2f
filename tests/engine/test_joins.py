"""Joins of two streams: which records are paired, when, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from streamkit import App
from streamkit.aggregates import Count
from streamkit.dataflow.join_stream import JoinResults
from streamkit.dataflow.stream import Stream
from streamkit.errors import StageError, TopologyError, UsageError
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.testing.job import TestJob
from streamkit.windows import Session, Tumbling


class Order(msgspec.Struct, frozen=True):
    id: int
    customer: str
    at: int


class Payment(msgspec.Struct, frozen=True):
    id: str
    customer: str
    at: int


Orders = Stream[Order]
Payments = Stream[Payment]


def shown(order: Order | None, payment: Payment | None) -> str:
    return f"{order.id if order else '-'}{payment.id if payment else '-'}"


def joined(
    how: Any = "inner", *, out_of_order: float = 0, combine: Any = shown, **options: Any
) -> tuple[App, Orders, Payments, JoinResults[Any, str, Any]]:
    app = App("shop")
    orders = app.stream("orders", Order, event_time=by_time, out_of_order=out_of_order)
    payments = app.stream("payments", Payment, event_time=by_time, out_of_order=out_of_order)
    results = orders.key_by(by_customer).join(
        payments.key_by(by_customer), how=how, combine=combine, **options
    )
    return app, orders, payments, results


def by_customer(row: Order | Payment) -> str:
    return row.customer


def by_time(row: Order | Payment) -> int:
    return row.at


@contextmanager
def job_of(app: App) -> Iterator[TestJob]:
    """A job that waits for both streams from the beginning."""
    with app.test() as job:
        for topic in ("orders", "payments"):
            job.watermark(topic, 0)
        yield job


# --- Close in time ---------------------------------------------------------------------


@pytest.mark.parametrize(("apart", "wanted"), [(0, ["1x"]), (50, ["1x"]), (51, [])])
def test_records_at_most_so_far_apart_are_paired(apart: int, wanted: list[str]) -> None:
    for order_at, payment_at in [(1_000, 1_000 + apart), (1_000 + apart, 1_000)]:
        app, orders, payments, results = joined(within=0.05)
        with job_of(app) as job:
            job.send(orders, Order(1, "a", order_at))
            job.send(payments, Payment("x", "a", payment_at))
            assert job.output(results) == wanted


def test_a_pair_has_the_key_and_the_later_time() -> None:
    app, orders, payments, results = joined(within=timedelta(seconds=1))
    with job_of(app) as job:
        job.send(payments, Payment("x", "a", 1_500))
        job.send(orders, Order(1, "a", 1_000))
        (record,) = job.records(results)
        assert (record.key, record.timestamp_ms, record.value) == (b"a", 1_500, "1x")


def test_only_records_of_the_same_key_are_paired() -> None:
    app, orders, payments, results = joined(within=1)
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 0), Order(2, "b", 0), Order(3, "a", 0))
        job.send(payments, Payment("x", "a", 0), Payment("y", "c", 0))
        assert job.output(results) == ["1x", "3x"]


def test_a_record_that_could_match_stays_until_the_last_moment() -> None:
    """At a watermark of 1,050 a payment of 1,050 may come, which is in reach of 1,000."""
    app, orders, payments, results = joined("left", within=0.05)
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 1_000), Order(2, "b", 1_050))
        job.send(payments, Payment("w", "c", 1_050))
        assert job.output(results) == []
        job.send(payments, Payment("x", "a", 1_050))
        assert job.output(results) == ["1x"]


def test_an_unmatched_record_comes_when_no_match_can_come() -> None:
    app, orders, payments, results = joined("left", within=0.05)
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 1_000), Order(2, "b", 2_000))
        job.send(payments, Payment("w", "c", 1_050))
        assert job.output(results) == []
        job.send(payments, Payment("w", "c", 1_051))
        (record,) = job.records(results)
        assert (record.value, record.key, record.timestamp_ms) == ("1-", b"a", 1_000)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [("inner", ["1x"]), ("left", ["1x", "2-"]), ("outer", ["1x", "2-", "-y"])],
)
def test_unmatched_records_come_once_and_matched_ones_never(how: Any, wanted: list[str]) -> None:
    app, orders, payments, results = joined(how, within=0.05)
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 1_000), Order(2, "b", 1_000))
        job.send(payments, Payment("x", "a", 1_010), Payment("y", "c", 1_020))
        for source in (orders, payments):
            job.watermark(source, 5_000)
        assert job.output(results) == wanted
        job.drain()
        assert job.output(results) == wanted


def test_waiting_records_and_their_marks_survive_a_restart() -> None:
    app, orders, payments, results = joined("outer", within=0.05)
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 1_000), Order(2, "b", 1_000))
        job.restart()
        job.send(payments, Payment("x", "a", 1_010))
        job.restart()
        job.send(payments, Payment("y", "a", 1_020))
        job.restart()
        job.drain()
        assert job.output(results) == ["1x", "1y", "2-"]


def test_late_records_are_counted_and_handed_over() -> None:
    app, orders, payments, results = joined("outer", within=0.05, late=0.1)
    late = results.late
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 1_000), Order(2, "a", 900), Order(3, "a", 899))
        job.send(payments, Payment("x", "a", 1_000), Payment("y", "a", 899))
        assert job.output(late) == [Order(3, "a", 899), Payment("y", "a", 899)]
        job.drain()
        assert sorted(job.output(results)) == ["1x", "2-"]


def test_a_fast_stream_does_not_make_a_slow_one_late() -> None:
    app, orders, payments, results = joined(within=0.05)
    late = results.late
    with job_of(app) as job:
        job.send(payments, Payment("w", "w", 0))
        job.send(orders, Order(1, "a", 1_000), Order(2, "b", 9_000))
        job.send(payments, Payment("x", "a", 1_000))
        assert (job.output(results), job.output(late)) == (["1x"], [])


# --- In the same window ----------------------------------------------------------------


def test_all_records_of_a_window_are_paired_when_it_closes() -> None:
    app, orders, payments, results = joined(window=Tumbling(seconds=1))
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 1_900), Order(2, "a", 1_000), Order(3, "a", 2_000))
        job.send(payments, Payment("x", "a", 1_999), Payment("y", "a", 2_001))
        assert [(each.value, each.timestamp_ms) for each in job.records(results)] == [
            ("2x", 1_999),
            ("1x", 1_999),
        ]
        job.drain()
        assert job.output(results) == ["2x", "1x", "3y"]


@pytest.mark.parametrize(("how", "wanted"), [("left", ["1-"]), ("outer", ["1-", "-y"])])
def test_a_window_with_one_side_has_unmatched_records(how: Any, wanted: list[str]) -> None:
    app, orders, payments, results = joined(how, window=Tumbling(seconds=1))
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 1_000))
        job.restart()
        job.send(payments, Payment("y", "b", 1_000))
        job.drain()
        assert job.output(results) == wanted


def test_minutes_after_days_of_local_time_lose_nothing_when_a_day_has_25_hours() -> None:
    """27 October 2024 in Berlin began at 22:00 UTC of the day before, and had 25 hours."""
    app, orders, payments, results = joined(window=Tumbling(days=1, time_zone="Europe/Berlin"))
    minutes = results.window(Tumbling(minutes=1)).aggregate(pairs=Count())
    late = minutes.late
    begin = at_ms(datetime(2024, 10, 26, 22, tzinfo=UTC))
    end = begin + 25 * 3_600_000
    with job_of(app) as job:
        job.send(orders, Order(1, "a", begin + 60_000), Order(2, "b", end - 1))
        job.send(payments, Payment("x", "a", begin + 60_000), Payment("y", "b", end - 1))
        job.restart()
        job.send(orders, Order(3, "c", end))
        job.send(payments, Payment("z", "c", end))
        assert job.output(results) == ["1x", "2y"]
        job.drain()
        assert job.output(late) == []
        assert len(job.output(minutes)) == 3


def at_ms(time: datetime) -> int:
    return round(time.timestamp() * 1_000)


# --- Failures --------------------------------------------------------------------------


def refuses_y(order: Order | None, payment: Payment | None) -> str:
    if payment is not None and payment.id == "y":
        raise ValueError("y")
    return shown(order, payment)


def test_a_pair_that_cannot_be_combined_fails_its_record_and_leaves_nothing() -> None:
    app, orders, payments, results = joined(combine=refuses_y, within=1)
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 0))
        with pytest.raises(StageError, match="ValueError: y"):
            job.send(payments, Payment("x", "a", 0), Payment("y", "a", 0))
        assert job.output(results) == []
        job.send(payments, Payment("z", "a", 0))
        job.send(orders, Order(2, "a", 0))
        assert job.output(results) == ["1z", "2z"]


def test_a_pair_that_cannot_be_combined_is_skipped_when_a_window_closes() -> None:
    app, orders, payments, results = joined(
        combine=refuses_y, window=Tumbling(seconds=1), on_error="skip"
    )
    with job_of(app) as job:
        job.send(orders, Order(1, "a", 0))
        job.send(payments, *(Payment(each, "a", 0) for each in "xyz"))
        job.drain()
        assert job.output(results) == ["1x", "1z"]


@pytest.mark.parametrize("options", [{"within": 1}, {"window": Tumbling(seconds=1)}])
def test_a_record_without_a_timestamp_fails(options: dict[str, Any]) -> None:
    app = App("a")
    left, right = app.stream("left", str), app.stream("right", str)
    left.key_by(str).join(right.key_by(str), combine=lambda a, b: a, **options).to("t")
    work = Task(app.topology).process(left.node, Chunk([b"x"], [None], [-1], [0], "left", 0))
    assert work.failure is not None
    assert "has no timestamp" in str(work.failure)


# --- Joins that are refused ------------------------------------------------------------


def test_a_join_needs_one_of_within_and_window() -> None:
    both: dict[str, Any] = {"within": 1, "window": Tumbling(seconds=1)}
    for options in ({}, both):
        with pytest.raises(UsageError, match="either within= or window="):
            joined(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"how": "right", "within": 1}, "how='right' is not valid"),
        ({"within": -1}, "within must be at least 0 ms"),
        ({"within": "1h"}, "'1h' is not a duration"),
        ({"within": 1, "late": -1}, "late must be at least 0 ms"),
        ({"window": Session(gap=1)}, "a join has a Tumbling window"),
        ({"window": 5}, "a join has a Tumbling window"),
        ({"within": 1, "ttl": 1}, "'ttl' is not a valid option"),
        ({"within": 1, "on_error": "ignore"}, "on_error='ignore'"),
    ],
)
def test_an_invalid_option_of_a_join_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        joined(**options)


def test_both_sides_of_a_join_need_keys() -> None:
    app = App("a")
    orders = app.stream("orders", Order)
    keyed: Any = orders.key_by(by_customer)
    for left, right in [(keyed, orders), (orders.filter(bool), keyed)]:
        with pytest.raises((TopologyError, AttributeError), match=r"no keys|no attribute 'join'"):
            left.join(right, combine=shown, within=1)


def test_both_sides_of_a_join_need_types() -> None:
    app = App("a")
    orders = app.stream("orders", Order)
    untyped = orders.map(lambda order: order).key_by(lambda order: order.customer)
    with pytest.raises(TopologyError, match="whose type is not known"):
        untyped.join(orders.key_by(by_customer), combine=lambda a, b: a, within=1)


@pytest.mark.parametrize("combine", [None, lambda order: order])
def test_combine_is_a_function_of_two_values(combine: Any) -> None:
    with pytest.raises(TopologyError, match="combine="):
        joined(combine=combine, within=1)


def test_streams_of_another_app_cannot_be_joined() -> None:
    _, orders, _, _ = joined(within=1)
    other = App("other").stream("payments", Payment).key_by(by_customer)
    with pytest.raises(TopologyError, match="belongs to another App"):
        orders.key_by(by_customer).join(other, combine=shown, within=1)
