"""Watches: the list, then every change, across lost connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit import Client
from streamkit.client import (
    Added,
    Changed,
    Listed,
    Removed,
    SmartModuleInfo,
    TopicInfo,
    Watch,
    WatchEvent,
)
from streamkit.client.admin.watch_state import WatchState
from streamkit.protocol import specs
from streamkit.protocol.control_plane import Change, Metadata, WatchResponse
from tests import wasm
from tests.broker_process import BrokerProcess
from tests.proxy import Proxy, Replace

SOON_S: Final = 60.0
T = TypeVar("T")
_numbers = count()


def fresh(prefix: str = "watched") -> str:
    return f"{prefix}-{next(_numbers)}"


# --- The watch state ---------------------------------------------------------------------


def item(name: str, value: int = 0) -> Metadata:
    return Metadata(name, value, None)


def describe(found: Metadata) -> tuple[str, int]:
    return found.name, found.spec


def response_of(*changes: Change, all: tuple[Metadata, ...] = ()) -> WatchResponse:
    return WatchResponse(specs.TOPIC, 1, changes, all)


def put(name: str, value: int = 0) -> Change:
    return Change(item(name, value))


def drop(name: str) -> Change:
    return Change(item(name, -1), is_delete=True)


def state(*items: Metadata) -> WatchState[tuple[str, int]]:
    seen = WatchState(describe)
    seen.take(response_of(all=items))
    return seen


def test_the_first_response_is_a_list_sorted_by_name_even_if_it_is_empty() -> None:
    assert WatchState(describe).take(response_of()) == [Listed(())]
    assert WatchState(describe).take(response_of(all=(item("b"), item("a", 1)))) == [
        Listed((("a", 1), ("b", 0)))
    ]


def test_a_change_has_the_previous_state() -> None:
    seen = state(item("a"))
    assert seen.take(response_of(put("b"), put("a", 1), drop("a"))) == [
        Added(("b", 0)),
        Changed(("a", 1), before=("a", 0)),
        Removed(("a", 1)),
    ]


def test_an_update_without_a_change_is_not_reported() -> None:
    seen = state(item("a"))
    assert seen.take(response_of(put("a"), drop("never-there"))) == []
    assert seen.take(response_of()) == []


def test_a_full_list_is_reported_even_if_it_is_not_the_first_one() -> None:
    seen = state(item("a"))
    assert seen.take(response_of(all=(item("b"),))) == [Listed((("b", 0),))]
    assert seen.take(response_of(put("b", 1))) == [Changed(("b", 1), before=("b", 0))]
    seen.forget()
    assert seen.take(response_of()) == [Listed(())]
    assert seen.take(response_of(put("b", 1))) == [Added(("b", 1))]


def after(state: dict[str, int], event: WatchEvent[tuple[str, int]]) -> dict[str, int]:
    """The state of a program that follows the events."""
    match event:
        case Listed(items):
            return dict(items)
        case Added((name, value)):
            assert name not in state
            return state | {name: value}
        case Changed((name, value), before):
            assert before == (name, state[name]) != (name, value)
            return state | {name: value}
        case Removed((name, value)):
            assert state[name] == value
            return {key: held for key, held in state.items() if key != name}


NAMES: Final = st.sampled_from("abc")
CHANGES: Final = st.builds(put, NAMES, st.integers(0, 2)) | st.builds(drop, NAMES)
RESPONSES: Final = st.lists(CHANGES, max_size=4).map(
    lambda changes: response_of(*changes)
) | st.lists(
    st.builds(item, NAMES, st.integers(0, 2)), min_size=1, unique_by=lambda each: each.name
).map(lambda items: response_of(all=tuple(items)))


@given(st.lists(RESPONSES, max_size=8))
def test_applying_all_events_gives_the_state_of_the_server(
    responses: list[WatchResponse],
) -> None:
    seen, known, there = WatchState(describe), dict[str, int](), dict[str, int]()
    for response in responses:
        if response.all:
            there = {each.name: each.spec for each in response.all}
        for change in response.changes:
            there.pop(change.item.name, None)
            if not change.is_delete:
                there[change.item.name] = change.item.spec
        known = reduce(after, seen.take(response), known)
        assert known == there


# --- Against a broker --------------------------------------------------------------------


async def next_of(watch: Watch[T], wanted: Callable[[WatchEvent[T]], object]) -> WatchEvent[T]:
    """Return the next event for this test; other tests use the same broker."""
    with anyio.fail_after(SOON_S):
        async for event in watch:
            if wanted(event):
                return event
    raise AssertionError("it ended")


def about(name: str, field: str = "name") -> Callable[[WatchEvent[Any]], bool]:
    def is_about(event: WatchEvent[Any]) -> bool:
        return not isinstance(event, Listed) and getattr(event.item, field) == name

    return is_about


def is_list(event: WatchEvent[Any]) -> bool:
    return isinstance(event, Listed)


async def test_a_topic_is_reported_from_its_creation_to_its_deletion(client: Client) -> None:
    name = fresh()
    async with client.admin.watch_topics() as watch:
        first = await next_of(watch, lambda _: True)
        assert isinstance(first, Listed)
        assert "consumer-offset" in [topic.name for topic in first.items]
        await client.admin.create_topic(name)
        await client.admin.add_partitions(name)
        await client.admin.delete_topic(name)
        added = await next_of(watch, about(name))
        changed = await next_of(watch, about(name))
        removed = await next_of(watch, about(name))
    assert isinstance(added, Added)
    assert isinstance(changed, Changed)
    assert (changed.before, changed.item.partitions) == (added.item, 2)
    assert removed == Removed(changed.item)


async def test_partitions_report_their_offsets(client: Client) -> None:
    name = fresh()
    async with client.admin.watch_partitions() as watch:
        assert is_list(await next_of(watch, lambda _: True))
        await client.admin.create_topic(name)
        added = await next_of(watch, about(name, "topic"))
        assert isinstance(added, Added)
        assert (added.item.partition, added.item.log_end) == (0, 0)
        async with client.producer(name) as producer:
            await producer.send(b"x")
        changed = await next_of(watch, about(name, "topic"))
        assert isinstance(changed, Changed)
        assert (changed.item.log_end, changed.before) == (1, added.item)


async def test_modules_are_reported_without_their_payload(client: Client) -> None:
    name = fresh("watched-module")
    async with client.admin.watch_smartmodules() as watch:
        assert is_list(await next_of(watch, lambda _: True))
        await client.admin.create_smartmodule(name, wasm.module())
        await client.admin.delete_smartmodule(name)
        added = await next_of(watch, about(name))
        removed = await next_of(watch, about(name))
    assert isinstance(added, Added)
    assert isinstance(added.item, SmartModuleInfo)
    assert added.item.size_bytes > 0
    assert removed == Removed(added.item)


async def test_two_watches_of_one_client_do_not_wait_for_each_other(client: Client) -> None:
    """The first one is never read; in a stock client this blocks the second one."""
    names = [fresh() for _ in range(30)]
    async with client.admin.watch_topics() as unread, client.admin.watch_topics() as read:
        assert is_list(await next_of(unread, lambda _: True))
        assert is_list(await next_of(read, lambda _: True))
        for name in names:
            await client.admin.create_topic(name)
        for name in names:
            assert isinstance(await next_of(read, about(name)), Added)
        for name in names:
            assert isinstance(await next_of(unread, about(name)), Added)


async def test_a_wait_that_is_cancelled_loses_no_change(client: Client) -> None:
    names = [fresh() for _ in range(20)]
    seen: list[str] = []

    async def make_all() -> None:
        for name in names:
            await client.admin.create_topic(name)

    async with client.admin.watch_topics() as watch, anyio.create_task_group() as tasks:
        assert is_list(await next_of(watch, lambda _: True))
        tasks.start_soon(make_all)
        with anyio.fail_after(SOON_S):
            while names[-1] not in seen:
                with anyio.move_on_after(0.002):
                    event = await anext(watch)
                    assert isinstance(event, Added | Changed | Removed)
                    seen.append(event.item.name)
    assert [name for name in seen if name in names] == names


# --- Lost connections --------------------------------------------------------------------


async def test_after_a_lost_connection_the_watch_reconnects_with_a_new_list(
    cluster: BrokerProcess,
) -> None:
    name = fresh()
    with Proxy(cluster.sc_port, cluster.spu_port) as proxy:
        async with (
            Client.connect(cluster.address) as direct,
            Client.connect(proxy.address) as client,
            client.admin.watch_topics() as watch,
        ):
            assert is_list(await next_of(watch, lambda _: True))
            proxy.cut_all()
            await direct.admin.create_topic(name)
            again = await next_of(watch, is_list)
            assert isinstance(again, Listed)
            if name not in topic_names(again):  # it reconnected before the topic was created
                assert isinstance(await next_of(watch, about(name)), Added)
            await direct.admin.delete_topic(name)
            assert isinstance(await next_of(watch, about(name)), Removed)


def topic_names(listed: Listed[TopicInfo]) -> list[str]:
    return [topic.name for topic in listed.items]


async def test_a_watch_resumes_after_a_broker_restart(own_broker: BrokerProcess) -> None:
    async with (
        Client.connect(own_broker.address) as client,
        client.admin.watch_topics() as watch,
    ):
        assert is_list(await next_of(watch, lambda _: True))
        await client.admin.create_topic("before")
        assert isinstance(await next_of(watch, about("before")), Added)
        await anyio.to_thread.run_sync(own_broker.restart)
        again = await next_of(watch, is_list)
        assert isinstance(again, Listed)
        assert topic_names(again) == ["before", "consumer-offset"]
        await client.admin.create_topic("after")
        assert isinstance(await next_of(watch, about("after")), Added)


async def test_a_list_that_became_empty_is_also_reported(
    own_broker: BrokerProcess, tmp_path: Path
) -> None:
    with BrokerProcess(tmp_path / "other") as empty:
        async with (
            Client.connect(own_broker.address) as client,
            client.admin.watch_smartmodules() as watch,
        ):
            await client.admin.create_smartmodule("there", wasm.module())
            first = await next_of(watch, lambda _: True)
            assert isinstance(first, Listed)
            assert [module.name for module in first.items] == ["there"]
            client.cluster.move(empty.address)
            own_broker.stop()
            assert await next_of(watch, lambda _: True) == Listed(())


async def test_after_an_unreadable_response_the_watch_starts_again(cluster: BrokerProcess) -> None:
    broken: list[bytes] = []

    def break_once(frame: bytes) -> bytes | None:
        if b"SmartModule" not in frame or broken:
            return None
        broken.append(frame)
        return frame.replace(b"SmartModule", b"StupidThing")

    with Proxy(cluster.sc_port, cluster.spu_port, Replace("sc down", break_once)) as proxy:
        async with (
            Client.connect(proxy.address) as client,
            client.admin.watch_smartmodules() as watch,
        ):
            assert is_list(await next_of(watch, lambda _: True))
            assert broken


# --- Closing -----------------------------------------------------------------------------


async def connections_are(proxy: Proxy, count: int) -> None:
    await anyio.to_thread.run_sync(proxy.wait_for_connections, count)


async def test_leaving_a_watch_closes_its_connection(cluster: BrokerProcess) -> None:
    with Proxy(cluster.sc_port, cluster.spu_port) as proxy:
        async with Client.connect(proxy.address) as client:
            await connections_are(proxy, 1)
            async with client.admin.watch_topics() as watch:
                assert is_list(await next_of(watch, lambda _: True))
                assert proxy.connections == 2
            await connections_are(proxy, 1)
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
            assert await client.admin.list_topics() is not None


@pytest.mark.parametrize("ending", ["the watch", "the client"])
async def test_closing_a_watch_ends_a_waiting_iteration(
    cluster: BrokerProcess, ending: str
) -> None:
    events: list[WatchEvent[SmartModuleInfo]] = []
    is_listed, is_over = anyio.Event(), anyio.Event()

    async def follow(watch: Watch[SmartModuleInfo]) -> None:
        async for event in watch:
            events.append(event)
            is_listed.set()
        is_over.set()

    async with anyio.create_task_group() as tasks:
        client = Client.connect(cluster.address)
        async with client:
            watch = client.admin.watch_smartmodules()
            tasks.start_soon(follow, watch)
            with anyio.fail_after(SOON_S):
                await is_listed.wait()
            if ending == "the watch":
                await watch.close()
        with anyio.fail_after(SOON_S):
            await is_over.wait()
    assert is_list(events[0])
