"""The client's copy of a cluster's metadata, from the watches of the SC."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamkit.client.admin.topic_options import topic_spec
from streamkit.client.metadata import MetadataStore
from streamkit.protocol import specs
from streamkit.protocol.control_plane import Change, Metadata, WatchResponse
from streamkit.protocol.specs import ObjectKind
from streamkit.protocol.topic_specs import TopicResolution, TopicStatus


def topic(name: str, partitions: int = 1) -> Metadata:
    return Metadata(name, topic_spec(partitions), TopicStatus(TopicResolution.PROVISIONED))


def put(item: Metadata) -> Change:
    return Change(item, is_delete=False)


def drop(item: Metadata) -> Change:
    return Change(item, is_delete=True)


def response(
    *,
    all: tuple[Metadata, ...] = (),
    changes: tuple[Change, ...] = (),
    kind: ObjectKind = specs.TOPIC,
) -> WatchResponse:
    return WatchResponse(kind, 1, changes, all)


def filled(*items: Metadata) -> MetadataStore:
    store = MetadataStore()
    store.apply(response(all=items))
    return store


def test_the_first_response_is_a_list_even_if_it_is_empty() -> None:
    store = MetadataStore()
    for kind in (specs.SPU, specs.PARTITION, specs.TOPIC):
        assert not store.is_filled
        store.apply(response(kind=kind))
    assert store.is_filled


def test_a_full_list_replaces_the_old_state() -> None:
    store = filled(topic("a"), topic("b"))
    store.apply(response(all=(topic("b", 3), topic("c"))))
    assert store.topic_names() == ["b", "c"]
    assert store.partition_count("b") == 3


def test_changes_add_replace_and_remove_topics() -> None:
    store = filled(topic("a"), topic("b"))
    store.apply(
        response(changes=(put(topic("c")), put(topic("a", 2)), drop(topic("b")), drop(topic("x"))))
    )
    assert store.topic_names() == ["a", "c"]
    assert store.partition_count("a") == 2


def test_a_later_empty_response_changes_nothing() -> None:
    store = filled(topic("a"))
    store.apply(response())
    assert store.topic_names() == ["a"]


def test_changes_in_the_same_response_as_a_list_are_applied() -> None:
    """Unlike here, the stock client loses them."""
    store = MetadataStore()
    store.apply(response(all=(topic("a"),), changes=(put(topic("b")), drop(topic("a")))))
    assert store.topic_names() == ["b"]


def test_after_a_reconnect_the_first_response_is_a_full_list_again() -> None:
    store = filled(topic("a"), topic("b"))
    store.forget()
    assert not store.is_filled
    assert store.topic_names() == ["a", "b"], "the old state is used until the new list arrives"
    store.apply(response(all=(topic("b"),)))
    assert store.topic_names() == ["b"]
    store.forget()
    store.apply(response())
    assert store.topic_names() == []


def test_for_an_unknown_name_a_similar_one_is_suggested() -> None:
    store = filled(topic("flights"), topic("late-flights"))
    assert store.did_you_mean("flight") == "did you mean 'flights'?"
    assert store.did_you_mean("zzz") == "existing topics: flights, late-flights"
    assert filled().did_you_mean("zzz") == "there are no topics yet"


NAMES = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, st.integers(1, 5)),
    st.tuples(st.just("drop"), NAMES, st.just(1)),
    st.tuples(st.just("list"), NAMES, st.integers(1, 5)),
    st.tuples(st.just("forget"), NAMES, st.just(1)),
)


@given(st.lists(STEPS, max_size=40))
def test_the_store_has_the_state_of_the_server(steps: list[tuple[str, str, int]]) -> None:
    server: dict[str, int] = {}
    store = filled()
    for step, name, count in steps:
        match step:
            case "put":
                server[name] = count
                store.apply(response(changes=(put(topic(name, count)),)))
            case "drop":
                server.pop(name, None)
                store.apply(response(changes=(drop(topic(name)),)))
            case _:
                if step == "forget":
                    store.forget()
                if server or step == "forget":
                    items = tuple(topic(each, server[each]) for each in server)
                    store.apply(response(all=items))
        found: dict[str, Any] = {each: store.partition_count(each) for each in store.topic_names()}
        assert found == server
