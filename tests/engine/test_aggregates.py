"""Aggregates of windows, each against a plain computation."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import App
from streamkit.aggregates import (
    Aggregator,
    CollectList,
    Count,
    CountDistinct,
    First,
    Fold,
    Last,
    Max,
    Mean,
    Min,
    Quantile,
    Std,
    Sum,
    TopN,
)
from streamkit.errors import StateError
from streamkit.windows import Session, Sliding, Tumbling
from tests.engine.readings import (
    SECOND_MS,
    Reading,
    drained,
    listed,
    readings,
    value,
)

# --- Each aggregate --------------------------------------------------------------------

Values = list[float]


def ranked(q: float) -> Callable[[Values], Any]:
    return lambda each: near(sorted(each)[math.floor(q * (len(each) - 1))]) if each else None


def near(number: float) -> Any:
    return pytest.approx(number, rel=0.0101)


# Values are given in order of event time.
AGGREGATES: Final[dict[str, tuple[Aggregator[Any], Callable[[Values], Any]]]] = {
    "count": (Count(value), len),
    "sum": (Sum(value), sum),
    "mean": (Mean(value), lambda each: pytest.approx(statistics.mean(each)) if each else None),
    "min": (Min(value), lambda each: min(each, default=None)),
    "max": (Max(value), lambda each: max(each, default=None)),
    "first": (First(value), lambda each: each[0] if each else None),
    "last": (Last(value), lambda each: each[-1] if each else None),
    "std": (
        Std(value),
        lambda each: pytest.approx(statistics.stdev(each), abs=1e-6) if len(each) > 1 else None,
    ),
    "top": (TopN(3, value), lambda each: sorted(each, reverse=True)[:3]),
    "top_of": (
        TopN(2, value, lambda reading: str(reading.value)),
        lambda each: [str(number) for number in sorted(each, reverse=True)[:2]],
    ),
    "distinct": (CountDistinct(value), lambda each: len(set(each))),
    "median": (Quantile(0.5, value), ranked(0.5)),
    "largest": (Quantile(1, value), ranked(1)),
    "all": (CollectList(value), lambda each: each),
    "fold": (Fold(list, listed, lambda a, b: a + b, sorted), sorted),
}

numbers: Final = st.lists(
    st.tuples(st.integers(0, 9), st.none() | st.integers(-5, 5).map(lambda each: each / 4)),
    max_size=12,
    unique_by=lambda each: each[0],
)


@pytest.mark.parametrize("name", AGGREGATES)
@settings(max_examples=12, deadline=None)
@given(rows=numbers, restarts=st.booleans())
def test_an_aggregate_of_merged_panes_equals_a_plain_computation(
    name: str, rows: list[tuple[int, float | None]], restarts: bool
) -> None:
    aggregate, plain = AGGREGATES[name]
    window = Sliding(seconds=4, every=2)
    of = readings(window, late=60, at=Min(lambda each: each.at), result_of=aggregate)
    sent = [Reading(at * SECOND_MS, number) for at, number in rows]
    found = drained(of, *sent, restarts=restarts)
    wanted = []
    for start in range(-2, 10, 2):
        inside = sorted(each for each in rows if start <= each[0] < start + 4)
        if inside:
            wanted.append(plain([number for _, number in inside if number is not None]))
    assert [each["result_of"] for each in found] == wanted


def test_a_window_without_values_has_none_or_zero() -> None:
    of = readings(
        Tumbling(seconds=1),
        sum=Sum(value),
        mean=Mean(value),
        min=Min(value),
        max=Max(value),
        count=Count(),
        counted=Count(value),
    )
    (found,) = drained(of, Reading(1), Reading(2))
    names = ("sum", "mean", "min", "max", "count", "counted")
    assert [found[name] for name in names] == [0, None, None, None, 2, 0]


def test_a_session_merges_the_aggregates_of_two_sessions() -> None:
    aggregates: Any = {key: each for key, (each, _) in AGGREGATES.items()}
    of = readings(Session(gap=2.5), late=60, **aggregates)
    sent = [Reading(at * SECOND_MS, number) for at, number in [(1, 1.0), (4, 2.0), (3, 0.5)]]
    (found,) = drained(of, *sent)
    wanted = {key: plain([1.0, 0.5, 2.0]) for key, (_, plain) in AGGREGATES.items()}
    assert {key: found[key] for key in wanted} == wanted


def test_of_two_values_with_one_time_first_and_last_are_those_that_arrived_so() -> None:
    of = readings(Tumbling(seconds=1), first=First(value), last=Last(value))
    (found,) = drained(of, Reading(5, 1.0), Reading(5, 2.0), Reading(5, 3.0))
    assert (found["first"], found["last"]) == (1.0, 3.0)


def test_a_fold_may_change_its_aggregate_in_place_when_it_merges() -> None:
    def merged(before: list[float], more: list[float]) -> list[float]:
        before.extend(more)
        return before

    of = readings(Sliding(seconds=2, every=1), all=Fold(list, listed, merged))
    found = drained(of, *(Reading(at * SECOND_MS, float(at)) for at in (1, 2, 3)))
    assert [each["all"] for each in found] == [[1.0], [1.0, 2.0], [2.0, 3.0], [3.0]]


def test_a_fold_may_change_its_aggregate_in_place_when_it_makes_the_result() -> None:
    def closed(values: list[float]) -> str:
        values.append(0.0)
        return str(values)

    of = readings(Sliding(seconds=2, every=1), all=Fold(list, listed, lambda a, b: a + b, closed))
    found = drained(of, Reading(1_000, 1.0))
    assert [each["all"] for each in found] == ["[1.0, 0.0]", "[1.0, 0.0]"]


def test_a_sum_of_decimals_is_exact_if_the_class_of_results_says_so() -> None:
    class Total(msgspec.Struct):
        total: Decimal

    of = readings(Tumbling(seconds=1), Total, total=Sum(lambda each: Decimal(str(each.value))))
    assert drained(of, Reading(1, 0.1), Reading(2, 0.2), restarts=True) == [Total(Decimal("0.3"))]


class Dated(msgspec.Struct):
    day: datetime.date | None


def test_a_restart_keeps_values_of_the_type_that_the_class_of_results_declares() -> None:
    day = datetime.date(2024, 2, 29)
    of = readings(Tumbling(seconds=1), Dated, day=Max(lambda each: day))
    assert drained(of, Reading(1), Reading(2), restarts=True) == [Dated(day)]


@pytest.mark.parametrize(
    "aggregate",
    [
        Max(lambda each: datetime.date(2024, 2, 29)),
        TopN(1, lambda each: datetime.date(2024, 2, 29), lambda each: each.at),
    ],
)
def test_a_value_that_would_be_read_back_as_another_type_is_not_stored(aggregate: Any) -> None:
    app, source, _ = readings(Tumbling(seconds=1), found=aggregate)
    with app.test() as job:
        job.send(source, Reading(1))
        with pytest.raises(StateError, match="its type is not declared"):
            job.commit()


def test_a_quantile_of_the_largest_float_has_a_result() -> None:
    of = readings(Tumbling(seconds=1), median=Quantile(0.5, value))
    (found,) = drained(of, Reading(1, 1.79e308))
    assert found["median"] == near(1.79e308)


def test_reduce_gives_one_value_for_each_window() -> None:
    app = App("a")
    source = app.stream("readings", Reading, event_time=lambda each: each.at)
    largest = (
        source.key_by(lambda each: each.key)
        .window(Tumbling(seconds=1))
        .reduce(lambda a, b: max(a, b, key=lambda each: each.value or 0))
    )
    with app.test() as job:
        job.send(source, Reading(1, 1.0), Reading(2, 3.0), Reading(3, 2.0), Reading(1_500, 0.5))
        job.drain()
        assert job.output(largest) == [Reading(2, 3.0), Reading(1_500, 0.5)]


class Total(msgspec.Struct):
    """Can be changed in place."""

    at: int
    total: int


def test_a_later_stage_that_changes_a_result_in_place_does_not_change_the_window() -> None:
    app = App("a")
    source = app.stream("totals", Total, event_time=lambda each: each.at)
    windows = source.key_by(lambda each: 0).window(Tumbling(seconds=1), emit="updates")
    sums = windows.reduce(lambda a, b: Total(b.at, a.total + b.total))

    def raised(each: Total) -> int:
        each.total += 100
        return each.total

    results = sums.map(raised)
    with app.test() as job:
        job.send(source, Total(1, 1))
        job.send(source, Total(2, 1))
        assert job.output(results) == [101, 102]
