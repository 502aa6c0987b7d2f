"""States that earlier versions have stored can be opened for ever, and give the same results."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from streamkit.state.reader import StateReader
from streamkit.state.store import Store
from tests.state_snapshots.app import CLUSTER, NAME, Job, turns
from tests.state_snapshots.make import ALL, FOLDER, KEPT, make

SNAPSHOTS = sorted(each.name.removesuffix(".sqlite.gz") for each in FOLDER.glob("*.sqlite.gz"))
# Every kind of state: what it keeps, and a name of it.
KINDS = {
    "values": "listed",
    "values that expire": "expiring",
    "timers": "timed/timers",
    "windows": "tumbling",
    "sliding windows": "sliding",
    "sessions": "sessions",
    "divided sessions": "divided",
    "windows of records": "counted",
    "waiting records": "interval/left",
    "windows of two streams": "windows/left",
    "rows of a table": "table",
    "versions": "then/versions",
}


def unpacked(name: str, folder: Path) -> Path:
    path = folder / "main.sqlite"
    path.write_bytes(gzip.decompress((FOLDER / f"{name}.sqlite.gz").read_bytes()))
    return path


def continued(path: Path, *, restarts: bool) -> list[str]:
    """Run the job from a stored state to its end; return its results."""
    outputs: list[str] = []
    store = Store(path)
    store.open(app=NAME, cluster=CLUSTER)
    job = Job(store)
    assert job.task.states.unused() == []
    for turn in turns(KEPT, ALL):
        job.process(*turn)
        if restarts:
            job.commit()
            outputs += job.outputs
            job = Job(store)
    job.drain()
    store.close()
    return outputs + job.outputs


def wanted(name: str) -> list[str]:
    return (FOLDER / f"{name}.txt").read_text().splitlines()


def test_there_is_a_snapshot_of_the_first_format() -> None:
    assert "format-1" in SNAPSHOTS


@pytest.mark.parametrize("name", SNAPSHOTS)
@pytest.mark.parametrize("restarts", [False, True])
def test_a_job_continues_from_a_stored_state(name: str, restarts: bool, tmp_path: Path) -> None:
    found = continued(unpacked(name, tmp_path), restarts=restarts)
    assert sorted(found) == sorted(wanted(name))


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_snapshot_has_every_kind_of_state(name: str, tmp_path: Path) -> None:
    with StateReader(unpacked(name, tmp_path)) as reader:
        keys = {each.name: each.keys for each in reader.infos()}
        assert {kind: keys.get(state, 0) > 0 for kind, state in KINDS.items()} == dict.fromkeys(
            KINDS, True
        )
        assert all(reader.entries(each) for each in KINDS.values())


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_snapshot_has_bases_and_deltas(name: str, tmp_path: Path) -> None:
    store = Store(unpacked(name, tmp_path))
    store.open(app=NAME, cluster=CLUSTER)
    shards = {row.shard for state in KINDS.values() for row in store.state_rows(state) if row.seq}
    store.close()
    assert -1 in shards
    assert len(shards) > 1


def test_a_snapshot_is_never_made_again() -> None:
    with pytest.raises(SystemExit, match="choose a new name"):
        make("format-1")
