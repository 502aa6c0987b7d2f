"""Notices a job that fails at the same record again and again."""

from __future__ import annotations

from streamkit.dataflow.topology import Node
from streamkit.errors import StageError
from streamkit.observe.facts import Crash
from streamkit.runtime.letters import Poison, place_of
from streamkit.state.store import Store


def note_crash(store: Store, failure: BaseException | None) -> Crash | None:
    """Note how a run has ended; return the record at which it has failed, if it was one.

    After another failure, such as that of a broker, nothing is known about the record.
    """
    if isinstance(failure, StageError) and failure.offset is not None:
        stage, topic, partition, offset = (
            failure.stage,
            failure.topic,
            failure.partition,
            failure.offset,
        )
        runs = store.note_crash(place_of(stage, topic, partition, offset))
        return Crash(stage, topic, partition, offset, runs)
    if failure is None:
        store.note_crash(None)
    return None


def poison_of(store: Store, sink: Node | None) -> Poison | None:
    """Return the record that this run puts aside, if the last two have failed there.

    None without a sink for it.
    """
    if sink is None:
        return None
    place, runs = store.crash() or (None, 0)
    return Poison(place if runs + 1 >= Crash.RUNS_MAX else None, sink)
