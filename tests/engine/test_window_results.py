"""Results of windows: their classes and keys, and functions of the user that fail."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from dataclasses import InitVar, dataclass
from typing import Any, Final, Literal, NewType, TypedDict

import msgspec
import pytest

from streamkit.aggregates import (
    Aggregator,
    CollectList,
    Count,
    Fold,
    Sum,
)
from streamkit.errors import StageError, StateError, TopologyError, UsageError
from streamkit.windows import AnyWindow, Session, Sliding, Tumbling
from tests.engine.readings import (
    Failure,
    Kind,
    Reading,
    drained,
    listed,
    readings,
    value,
)

UTC: Final = datetime.UTC
# --- Classes of results ----------------------------------------------------------------


class AsStruct(msgspec.Struct):
    key: str
    window_start: datetime.datetime
    count: int
    window_end: int


class Frozen(msgspec.Struct, frozen=True):
    count: int
    key: str


class OnlyByName(msgspec.Struct, kw_only=True):
    note: str = "none"
    count: int


@dataclass
class AsDataclass:
    window_end: datetime.datetime
    count: int = 0
    note: str = "none"
    doubled: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.doubled = self.count * 2


@dataclass
class WithArgument:
    count: int
    scale: InitVar[int] = 1
    total: float = 0


class AsTypedDict(TypedDict):
    window_start: int
    count: int


START: Final = datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
END: Final = START + datetime.timedelta(seconds=1)


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (AsStruct, AsStruct("a", START, 2, 2_000)),
        (Frozen, Frozen(2, "a")),
        (OnlyByName, OnlyByName(count=2)),
        (AsDataclass, AsDataclass(END, 2)),
        (AsTypedDict, {"window_start": 1_000, "count": 2}),
        (None, {"key": "a", "window_start": START, "window_end": END, "count": 2}),
    ],
)
def test_a_result_has_the_fields_of_its_class(result: Kind, wanted: object) -> None:
    of = readings(Tumbling(seconds=1), result, count=Count())
    assert drained(of, Reading(1_000), Reading(1_999)) == [wanted]


def test_a_dataclass_may_have_arguments_that_are_not_fields() -> None:
    of = readings(Tumbling(seconds=1), WithArgument, count=Count(), total=Sum(value))
    (found,) = drained(of, Reading(1, 7.0))
    assert (found.count, found.total) == (1, 7.0)


def test_the_key_of_a_result_is_the_key_of_its_record() -> None:
    app, source, results = readings(Tumbling(seconds=1), count=Count())
    with app.test() as job:
        job.send(source, Reading(1_000, key="north"))
        job.drain()
        (record,) = job.records(results)
        assert (record.key, record.timestamp_ms) == (b"north", 1_999)


@pytest.mark.parametrize(
    ("result", "aggregates", "words"),
    [
        (AsStruct, {"total": Count()}, "AsStruct has no field 'total'"),
        (AsStruct, {"window_end": Count()}, "needs the field 'count'"),
        (OnlyByName, {"note": Count(), "count": Count()}, "is str, but Count gives int"),
        (None, {}, "has no aggregates"),
        (None, {"count": 5}, "5 is not an aggregate"),
        (int, {"count": Count()}, "int has no fields"),
    ],
)
def test_aggregates_that_do_not_fit_the_class_are_refused(
    result: Kind, aggregates: dict[str, Any], words: str
) -> None:
    with pytest.raises(TopologyError, match=words):
        readings(Tumbling(seconds=1), result, **aggregates)


@pytest.mark.parametrize("window", [Session(gap=1), Sliding(seconds=2, every=1)])
def test_windows_that_merge_refuse_a_fold_without_merge(window: AnyWindow) -> None:
    with pytest.raises(TopologyError, match="a Fold without merge= cannot"):
        readings(window, all=Fold(list, listed))


def test_an_aggregate_refuses_an_argument_that_is_not_a_function() -> None:
    with pytest.raises(UsageError, match="the argument must be a function of the record"):
        Sum("amount")  # type: ignore[arg-type]


# --- Keys ------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1


Customer = NewType("Customer", str)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (str, "café"),
        (int, -5),
        (bytes, b"\xff"),
        (bool, True),
        (datetime.date, datetime.date(2024, 2, 29)),
        (datetime.datetime, START),
        (Color, Color.RED),
        (tuple[str, int], ("a", 1)),
        (Reading, Reading(5)),
        (str | None, "a"),
        (Customer, Customer("a")),
        (Literal["a", "b"], "a"),
        (str | int, "a"),
        (object, "a"),
    ],
    ids=str,
)
def test_a_result_has_the_key_that_the_function_returned(kind: Kind, key: object) -> None:
    def chosen(reading: Reading) -> object:
        return key

    chosen.__annotations__["return"] = kind
    of = readings(Tumbling(seconds=1), key=chosen, count=Count())
    (found,) = drained(of, Reading(1))
    assert found["key"] == key


# --- Functions that fail ---------------------------------------------------------------


def positive(reading: Reading) -> float:
    if reading.value is None or reading.value < 0:
        raise Failure
    return reading.value


def added(before: float, reading: Reading) -> float:
    return before + positive(reading)


failing: Final = pytest.mark.parametrize(
    "aggregate",
    [Sum(positive), Fold(float, added, lambda a, b: a + b)],
    ids=["the function of a value", "the function of a fold"],
)
kinds: Final = pytest.mark.parametrize(
    "window", [Tumbling(seconds=2), Sliding(seconds=2, every=2), Session(gap=60)], ids=str
)
SENT: Final = [Reading(at, -1.0 if at in (3, 5) else float(at)) for at in range(1, 9)]


@kinds
@failing
def test_a_record_that_fails_is_skipped_and_leaves_nothing(
    window: AnyWindow, aggregate: Aggregator[float]
) -> None:
    app, source, results = readings(
        window, on_error="skip", late=9, all=CollectList(value), sum=aggregate
    )
    with app.test() as job:
        job.send(source, *SENT)
        job.drain()
        (found,) = job.output(results)
        assert (found["all"], found["sum"]) == ([1.0, 2.0, 4.0, 6.0, 7.0, 8.0], 28.0)


@kinds
@failing
def test_a_record_that_fails_fails_the_job_and_nothing_of_the_call_is_kept(
    window: AnyWindow, aggregate: Aggregator[float]
) -> None:
    app, source, results = readings(window, late=9, all=CollectList(value), sum=aggregate)
    with app.test() as job:
        job.send(source, SENT[0])
        with pytest.raises(StageError, match="Failure"):
            job.send(source, *SENT)
        job.drain()
        (found,) = job.output(results)
        assert (found["all"], found["sum"]) == ([1.0], 1.0)


class Strict(msgspec.Struct):
    """Refuses a window of two records."""

    key: str
    count: int

    def __post_init__(self) -> None:
        if self.count == 2:
            raise Failure


CLOSING: Final = [
    Reading(1, key="a"),
    Reading(2, key="b"),
    Reading(3, key="b"),
    Reading(4, key="c"),
]


@pytest.mark.parametrize(
    "window", [Tumbling(seconds=1), Sliding(seconds=2, every=2), Session(gap=1)], ids=str
)
def test_a_result_that_fails_fails_the_job_in_the_same_place_again(window: AnyWindow) -> None:
    app, source, results = readings(window, Strict, late=1, count=Count())
    with app.test() as job:
        job.send(source, *CLOSING)
        for _ in range(2):
            with pytest.raises(StageError, match="Failure"):
                job.send(source, Reading(60_000, key="d"))
            with pytest.raises(StageError, match="Failure"):
                job.drain()
            job.restart()
            assert job.output(results) == []


def test_a_result_that_fails_is_skipped_and_the_other_results_come() -> None:
    of = readings(Tumbling(seconds=1), Strict, on_error="skip", count=Count())
    assert drained(of, *CLOSING) == [Strict("a", 1), Strict("c", 1)]


def test_a_value_that_cannot_be_stored_fails_the_commit_and_names_the_stage() -> None:
    app, source, _ = readings(Tumbling(seconds=1), sum=Sum(lambda each: object()))
    with app.test() as job:
        job.send(source, Reading(1))
        with pytest.raises(StateError, match="'aggregate' cannot be stored"):
            job.commit()


def test_a_list_with_too_many_values_fails_its_record() -> None:
    app, source, _ = readings(Tumbling(seconds=1), all=CollectList(value, limit=2))
    with app.test() as job, pytest.raises(StageError, match="more than 2 values for one key"):
        job.send(source, Reading(1, 1.0), Reading(2, 2.0), Reading(3, 3.0))
