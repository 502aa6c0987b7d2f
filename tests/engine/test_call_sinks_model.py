"""Sinks with several steps and retries against the rules, whatever happens to the job."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

import msgspec
import pytest

from streamkit import App
from streamkit.dataflow.stream import Stream
from streamkit.state.store import Store
from tests.engine.call_runs import actions_of
from tests.engine.call_task_runs import Item, TaskRun, World, graph_of
from tests.engine.test_calls_model import (
    KINDS,
    SEEDS,
    as_is,
    case_of,
    check,
    copies,
    keyed,
    opened_store,
    world_of,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from opened_store(tmp_path_factory.mktemp("sinks"))


class Format:
    """A format that fails for some values at first."""

    def __init__(self, world: World) -> None:
        self._world = world

    def dumps(self, item: Item) -> bytes:
        return msgspec.json.encode(self._world.call("encode", item))

    def loads(self, data: bytes) -> Item:
        return msgspec.json.decode(data, type=Item)


def key_and_encode(app: App, passed: Stream[Item], world: World) -> None:
    def key(item: Item) -> str:
        return world.call("key", item).key

    keyed(passed).to("passed", key=key, value=Format(world), on_error=world.policy)


def shape_and_encode(app: App, passed: Stream[Item], world: World) -> None:
    @app.sink(keyed(passed), to="passed", value=Format(world), on_error=world.policy)
    def shape(item: Item) -> Item:
        return world.call("shape", item)


def expand_and_encode(app: App, passed: Stream[Item], world: World) -> None:
    @app.sink(keyed(passed), to="passed", value=Format(world), on_error=world.policy)
    def shape(item: Item) -> Iterator[Item]:
        yield from copies(item)


SINKS: Final = {"key and encode": key_and_encode, "shape and encode": shape_and_encode}


@pytest.mark.parametrize("is_expanded", [True, False], ids=["expanded", "not expanded"])
@pytest.mark.parametrize("name", SINKS)
def test_sinks_with_several_steps_keep_the_order_of_each_key(
    name: str, is_expanded: bool, store: Store
) -> None:
    for seed in range(SEEDS):
        chance = Random(seed)
        case = case_of(chance)

        def shape(app: App, rows: Stream[Item], world: World) -> Stream[Item]:
            return keyed(rows.flat_map(copies) if is_expanded else rows)

        graph = graph_of(shape, world_of(chance), SINKS[name], has_window=chance.random() < 0.5)
        run = TaskRun(graph, case.partitions, store, chance)
        run.to_the_end(actions_of(chance, KINDS))
        check("expanded" if is_expanded else "", run, case, has_window=False)


def test_a_sink_that_expands_records_writes_each_result_once(store: Store) -> None:
    for seed in range(SEEDS):
        chance = Random(seed)
        case = case_of(chance)
        has_window = chance.random() < 0.5
        graph = graph_of(as_is, world_of(chance), expand_and_encode, has_window=has_window)
        run = TaskRun(graph, case.partitions, store, chance)
        run.to_the_end(actions_of(chance, KINDS))
        check("expanded", run, case, has_window=False)
