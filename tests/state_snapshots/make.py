"""Makes a snapshot of today's format: the state of a job, and what the job does afterwards.

Run it once for each new format of the state, with a new name::

    python -m tests.state_snapshots.make format-2

A snapshot that exists is never made again: it stands for states that users have.
"""

from __future__ import annotations

import gzip
import sqlite3
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from streamkit.state.store import Store
from tests.state_snapshots.app import CLUSTER, NAME, Job, turns

FOLDER = Path(__file__).parent
# How many turns the job has done before its state was kept, and how many there are.
KEPT, ALL = 7, 13


def make(name: str) -> None:
    """Write the state of a job in the middle, and its results from there on."""
    kept, results = FOLDER / f"{name}.sqlite.gz", FOLDER / f"{name}.txt"
    if kept.exists() or results.exists():
        raise SystemExit(f"{kept} exists: choose a new name")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "main.sqlite"
        store = Store(path)
        store.open(app=NAME, cluster=CLUSTER)
        job = Job(store)
        for number, turn in enumerate(turns(0, KEPT)):
            job.process(*turn)
            if number % 9 == 8:
                job.commit()
        job.commit()
        store.close()
        with sqlite3.connect(path) as db:
            db.execute("VACUUM")
        db.close()
        kept.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        job.outputs.clear()
        for turn in turns(KEPT, ALL):
            job.process(*turn)
        job.drain()
        results.write_text("\n".join(job.outputs) + "\n")


if __name__ == "__main__":
    make(sys.argv[1])
