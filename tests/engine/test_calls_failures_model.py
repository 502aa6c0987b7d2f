"""Records that fail for good, and circuits, in graphs with calls and retries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Final

import msgspec
import pytest

from streamkit import App
from streamkit.dataflow.dead_letters import Letter
from streamkit.dataflow.stream import Stream
from streamkit.policies import dead_letter, retry
from streamkit.runtime.retry_queue import RetryQueue
from streamkit.state.store import Store
from tests.conftest import IS_DEEP
from tests.engine.call_runs import Passing, actions_of
from tests.engine.call_task_runs import Graph, Item, Shape, TaskRun, World, by_key, graph_of
from tests.engine.test_calls_model import KINDS, case_of, opened_store

SEEDS: Final = 500 if IS_DEEP else 30


def called(app: App, rows: Stream[Item], world: World, *, ordered: bool = True) -> Stream[Item]:
    @app.stage(rows.key_by(lambda item: item.key), on_error=world.policy, ordered=ordered)
    async def call(item: Item) -> Item:
        return world.call("call", item)

    return call


def plain(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    keyed = rows.key_by(lambda item: item.key)
    return keyed.map(partial(world.call, "call"), name="call", on_error=world.policy)


def dropping(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
    """Add a stage that drops most records, which a circuit must notice too."""
    keyed = rows.key_by(lambda item: item.key)
    return keyed.filter(
        lambda item: world.call("call", item).id % 4 == 0, name="call", on_error=world.policy
    )


SHAPES: Final[dict[str, Shape]] = {
    "calls": called,
    "calls in any order": partial(called, ordered=False),
    "retries": plain,
    "retries that drop records": dropping,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from opened_store(tmp_path_factory.mktemp("failures"))


def world_of(chance: Random, attempts: int, circuit: int | None) -> World:
    policy = retry(attempts, 0.1, 1, Passing, circuit)
    return World(
        {at: chance.randint(1, 4) for at in range(100) if chance.random() < 0.4},
        policy=policy.then(dead_letter("dead")),
        bad=frozenset(at for at in range(100) if chance.random() < 0.1),
    )


def watch_circuit(graph: Graph, run: TaskRun) -> None:
    """Refuse calls of a plain stage while its circuit is open, except for one probe at a time."""

    def check() -> None:
        (queue,) = run.task.pending.by_node.values()
        if isinstance(queue, RetryQueue):
            assert not queue.circuit.is_open or queue.circuit.is_probing

    graph.world.on_call = check


def finished(
    name: str, chance: Random, store: Store, kinds: tuple[str, ...], *, attempts: int, circuit: bool
) -> TaskRun:
    case = case_of(chance)
    world = world_of(chance, attempts, chance.randint(1, 3) if circuit else None)
    graph = graph_of(SHAPES[name], world, has_window=False)
    run = TaskRun(graph, case.partitions, store, chance)
    watch_circuit(graph, run)
    run.to_the_end(actions_of(chance, kinds))
    return run


def letters_of(run: TaskRun) -> dict[int, Letter]:
    letters = run.values_of("dead", Letter)
    found = {msgspec.json.decode(each.value_bytes, type=Item).id: each for each in letters}
    assert len(found) == len(letters), "each record has one letter"
    return found


@pytest.mark.parametrize("circuit", [False, True], ids=["no circuit", "circuit"])
@pytest.mark.parametrize("name", SHAPES)
def test_each_record_passes_or_becomes_a_letter_once(
    name: str, circuit: bool, store: Store
) -> None:
    for seed in range(SEEDS):
        chance = Random(seed)
        attempts = chance.randint(1, 3)
        run = finished(name, chance, store, KINDS, attempts=attempts, circuit=circuit)
        passed, letters = run.values_of("passed", Item), letters_of(run)
        if "drop" in name:
            numbers = {each.id for each in passed} | letters.keys()
            assert {row.id for row in run.order if row.id % 4 == 0} <= numbers
            assert len(passed) == len({each.id for each in passed})
        else:
            all_numbers = sorted([*(each.id for each in passed), *letters])
            assert all_numbers == sorted(row.id for row in run.order)
        if "any order" not in name:
            passing = {each.id for each in passed}
            order = [row for row in run.order if row.id in passing]
            assert by_key(passed, lambda each: each.key) == by_key(order, lambda row: row.key)
        for number, letter in letters.items():
            assert letter.attempts <= attempts
            assert letter.error_type == ("ValueError" if number in run.world.bad else "Passing")


@pytest.mark.parametrize("name", SHAPES)
def test_each_record_has_the_attempts_that_it_may_have(name: str, store: Store) -> None:
    """Without crashes, each call happens once, so the calls of each record are known."""
    kinds = tuple(each for each in KINDS if each not in ("crash", "read some", "resume some"))
    for seed in range(SEEDS):
        chance = Random(seed)
        attempts = chance.randint(1, 3)
        run = finished(name, chance, store, kinds, attempts=attempts, circuit=False)
        letters = letters_of(run)
        for row in run.order:
            fails = run.world.fails.get(row.id, 0)
            if row.id in run.world.bad:
                wanted, is_letter = 1, True
            else:
                wanted, is_letter = min(fails + 1, attempts), fails >= attempts
            assert run.world.calls["call", row.id] == wanted
            assert (row.id in letters) == is_letter
            if is_letter:
                assert letters[row.id].attempts == wanted
