"""Graphs with calls and retries against the rules, whatever happens to the calls and the job.

The rules know nothing of slices, calls, retries, commits and crashes: each record passes once, in
the order of its key, and later windows are the same as without such stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from streamkit import App, State
from streamkit.aggregates import CollectList, Count
from streamkit.dataflow.stream import Stream
from streamkit.errors import RowError
from streamkit.state.store import Store
from streamkit.windows import Tumbling
from tests.conftest import IS_DEEP
from tests.engine.call_runs import Passing, actions_of
from tests.engine.call_task_runs import (
    WINDOW_MS,
    Graph,
    Item,
    Shape,
    TaskRun,
    World,
    by_key,
    graph_of,
)
from tests.engine.test_windows_model import Second, as_rows, equal_windows, in_order, marked
from tests.engine.window_runs import Case, Result, Row

SEEDS: Final = 500 if IS_DEEP else 20
KINDS: Final = (
    *("read", "read", "read some", "begin", "begin", "end", "end", "end", "resume", "resume"),
    *("resume some", "wait", "wait", "tick", "commit", "crash"),
)

# --- The stages ------------------------------------------------------------------------


def keyed(rows: Stream[Item]) -> Stream[Item]:
    return rows.key_by(lambda item: item.key)


def called(name: str, app: App, rows: Stream[Item], world: World, **options: Any) -> Stream[Item]:
    async def call(item: Item) -> Item:
        return world.call(name, item)

    stage: Stream[Item] = app.stage(rows, name=name, on_error=world.policy, **options)(call)
    return stage


def by_name(app: App, rows: Stream[Item], world: World, **options: Any) -> Stream[Item]:
    return called("call", app, keyed(rows), world, **options)


def without_keys(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return called("call", app, rows, world)


def batches(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    @app.stage(keyed(rows), batch=3, concurrency=2, on_error=world.policy)
    async def call(items: list[Item]) -> list[Item]:
        for row, item in enumerate(items):
            try:
                world.call("call", item)
            except Passing as error:
                if item.id % 2:
                    raise
                raise RowError(row) from error
        return items

    return call


def two_calls(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    first = called("first", app, keyed(rows), world, concurrency=3)
    return called("second", app, first, world, concurrency=2, ordered="key")


def retried(name: str, app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return rows.map(partial(world.call, name), name=name, on_error=world.policy)


def plain(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return retried("plain", app, keyed(rows), world)


def plain_without_keys(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return retried("plain", app, rows, world)


def call_then_plain(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return retried("plain", app, called("call", app, keyed(rows), world), world)


def plain_then_call(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return called("call", app, plain(app, rows, world), world)


def counted(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    @app.stage(rows.key_by(lambda item: item.key), on_error=world.policy)
    def count(item: Item, seen: State[int]) -> Item:
        number = (seen.get() or 0) + 1
        seen.set(number)
        world.call("count", item)
        return Item(item.id, item.key, item.at, number)

    return count


def listed(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    @app.stage(rows.key_by(lambda item: item.key), on_error=world.policy)
    def count(item: Item, seen: State[list[int]]) -> Item:
        ids = seen.get() or []
        ids.append(item.id)
        seen.set(ids)
        world.call("count", item)
        return Item(item.id, item.key, item.at, len(ids))

    return count


def copies(item: Item) -> list[Item]:
    """Return the item with other numbers, up to three times."""
    return [Item(item.id * 3 + each, item.key, item.at) for each in range(item.id % 4)]


def as_is(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return rows


def expanded_then_call(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return called("call", app, keyed(rows.flat_map(copies)), world)


def expanded_then_plain(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return retried("plain", app, keyed(rows.flat_map(copies)), world)


def expanded_then_counted(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    return counted(app, rows.flat_map(copies), world)


def branches(rows: Stream[Item]) -> tuple[Stream[Item], Stream[Item]]:
    even = rows.filter(lambda item: item.id % 2 == 0, name="even")
    odd = rows.filter(lambda item: item.id % 2 == 1, name="odd")
    return keyed(even), keyed(odd)


def merged_then_plain(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    @app.stage(*branches(rows), on_error=world.policy)
    def plain(item: Item) -> Item:
        return world.call("plain", item)

    return plain


def merged_then_call(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    @app.stage(*branches(rows), on_error=world.policy)
    async def call(item: Item) -> Item:
        return world.call("call", item)

    return call


SHAPES: Final[dict[str, Shape]] = {
    "calls": by_name,
    "calls by key": partial(by_name, ordered="key", concurrency=3),
    "calls in any order": partial(by_name, ordered=False, concurrency=3),
    "calls without keys": without_keys,
    "calls in batches": batches,
    "two calls": two_calls,
    "retries": plain,
    "retries without keys": plain_without_keys,
    "calls, then retries": call_then_plain,
    "retries, then calls": plain_then_call,
    "retries with a state": counted,
    "retries with a state that changes in place": listed,
    "expanded, then calls": expanded_then_call,
    "expanded, then retries": expanded_then_plain,
    "expanded, then retries with a state": expanded_then_counted,
    "merged, then retries": merged_then_plain,
    "merged, then calls": merged_then_call,
}

# --- The tests -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from opened_store(tmp_path_factory.mktemp("calls"))


def opened_store(folder: Path) -> Iterator[Store]:
    found = Store(folder / "main.sqlite")
    found.open(app="model", cluster="c")
    yield found
    found.close()


def case_of(chance: Random) -> Case:
    partitions: list[list[Row]] = []
    number = 0
    for _ in range(chance.randint(1, 3)):
        time = 1_000
        partitions.append([])
        for _ in range(chance.randint(0, 14)):
            time += chance.choice([0, 1, 3, 9, 20])
            back = chance.choice([0, 0, 0, 2, 15, 40])
            partitions[-1].append(Row(number, chance.choice("ab"), time - back))
            number += 1
    return Case(partitions, [], chance.choice([0, 0, 5]), chance.choice([0, 10]))


def world_of(chance: Random) -> World:
    often = chance.choice([0, 0.1, 0.5])
    fails = {at: chance.randint(1, 3) for at in range(100) if chance.random() < often}
    slow = {at for at in range(300) if chance.random() < 0.05}
    return World(fails, frozenset(slow))


def finished(name: str, chance: Random, store: Store, case: Case, *, has_window: bool) -> TaskRun:
    graph = graph_of(
        SHAPES[name],
        world_of(chance),
        has_window=has_window,
        out_of_order=case.out_of_order,
        late=case.late,
    )
    run = TaskRun(graph, case.partitions, store, chance)
    run.to_the_end(actions_of(chance, KINDS))
    return run


def check(name: str, run: TaskRun, case: Case, *, has_window: bool) -> None:
    rows = marked(case)
    order = run.order
    if name.startswith("expanded"):
        rows = [(copy, mark) for row, mark in rows for copy in copies_of(row)]
        order = [copy for row in order for copy in copies_of(row)]
    passed = run.values_of("passed", Item)
    assert sorted(each.id for each in passed) == sorted(row.id for row, _ in rows)
    group: Callable[[Any], object] = lambda each: each.key  # noqa: E731
    if "without keys" in name:
        partition_of = {row.id: at for at, part in enumerate(case.partitions) for row in part}
        group = lambda each: partition_of[each.id]  # noqa: E731
    if name.startswith("merged"):
        group = lambda each: (each.key, each.id % 2)  # noqa: E731
    if "any order" not in name:
        assert by_key(passed, group) == by_key(order, group)
    if "state" in name:
        for key in "ab":
            counts = [each.count for each in passed if each.key == key]
            assert counts == list(range(1, len(counts) + 1))
    if has_window:
        results, late = equal_windows(rows, WINDOW_MS, WINDOW_MS, 0, case.late)
        assert in_order(run.values_of("results", Result)) == in_order(results)
        assert sorted(row.id for row in run.values_of("late", Row)) == sorted(late)


def copies_of(row: Row) -> list[Row]:
    return [Row(each.id, each.key, each.at) for each in copies(Item(row.id, row.key, row.at))]


def windows_around(app: App, rows: Stream[Item], world: World, *, calls: bool, case: Case) -> None:
    """Add windows, a stage that waits, and windows of what it gives."""

    def checked(result: Result) -> Result:
        world.call("between", Item(result.window_start, result.key, 0))
        return result

    windows = (
        rows.key_by(lambda item: item.key)
        .window(Tumbling(seconds=WINDOW_MS / 1_000), late=case.late / 1_000)
        .aggregate(Result, ids=CollectList(lambda item: item.id), count=Count(), name="windows")
    )

    async def called(result: Result) -> Result:
        return checked(result)

    between: Stream[Result]
    if calls:
        between = app.stage(windows, on_error=world.policy)(called)
    else:
        between = windows.map(checked, name="between", on_error=world.policy)
    second = (
        between.key_by(lambda result: "all")
        .window(Tumbling(seconds=0.025))
        .aggregate(
            Second,
            of=CollectList(lambda each: (each.key, each.window_start, each.window_end)),
            name="second",
        )
    )
    second.to("second")
    second.late.to("second-late")


@pytest.mark.parametrize("calls", [True, False], ids=["calls", "retries"])
def test_windows_of_windows_lose_no_result_that_waits(calls: bool, store: Store) -> None:
    for seed in range(SEEDS):
        chance = Random(seed)
        case = case_of(chance)
        world = world_of(chance)
        app = App("model")
        rows = app.stream(
            "rows", Item, event_time=lambda row: row.at, out_of_order=case.out_of_order / 1_000
        )
        windows_around(app, rows, world, calls=calls, case=case)
        run = TaskRun(Graph(app, rows, world), case.partitions, store, chance)
        run.to_the_end(actions_of(chance, KINDS))
        results, _ = equal_windows(marked(case), WINDOW_MS, WINDOW_MS, 0, case.late)
        assert not run.values_of("second-late", Result)
        found = run.values_of("second", Second)
        assert sorted(each for second in found for each in second.of) == sorted(
            (each.key, each.window_start, each.window_end) for each in results
        )
        wanted = equal_windows(as_rows(results), 25, 25, 0, 0)[0]
        assert sorted(each.window_start for each in found) == sorted(
            each.window_start for each in wanted
        )


@pytest.mark.parametrize("has_window", [True, False], ids=["window", "no window"])
@pytest.mark.parametrize("name", SHAPES)
def test_each_record_passes_once_and_in_time(name: str, has_window: bool, store: Store) -> None:
    for seed in range(SEEDS):
        chance = Random(seed)
        case = case_of(chance)
        try:
            run = finished(name, chance, store, case, has_window=has_window)
            check(name, run, case, has_window=has_window)
        except BaseException as error:
            error.add_note(f"with the seed {seed}")
            raise
