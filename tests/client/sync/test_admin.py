"""Administration without an event loop."""

from __future__ import annotations

import threading
from itertools import islice
from typing import Any, Final

import pytest

from streamkit import sync
from streamkit.client import Added, Listed, Removed, SmartModuleInfo, TopicInfo, WatchEvent
from streamkit.errors import SmartModuleNotFound, UsageError
from tests import wasm
from tests.broker_process import BrokerProcess

SOON_S: Final = 60.0


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"plain-{abs(hash(request.node.nodeid))}"


def is_about(name: str, event: WatchEvent[Any]) -> bool:
    return not isinstance(event, Listed) and event.item.name == name


def test_modules_and_spus_are_managed_with_plain_calls(client: sync.Client, name: str) -> None:
    client.admin.create_smartmodule(name, wasm.module())
    (found,) = client.admin.list_smartmodules(name)
    assert isinstance(found, SmartModuleInfo)
    client.admin.delete_smartmodule(name)
    with pytest.raises(SmartModuleNotFound, match=name):
        client.admin.delete_smartmodule(name)
    assert [spu.status for spu in client.admin.list_spus()] == ["online"]


def test_a_topic_has_the_same_options_as_in_the_async_client(
    client: sync.Client, name: str
) -> None:
    client.admin.create_topic(name, 2, compression="zstd", ignore_rack=True)
    found = client.admin.describe_topic(name)
    assert (found.partitions, found.compression, found.ignores_rack) == (2, "zstd", True)
    client.admin.create_topic(name, 2, exist_ok=True)
    with pytest.raises(UsageError, match="is not a valid name for a topic"):
        client.admin.create_topic("Bad")
    client.admin.delete_topic(name)


def test_a_watch_is_a_plain_iterator(client: sync.Client, name: str) -> None:
    with client.admin.watch_topics() as watch:
        assert isinstance(next(watch), Listed)
        client.admin.create_topic(name)
        client.admin.delete_topic(name)
        mine = (event for event in watch if is_about(name, event))
        assert [type(event) for event in islice(mine, 2)] == [Added, Removed]
    assert list(watch) == [], "the watch has ended"


def test_another_thread_runs_while_one_waits_for_a_change(client: sync.Client, name: str) -> None:
    """A watch of the official client blocks the interpreter until something happens."""
    seen: list[WatchEvent[TopicInfo]] = []
    is_listed = threading.Event()

    def follow() -> None:
        with client.admin.watch_topics() as watch:
            for event in watch:
                is_listed.set()
                if is_about(name, event):
                    seen.append(event)
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert is_listed.wait(SOON_S)
    turns = sum(1 for _ in range(1_000_000))
    assert (turns, seen, thread.is_alive()) == (1_000_000, [], True)
    client.admin.create_topic(name)
    thread.join(SOON_S)
    assert [type(event) for event in seen] == [Added]
    client.admin.delete_topic(name)


@pytest.mark.parametrize("ending", ["the watch", "the client"])
def test_the_end_of_a_watch_releases_a_waiting_thread(cluster: BrokerProcess, ending: str) -> None:
    is_listed, is_over = threading.Event(), threading.Event()
    client = sync.Client.connect(cluster.address)
    watch = client.admin.watch_smartmodules()

    def follow() -> None:
        for _ in watch:
            is_listed.set()
        is_over.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert is_listed.wait(SOON_S)
    (watch if ending == "the watch" else client).close()
    assert is_over.wait(SOON_S)
    thread.join(SOON_S)
    client.close()
