"""Which rows a plain function with retries gets: those that do not have to wait."""

from __future__ import annotations

from itertools import compress

from streamkit.record import Chunk
from streamkit.runtime.pending_queues import groups_of, records_of
from streamkit.runtime.retry_queue import RetryQueue
from streamkit.runtime.running_node import RunningNode
from streamkit.runtime.work import Aside, Work, places_of


def rows_to_try(running: RunningNode, chunk: Chunk, work: Work, *, is_resumed: bool) -> Chunk:
    """Leave out the rows that must wait, and let them wait in the stage."""
    if work.earlier is not None:
        return _as_before(running, chunk, work)
    return (_not_paused if is_resumed else _not_blocked)(running, chunk, work)


def _not_blocked(running: RunningNode, chunk: Chunk, work: Work) -> Chunk:
    """Leave out the rows that must wait behind others of their group."""
    queue, node = running.queue, running.node
    assert isinstance(queue, RetryQueue), "asked only then"
    blocked = work.blocked.get(node, ())
    if not (blocked or queue.has_blocked) or not len(chunk):
        return chunk
    mask = [each in blocked or queue.is_blocked(each) for each in groups_of(chunk)]
    if not any(mask):
        return chunk
    waiting = chunk.select(mask)
    work.held[node] = set(compress(places_of(chunk), mask))
    marks_ms = None if running.marks is None else running.marks(waiting)
    records = records_of(waiting, marks_ms)
    rows = compress(range(len(chunk)), mask)
    work.asides += [Aside(node, *each, None) for each in zip(records, rows, strict=True)]
    work.blocked.setdefault(node, set()).update(groups_of(waiting))
    return chunk.select([not each for each in mask])


def _not_paused(running: RunningNode, chunk: Chunk, work: Work) -> Chunk:
    """Let records that have waited wait on if the circuit has opened since they were taken."""
    queue, node = running.queue, running.node
    assert isinstance(queue, RetryQueue), "asked only then"
    if queue.may_call(work.records):
        return chunk
    work.held[node] = set(places_of(chunk))
    records = work.records[: len(chunk)]
    work.asides += [Aside(node, each, row, None) for row, each in enumerate(records)]
    return chunk.slice(0, 0)


def _as_before(running: RunningNode, chunk: Chunk, work: Work) -> Chunk:
    """Leave out the rows that waited or failed when the slice was made for the first time."""
    node, earlier = running.node, work.earlier
    assert earlier is not None, "asked only then"
    for left_out in (earlier.held, earlier.failed):
        if node in left_out:
            places = places_of(chunk)
            chunk = chunk.select([each not in left_out[node] for each in places])
    return chunk
