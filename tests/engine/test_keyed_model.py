"""Keyed state against a plain dict: slices, undone slices, commits, and restarts after a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.state import change_log as module
from streamkit.state.change_log import StateFormat, shard_of
from streamkit.state.keyed import Keyed
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.state.types import format_of

# Several keys in each of few shards, so that a base is encoded in several pieces.
KEYS: Final = [key for key in (b"%d" % n for n in range(2_000)) if shard_of(key) < 2][:10]
SHARDS_OF_TODAY: Final = [0, 67, 189, 198]
Step = tuple[str, list[tuple[bytes, int | None]]]

steps: Final = st.lists(
    st.tuples(
        st.sampled_from(["keep", "keep", "undo", "commit", "commit", "crash"]),
        st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.integers(0, 3)), max_size=6),
    ),
    max_size=30,
)


class Model:
    """A state, and what it should hold. A value is a list, so that it can be changed in place."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.store.open(app="a", cluster="c")
        self.form = format_of(list[int], "state")
        self.wanted: dict[bytes, list[int]] = {}
        self.committed: dict[bytes, list[int]] = {}
        self.state = self.opened()

    def opened(self) -> Keyed:
        states = States(self.store.state_rows, self.store.state_types())
        self.states = states
        return states.open(Keyed, "state", self.form)

    def run(self, changes: list[tuple[bytes, int | None]]) -> dict[bytes, list[int]]:
        """Make changes as operators do; return what should be there if they are kept."""
        wanted = {key: list(value) for key, value in self.wanted.items()}
        for key, number in changes:
            self.state.touch(key)
            if number is None:
                self.state.values.pop(key, None)
                wanted.pop(key, None)
            else:
                self.state.values.setdefault(key, []).append(number)
                wanted.setdefault(key, []).append(number)
        return wanted

    def step(self, action: str, changes: list[tuple[bytes, int | None]]) -> None:
        wanted = self.run(changes)
        if action == "undo":
            self.states.undo_slice()
        else:
            self.states.keep_slice()
            self.wanted = wanted
        if action == "commit":
            self.store.commit({}, {}, self.states.prepare())
            self.committed = {key: list(value) for key, value in self.wanted.items()}
        if action == "crash":
            self.state = self.opened()
            self.wanted = {key: list(value) for key, value in self.committed.items()}
        assert self.state.values == self.wanted


@pytest.mark.parametrize("piece", [1, 3, 1_024])
@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_a_state_holds_what_was_kept_and_after_a_crash_what_was_committed(
    tmp_path_factory: pytest.TempPathFactory, piece: int, steps: list[Step]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE_KEYS", piece)
        patch.setattr(module, "_CHANGED_KEYS_MAX", piece)
        patch.setattr(module, "SHARDS", 2)
        model = Model(tmp_path_factory.mktemp("state") / "main.sqlite")
        try:
            for action, changes in steps:
                model.step(action, changes)
            model.step("commit", [])
            model.step("crash", [])
        finally:
            model.store.close()


def test_old_deltas_are_deleted_when_every_base_is_newer(tmp_path: Path) -> None:
    model = Model(tmp_path / "main.sqlite")
    sizes = []
    for _ in range(300):
        model.step("commit", [(b"a", 1), (b"b", 2)])
        sizes.append(len(model.store.state_rows("state")))
    assert max(sizes) < 2 * 256 + 2
    model.step("crash", [])
    model.store.close()


def test_a_key_that_is_set_and_cleared_between_two_commits_has_no_value_on_disk(
    tmp_path: Path,
) -> None:
    model = Model(tmp_path / "main.sqlite")
    model.step("keep", [(b"a", 1)])
    model.step("keep", [(b"a", None)])
    change = model.state.prepare()
    assert change is not None
    assert b"\x91\x01" not in b"".join(row.data for row in change.rows)
    model.store.close()


def test_shards_of_keys_never_change() -> None:
    assert [shard_of(key) for key in (b"", b"a", b"AA", b"0123456789")] == SHARDS_OF_TODAY


def counting(form: StateFormat) -> tuple[StateFormat, Callable[[], int]]:
    calls = 0

    def encode(value: Any) -> bytes:
        nonlocal calls
        calls += 1
        return form.encode(value)

    return StateFormat(encode, form.decode, form.is_immutable, form.description), lambda: calls


def test_a_commit_encodes_only_what_has_changed(tmp_path: Path) -> None:
    form, calls = counting(format_of(int, "state"))
    state = Keyed("state", form)
    for number in range(10_000):
        state.touch(b"%d" % number)
        state.values[b"%d" % number] = number
    state.keep_slice()
    state.prepare()
    before = calls()
    state.touch(b"7")
    state.values[b"7"] = 8
    state.keep_slice()
    state.prepare()
    assert calls() - before <= 2 * module._PIECE_KEYS + 1
