"""Stages that keep a value for each key: results, failures, slices that end early, restarts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import App, Context, State
from streamkit.errors import (
    StageError,
    StateError,
    StateMismatch,
    StateTooLarge,
    TopologyError,
    UsageError,
)
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.state.keyed import Keyed
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.state.types import describe, format_of, is_immutable, type_change


class Order(msgspec.Struct, frozen=True):
    customer: str
    amount: int


class Seen(msgspec.Struct):
    """Can be changed in place."""

    amounts: list[int] = []


class Failure(Exception):
    pass


def shop(on_error: Any = "fail") -> tuple[App, Any, Any]:
    """An app whose stage lists the amounts of each customer, and fails on negative ones."""
    app = App("shop")
    orders = app.stream("orders", Order)

    @app.stage(orders.key_by(lambda order: order.customer), name="listed", on_error=on_error)
    def listed(order: Order, state: State[Seen]) -> str:
        seen = state.get() or Seen()
        seen.amounts.append(order.amount)
        state.set(seen)
        if order.amount < 0:
            raise Failure
        return f"{order.customer}{seen.amounts}"

    listed.to("lists")
    return app, orders, listed


# --- Results ---------------------------------------------------------------------------


def test_each_key_has_its_own_value() -> None:
    app, orders, listed = shop()
    with app.test() as job:
        job.send(orders, Order("a", 1), Order("b", 2), Order("a", 3))
        assert job.output(listed) == ["a[1]", "b[2]", "a[1, 3]"]
        assert job.state(listed, "a") == Seen([1, 3])
        assert job.state("listed", "c") is None


def test_reduce_emits_each_combined_value() -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    sums = numbers.key_by(lambda number: number % 2).reduce(lambda before, value: before + value)
    with app.test() as job:
        job.send(numbers, 1, 2, 3, 4, 5)
        assert job.output(sums) == [1, 2, 4, 6, 9]


def test_deduplicate_keeps_the_first_record_of_each_key() -> None:
    app = App("a")
    words = app.stream("words", str)
    first = words.key_by(str.lower).deduplicate()
    with app.test() as job:
        job.send(words, "A", "b", "a", "B", "c")
        assert job.output(first) == ["A", "b", "c"]


def test_stateful_calls_a_plain_function_with_the_state() -> None:
    app = App("a")
    words = app.stream("words", str)

    def numbered(word: str, state: State[int]) -> str | None:
        number = state.get(0) + 1
        state.set(number)
        return f"{word}{number}" if number > 1 else None

    again = words.key_by(str).stateful(int, numbered)
    with app.test() as job:
        job.send(words, "a", "b", "a", "a")
        assert job.output(again) == ["a2", "a3"]


def test_a_generator_can_keep_a_state_and_get_a_context() -> None:
    app = App("a")
    words = app.stream("words", str)

    @app.stage(words.key_by(str), name="repeated")
    def repeated(word: str, state: State[int], context: Context[str]) -> Iterator[str]:
        number = state.get(0) + 1
        state.set(number)
        yield from [f"{context.key}{number}"] * number

    with app.test() as job:
        job.send(words, "a", "a")
        assert job.output(repeated) == ["a1", "a2", "a2"]


def test_the_key_of_the_group_becomes_the_key_of_the_record() -> None:
    app, orders, _ = shop()
    with app.test() as job:
        job.send(orders, Order("a", 1))
        (record,) = job.records("lists")
        assert record.key == b"a"


def test_a_cleared_key_starts_again() -> None:
    app = App("a")
    words = app.stream("words", str)

    def toggle(word: str, state: State[bool]) -> str:
        if state.get():
            state.clear()
            return "off"
        state.set(True)
        return "on"

    toggled = words.key_by(str).stateful(bool, toggle)
    with app.test() as job:
        job.send(words, "a", "a", "a")
        assert job.output(toggled) == ["on", "off", "on"]


# --- Calls that fail -------------------------------------------------------------------


def test_a_call_that_raises_leaves_nothing() -> None:
    app, orders, listed = shop("skip")
    with app.test() as job:
        job.send(orders, Order("a", 1), Order("b", 7), Order("a", -1), Order("a", 3))
        assert job.output(listed) == ["a[1]", "b[7]", "a[1, 3]"]
        assert job.state(listed, "a") == Seen([1, 3])


def test_a_failed_send_leaves_every_state_as_before() -> None:
    app, orders, listed = shop()
    with app.test() as job:
        job.send(orders, Order("a", 1))
        with pytest.raises(StageError):
            job.send(orders, Order("a", 2), Order("b", 3), Order("a", -1))
        assert (job.state(listed, "a"), job.state(listed, "b")) == (Seen([1]), None)


def test_a_state_kept_after_the_call_cannot_be_used() -> None:
    app = App("a")
    words = app.stream("words", str)
    kept: list[State[int]] = []

    def keep(word: str, state: State[int]) -> str:
        kept.append(state)
        return word

    words.key_by(str).stateful(int, keep).to("t")
    with app.test() as job:
        job.send(words, "a")
    with pytest.raises(RuntimeError, match="only during the call"):
        kept[0].get()


@pytest.mark.parametrize(
    ("key", "words"),
    [(None, "the key is None"), (float("nan"), "NaN"), ({1, object()}, "cannot be")],
)
def test_an_invalid_key_fails_its_record(key: object, words: str) -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    numbers.key_by(lambda number: key).deduplicate().to("t")
    with app.test() as job, pytest.raises(StageError, match=words):
        job.send(numbers, 1)


# --- Slices that end early -------------------------------------------------------------


records: Final = st.lists(
    st.builds(Order, st.sampled_from("abc"), st.sampled_from([1, 2, 3, -1])), max_size=24
)


@settings(max_examples=150, deadline=None)
@given(orders=records, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
def test_results_do_not_depend_on_how_slices_are_cut_or_end(
    orders: list[Order], sizes: list[int], data: st.DataObject
) -> None:
    """A sink that refuses a record, or a stop, ends a slice before its last record."""
    app, source, _ = shop("skip")
    task = Task(app.topology, states=States())
    encode = msgspec.json.Encoder().encode
    found: list[bytes] = []
    at, is_stuck = 0, False
    while at < len(orders):
        rows = orders[at : at + data.draw(st.sampled_from(sizes))]
        part = Chunk(
            list(map(encode, rows)),
            [None] * len(rows),
            [0] * len(rows),
            range(at, at + len(rows)),
            "orders",
            0,
        )
        work = task.process(source.node, part)
        # A slice that reached nothing is followed by one that is delivered.
        reached = work.end if is_stuck else data.draw(st.integers(at, work.end))
        is_stuck = reached == at
        for output in work.outputs:
            pairs = zip(output.chunk.offsets, output.chunk.values, strict=True)
            found += [value for offset, value in pairs if offset < reached]
        task.account(work, reached)
        task.settle(work, reached)
        at = reached
    wanted: dict[str, list[int]] = {}
    lines: list[bytes] = []
    for order in orders:
        if order.amount >= 0:
            wanted.setdefault(order.customer, []).append(order.amount)
            lines.append(f"{order.customer}{wanted[order.customer]}".encode())
    assert found == lines
    listed = task.states.by_name["listed"]
    assert isinstance(listed, Keyed)
    values = listed.values
    assert {key.decode(): each.amounts for key, each in values.items()} == wanted


@pytest.mark.parametrize("rows_per_slice", [1, 2, 5])
def test_merged_streams_of_one_source_keep_the_order_of_its_records(rows_per_slice: int) -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    halves = [numbers.filter(lambda number, rest=rest: number % 2 == rest) for rest in (0, 1)]  # type: ignore[misc]
    merged = halves[0].merge(halves[1]).key_by(lambda number: 0)
    last = merged.stateful(list[int], listed_so_far)
    with app.test() as job:
        for start in range(0, 5, rows_per_slice):
            job.send(numbers, *range(start, min(5, start + rows_per_slice)))
        assert job.output(last)[-1] == [0, 1, 2, 3, 4]


def listed_so_far(number: int, state: State[list[int]]) -> list[int]:
    listed = [*(state.get() or []), number]
    state.set(listed)
    return listed


def test_a_failure_after_a_stage_with_state_undoes_later_records() -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    total = numbers.key_by(lambda number: 0).reduce(lambda before, value: before + value)

    @app.stage(total)
    def checked(number: int) -> int:
        if number == 6:
            raise Failure
        return number

    checked.to("t")
    task = Task(app.topology, states=States())
    part = Chunk([b"1", b"2", b"3", b"4"], [None] * 4, [0] * 4, range(4), "numbers", 0)
    work = task.process(numbers.node, part)
    assert (work.end, isinstance(work.failure, StageError)) == (2, True)
    task.settle(work, work.end)
    reduced = task.states.by_name["reduce"]
    assert isinstance(reduced, Keyed)
    assert reduced.values == {b"0": 3}


# --- Restarts --------------------------------------------------------------------------


def test_a_restart_continues_with_what_was_committed() -> None:
    app, orders, listed = shop()
    with app.test() as job:
        job.send(orders, Order("a", 1))
        job.restart()
        job.send(orders, Order("a", 2))
        assert job.output(listed)[-1] == "a[1, 2]"


class Before(msgspec.Struct):
    count: int


class After(msgspec.Struct):
    count: int
    last: str = ""


class Renamed(msgspec.Struct):
    number: int


@pytest.mark.parametrize(
    ("stored", "wanted", "words"),
    [
        (int, int, None),
        (Before, After, None),
        (int | None, int | str | None, None),
        (After, Before, "the field last is missing"),
        (Before, Renamed, "the field count is missing"),
        (int, str, "was int, now it is str"),
        (list[int], list[str], "an item was int, now it is str"),
        (int | None, int, "now it is int"),
    ],
)
def test_a_stored_type_can_be_read_if_only_fields_with_defaults_were_added(
    stored: Any, wanted: Any, words: str | None
) -> None:
    problem = type_change(describe(stored), describe(wanted))
    assert problem == words if words is None else words in (problem or "")


def test_a_state_of_another_type_is_refused_at_the_start(tmp_path: Path) -> None:
    store = Store(tmp_path / "main.sqlite")
    store.open(app="a", cluster="c")
    states = States()
    changed(states.open(Keyed, "visits", format_of(Before, "visits")), b"k", Before(1))
    store.commit({}, {}, states.prepare())
    again = States(store.state_rows, store.state_types())
    with pytest.raises(StateMismatch, match="'visits' cannot be read: the field count is missing"):
        again.open(Keyed, "visits", format_of(Renamed, "visits"))
    found = again.open(Keyed, "visits", format_of(After, "visits"))
    assert found.values == {b"k": After(1, "")}
    store.close()


def test_a_state_without_its_stage_is_kept_until_it_is_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path / "main.sqlite")
    store.open(app="a", cluster="c")
    states = States()
    changed(states.open(Keyed, "old", format_of(int, "old")), b"k", 1)
    store.commit({}, {}, states.prepare())
    assert States(store.state_rows, store.state_types()).unused() == ["old"]
    store.delete_state("old")
    assert States(store.state_rows, store.state_types()).unused() == []
    store.close()


def changed(state: Keyed, key: bytes, value: Any) -> None:
    state.touch(key)
    state.values[key] = value
    state.keep_slice()


def test_a_state_above_its_limit_names_the_largest_stage() -> None:
    states = States(memory_max_bytes=1_000)
    small, large = (states.open(Keyed, name, format_of(int, name)) for name in ("small", "large"))
    changed(small, b"k", 1)
    for number in range(10):
        changed(large, b"%d" % number, number)
    with pytest.raises(StateTooLarge, match="that of 'large', with 10 keys"):
        states.prepare()


@pytest.mark.parametrize(("kind", "value"), [(int, "x"), (Seen, Seen(["x"])), (int, object())])  # type: ignore[list-item]
def test_a_value_of_another_type_is_refused_before_it_is_stored(kind: Any, value: Any) -> None:
    states = States()
    changed(states.open(Keyed, "counted", format_of(kind, "counted")), b"k", value)
    with pytest.raises(StateError, match="the key b'k' in the state 'counted' cannot be stored"):
        states.prepare()


# --- Graphs that are refused -----------------------------------------------------------


def test_a_stage_with_state_needs_a_keyed_stream() -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    with pytest.raises(TopologyError, match="'numbers' has no keys"):

        @app.stage(numbers)
        def counted(number: int, state: State[int]) -> int:
            return number


def test_a_type_that_cannot_be_stored_is_refused() -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    with pytest.raises(TopologyError, match="the state of 'counted' cannot be stored"):

        @app.stage(numbers.key_by(str))
        def counted(number: int, state: State[object]) -> int:
            return number


def test_only_a_stage_keeps_a_state() -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    with pytest.raises(TopologyError, match="only a stage keeps a state"):

        @app.sink(numbers)  # type: ignore[arg-type]
        def written(number: int, state: State[int]) -> None:
            pass


def test_a_context_comes_after_the_state() -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    with pytest.raises(TopologyError, match="the order is: the value, then a State"):

        @app.stage(numbers.key_by(str))  # type: ignore[arg-type]
        def counted(number: int, context: Context[str], state: State[int]) -> int:
            return number


def test_reduce_needs_a_known_type() -> None:
    app = App("a")
    numbers = app.stream("numbers", int)
    with pytest.raises(TopologyError, match="needs the type of the values"):
        numbers.map(lambda number: number).key_by(str).reduce(max)


def test_a_stage_without_state_has_none_to_show() -> None:
    app, orders, _ = shop()
    with app.test() as job, pytest.raises(UsageError, match="keeps no state"):
        job.state(orders, "a")


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (int, True),
        (str | None, True),
        (tuple[int, ...], True),
        (Order, True),
        (Seen, False),
        (list[int], False),
        (tuple[list[int]], False),
    ],
)
def test_values_that_cannot_change_are_known(kind: Any, wanted: bool) -> None:
    assert is_immutable(kind) == wanted
