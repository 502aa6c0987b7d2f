"""``migrate=``: values that were stored with another type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamkit import App, State
from streamkit.errors import StateMismatch, TopologyError
from streamkit.runtime.task import Task
from streamkit.state.keyed import Keyed
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.state.types import format_of


class Count(msgspec.Struct):
    number: int


class Failure(Exception):
    pass


def refuse(number: int) -> Count:
    raise Failure("no count")


def stored(store: Store, value: object, kind: object = int) -> None:
    """Commit a value of the key ``a``."""
    states = States(store.state_rows, store.state_types())
    state = states.open(Keyed, "counted", format_of(kind, "counted"))
    state.put(b"a", value)
    state.keep_slice()
    store.commit({}, {}, states.prepare())


def migrated(store: Store, **options: Any) -> dict[bytes, Any]:
    """Start a job whose state has another type; return its values, and commit them."""
    app = App("counting")
    taps = app.stream("taps", str)

    def counted(tap: str, state: State[Count]) -> str:
        return tap

    taps.key_by(str).stateful(Count, counted, **options).to("t")
    states = States(store.state_rows, store.state_types())
    Task(app.topology, states=states)
    state = states.by_name["counted"]
    assert isinstance(state, Keyed)
    store.commit({}, {}, states.prepare())
    return dict(state.values)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "main.sqlite")
    found.open(app="counting", cluster="c")
    yield found
    found.close()


def test_stored_values_are_migrated_once(store: Store) -> None:
    stored(store, 3)
    calls: list[object] = []

    def migrate(number: int) -> Count:
        calls.append(number)
        return Count(number)

    assert migrated(store, migrate=migrate) == {b"a": Count(3)}
    assert migrated(store, migrate=migrate) == {b"a": Count(3)}
    assert migrated(store) == {b"a": Count(3)}
    assert calls == [3]


def test_values_with_a_time_keep_it_when_they_are_migrated(store: Store) -> None:
    stored(store, (50, 3), tuple[int, int])
    assert migrated(store, migrate=Count, ttl=0.1) == {b"a": (50, Count(3))}
    assert migrated(store, ttl=0.1) == {b"a": (50, Count(3))}


def test_a_migration_that_fails_is_refused_at_the_start(store: Store) -> None:
    stored(store, 3)
    with pytest.raises(StateMismatch, match=r"migrate= of 'counted' failed .* Failure: no count"):
        migrated(store, migrate=refuse)
    assert migrated(store, migrate=Count) == {b"a": Count(3)}


def test_a_migration_to_another_type_is_refused_at_the_start(store: Store) -> None:
    stored(store, 3)
    with pytest.raises(StateMismatch, match="migrate= of 'counted'"):
        migrated(store, migrate=str)


def test_another_type_without_a_migration_is_refused(store: Store) -> None:
    stored(store, 3)
    with pytest.raises(StateMismatch, match="was int, now it is Count"):
        migrated(store)


def test_a_time_can_be_added_to_stored_values_with_a_migration(store: Store) -> None:
    stored(store, 3)
    assert set(migrated(store, migrate=Count, ttl=0.1)) == {b"a"}


def test_a_migration_must_be_a_function_of_one_value(store: Store) -> None:
    with pytest.raises(TopologyError, match="migrate="):
        migrated(store, migrate=lambda: None)
