"""The state store of a job: one owner, and commits that are complete or absent."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.errors import StateError, StateInUse, StateMismatch
from streamkit.state.store import Store

COMMITTING = """
import sys
from pathlib import Path
from streamkit.state.store import Store

store = Store(Path(sys.argv[1]))
store.open(app="app", cluster="cluster")
number = int(store.positions().get("0", {}).get("0", 0))
while True:
    number += 1
    store.commit({str(s): {str(p): str(number) for p in range(300)} for s in range(3)})
    print(number, flush=True)
"""


def opened(path: Path, **options: bool) -> Store:
    store = Store(path)
    store.open(app="app", cluster="cluster", **options)
    return store


def test_committed_positions_are_kept_after_reopening(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    store.commit({"a": {"0": "5", "1": "7"}}, {"file": {"end": "9"}})
    store.commit({"a": {"0": "6"}})
    store.close()
    again = opened(tmp_path / "s")
    assert again.positions() == {"a": {"0": "6", "1": "7"}}
    assert again.sink_positions() == {"file": {"end": "9"}}
    again.close()


def test_a_store_is_new_until_something_is_committed(tmp_path: Path) -> None:
    for commits in (0, 1):
        store = Store(tmp_path / "s")
        assert store.open(app="app", cluster="cluster").is_new
        if commits:
            store.commit({"a": {"0": "1"}})
        store.close()
    store = Store(tmp_path / "s")
    assert not store.open(app="app", cluster="cluster").is_new
    store.close()


def test_a_fresh_store_is_empty_and_has_another_state_id(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    first = store.open(app="app", cluster="cluster")
    store.commit({"a": {"0": "1"}})
    store.close()
    second = store.open(app="app", cluster="cluster", fresh=True)
    assert store.positions() == {}
    assert second.state_id != first.state_id
    store.close()


def test_a_second_owner_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = opened(tmp_path / "s")
    with pytest.raises(StateInUse, match="another run of 'app'"):
        opened(tmp_path / "s")
    first.close()
    opened(tmp_path / "s").close()


@pytest.mark.parametrize("name", ["app", "cluster"])
def test_the_store_of_another_app_or_cluster_is_refused(tmp_path: Path, name: str) -> None:
    opened(tmp_path / "s").close()
    app, cluster = ("other", "cluster") if name == "app" else ("app", "other")
    with pytest.raises(StateMismatch, match=f"belongs to the {name} '{name}'.*'other'"):
        Store(tmp_path / "s").open(app=app, cluster=cluster)


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"no database at all" * 100)
    with pytest.raises(StateError, match="cannot read the state"):
        opened(tmp_path / "s")


def test_a_refused_store_is_unlocked(tmp_path: Path) -> None:
    opened(tmp_path / "s").close()
    with pytest.raises(StateMismatch):
        Store(tmp_path / "s").open(app="other", cluster="cluster")
    opened(tmp_path / "s").close()


def test_after_a_kill_the_store_has_the_last_commit_or_the_next_one(
    tmp_path: Path, is_deep: bool
) -> None:
    chosen = random.Random(4)
    for _ in range(100 if is_deep else 10):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMITTING, str(tmp_path / "s")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as output:
            last = [int(output.readline()) for _ in range(chosen.randint(1, 40))][-1]
            process.send_signal(signal.SIGKILL)
            rest = [int(line) for line in output.read().splitlines()]
        process.wait()
        reported = (rest or [last])[-1]
        store = opened(tmp_path / "s")
        found = {int(text) for parts in store.positions().values() for text in parts.values()}
        store.close()
        assert found in ({reported}, {reported + 1})
