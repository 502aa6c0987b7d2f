"""State by pane and waiting records against plain dicts: slices, commits, crashes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.state import change_log as module
from streamkit.state.change_log import shard_of
from streamkit.state.panes import COPIED, Pane, Panes
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.state.types import format_of
from streamkit.state.waiting import WaitingRecords

KEYS: Final = [b"a", b"b", b"c", b"d"]
# Some panes have the same end, and are counted by other windows.
PANES: Final[list[Pane]] = [(10, 10), (10, 20), (20, 20), (30, 30)]
ends: Final = st.sampled_from(["keep", "keep", "undo", "commit", "commit", "crash"])
some: Final = settings(max_examples=30, deadline=None)
pieces: Final = pytest.mark.parametrize("piece", [1, 3])


@contextmanager
def encoded_in(piece: int) -> Iterator[None]:
    """Encode changed keys in pieces of this size, in two shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE_KEYS", piece)
        patch.setattr(module, "_CHANGED_KEYS_MAX", piece)
        patch.setattr(module, "SHARDS", 2)
        patch.setattr(module, "shard_of", lambda key: shard_of(key) % 2)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    found = Store(tmp_path_factory.mktemp("state") / "main.sqlite")
    found.open(app="a", cluster="c")
    yield found
    found.close()


class Model:
    """A state in a store, and what it should hold."""

    def __init__(self, store: Store, kind: Any, form: Any, empty: Any) -> None:
        self.store = store
        if "state" in store.state_types():  # of an earlier model
            store.delete_state("state")
        self.wanted = empty
        self.committed = copy.deepcopy(empty)
        self._kind, self._form = kind, form
        self.opened()

    def opened(self) -> None:
        self.states = States(self.store.state_rows, self.store.state_types())
        self.state = self.states.open(self._kind, "state", format_of(self._form, "state"))

    def end(self, action: str, before: Any) -> None:
        """End a slice; ``before`` is what the state held when it began."""
        if action == "undo":
            self.states.undo_slice()
            self.wanted = before
            return
        self.states.keep_slice()
        if action == "commit":
            self.store.commit({}, {}, self.states.prepare())
            self.committed = copy.deepcopy(self.wanted)
        if action == "crash":
            self.opened()
            self.wanted = copy.deepcopy(self.committed)


# --- Panes -----------------------------------------------------------------------------

# An operation adds numbers to keys of a pane, which may fail, or closes the pane.
PaneChange = tuple[str, Pane, list[tuple[bytes, int]]]
pane_changes: Final = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "fail", "close"]),
        st.sampled_from(PANES),
        st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 3)), min_size=1, max_size=4),
    ),
    max_size=5,
)


class PanesModel(Model):
    def __init__(self, store: Store) -> None:
        super().__init__(store, Panes, list[int], {})

    def change(self, action: str, pane: Pane, numbers: list[tuple[bytes, int]]) -> None:
        if action == "close":
            if pane in self.wanted:
                assert self.state.close(pane) == self.wanted.pop(pane)
            return
        old = self.add(pane, numbers)
        keys = [key for key, _ in numbers]
        if action == "fail":
            self.state.restore(pane, keys, old)
            return
        self.state.changed(pane, keys, old)
        for key, number in numbers:
            self.wanted.setdefault(pane, {}).setdefault(key, []).append(number)

    def add(self, pane: Pane, numbers: list[tuple[bytes, int]]) -> list[Any]:
        """Add to lists as operators do: copy a list the first time, then change it in place."""
        values = self.state.open(pane)
        old: list[Any] = []
        fresh = set()
        for key, number in numbers:
            before = values.get(key)
            if key in fresh:
                before.append(number)
                before = COPIED
            else:
                values[key] = [*(before or ()), number]
            fresh.add(key)
            old.append(before)
        return old

    def check(self) -> None:
        assert self.state.panes == self.wanted
        assert self.state.first() == min(self.wanted, default=None)
        assert len(self.state) == sum(map(len, self.wanted.values()))


@pieces
@some
@given(slices=st.lists(st.tuples(ends, pane_changes), max_size=14))
def test_panes_hold_what_was_kept_and_after_a_crash_what_was_committed(
    store: Store, piece: int, slices: list[tuple[str, list[PaneChange]]]
) -> None:
    with encoded_in(piece):
        model = PanesModel(store)
        for action, changes in [*slices, ("commit", []), ("crash", [])]:
            before = copy.deepcopy(model.wanted)
            # An operator closes panes when all records of the slice are in them.
            for change in sorted(changes, key=lambda each: each[0] == "close"):
                model.change(*change)
                model.check()
            model.end(action, before)
            model.check()


def test_a_pane_that_opens_and_closes_between_two_commits_is_never_stored() -> None:
    panes = Panes("state", format_of(int, "state"))
    panes.open((10, 10))[b"a"] = 7
    panes.changed((10, 10), [b"a"], [None])
    panes.keep_slice()
    panes.close((10, 10))
    panes.keep_slice()
    assert panes.prepare() is None


def test_a_pane_before_1970_keeps_its_place() -> None:
    panes = Panes("state", format_of(int, "state"))
    for pane in ((10, 10), (-10, -10), (-5, 0)):
        panes.open(pane)[b"a"] = 7
        panes.changed(pane, [b"a"], [None])
    panes.keep_slice()
    change = panes.prepare()
    assert change is not None
    again = Panes("state", format_of(int, "state"), change.rows)
    assert (again.panes, again.first()) == (panes.panes, (-10, -10))


# --- Waiting records -------------------------------------------------------------------

# An operation adds a record of a key at a time, marks one, or removes those before a time.
WaitingChange = tuple[str, bytes, int]
waiting_changes: Final = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "match", "remove"]),
        st.sampled_from(KEYS),
        st.integers(0, 8),
    ),
    max_size=6,
)


class WaitingModel(Model):
    """What is wanted are lists of key, time, value and mark, in order of arrival."""

    state: WaitingRecords

    def __init__(self, store: Store) -> None:
        super().__init__(store, WaitingRecords, list[int], [])
        self.added = 0

    def change(self, action: str, key: bytes, time: int) -> None:
        if action == "add":
            self.added += 1
            self.state.add(key, time, [self.added])
            self.wanted.append([key, time, [self.added], False])
        elif action == "match":
            mine = self.of_key(key)
            if mine:
                self.state.match(self.state.of_key(key)[time % len(mine)])
                mine[time % len(mine)][3] = True
        else:
            removed = [[each.key, each.time_ms] for each in self.state.remove_before(time)]
            gone = sorted(
                (each for each in self.wanted if each[1] < time), key=lambda each: each[1]
            )
            assert removed == [each[:2] for each in gone]
            self.wanted = [each for each in self.wanted if each[1] >= time]

    def of_key(self, key: bytes) -> list[Any]:
        mine = [each for each in self.wanted if each[0] == key]
        return sorted(mine, key=lambda each: each[1])

    def check(self) -> None:
        for key in KEYS:
            found = [
                [each.key, each.time_ms, each.value, each.is_matched]
                for each in self.state.of_key(key)
            ]
            assert found == self.of_key(key)
        assert len(self.state) == len(self.wanted)
        assert self.state.first_ms() == min((each[1] for each in self.wanted), default=None)


@pieces
@some
@given(slices=st.lists(st.tuples(ends, waiting_changes), max_size=14))
def test_waiting_records_are_those_kept_and_after_a_crash_those_committed(
    store: Store, piece: int, slices: list[tuple[str, list[WaitingChange]]]
) -> None:
    with encoded_in(piece):
        model = WaitingModel(store)
        for action, changes in [*slices, ("commit", []), ("crash", [])]:
            before = copy.deepcopy(model.wanted)
            for change in changes:
                model.change(*change)
                model.check()
            model.end(action, before)
            model.check()


def test_a_record_that_waited_only_between_two_commits_is_never_stored() -> None:
    waiting = WaitingRecords("state", format_of(int, "state"))
    waiting.add(b"a", 5, 7)
    waiting.keep_slice()
    waiting.remove_before(6)
    waiting.keep_slice()
    change = waiting.prepare()
    assert change is None or b"\x07" not in b"".join(row.data for row in change.rows)


def test_records_are_removed_in_order_of_time_and_then_of_arrival() -> None:
    waiting = WaitingRecords("state", format_of(str, "state"))
    for time, name in [(3, "third"), (1, "first"), (2, "second"), (1, "first too")]:
        waiting.add(b"a", time, name)
    removed = waiting.remove_before(3)
    assert [each.value for each in removed] == ["first", "first too", "second"]
    assert waiting.first_ms() == 3
