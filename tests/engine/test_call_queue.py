"""Single rules of the queue of calls, each as a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from streamkit.errors import RowError
from streamkit.policies import Policy, retry
from streamkit.runtime.call_queue import CallLimits, CallQueue
from streamkit.runtime.pending_queue import Chances
from streamkit.state.pending import PendingRecord, PendingRecords
from tests.engine.call_runs import INT, Passing, Stored

TWICE = Policy(retry(2, delay=1, max_delay=8, on=Passing), "skip")
PAUSES = Policy(retry(9, delay=1, max_delay=8, on=Passing, open_circuit_after=1), "skip")


def queue_of(
    limits: CallLimits, policy: Policy, keys: str, stored: Stored | None = None
) -> CallQueue:
    """Return a queue with a record for each letter, which is its key; its value is its number."""
    rows = () if stored is None else stored.rows
    queue = CallQueue(PendingRecords("calls", INT, rows), limits, policy, Chances(), 0.0)
    records = [PendingRecord(at, key.encode(), 0, at, "t", 0) for at, key in enumerate(keys)]
    if records:
        queue.add(records, 0.0)
    return queue


def numbers(records: Sequence[PendingRecord]) -> list[int]:
    return [each.value for each in records]


def returns(queue: CallQueue, call: Sequence[PendingRecord]) -> None:
    queue.finish(call, [None] * len(call), None, 0.0)


def delivered(queue: CallQueue) -> list[int]:
    found = queue.take(100)
    queue.remove(found)
    return numbers(found)


def test_a_retried_record_comes_later_and_others_of_its_key_wait() -> None:
    queue = queue_of(CallLimits("input", concurrency=3), TWICE, "abab")
    first, second, third = (queue.next_call(0.0) for _ in range(3))
    queue.finish(first, (), Passing(), 0.0)
    returns(queue, second)
    returns(queue, third)
    assert delivered(queue) == [1]
    returns(queue, queue.next_call(0.0))
    assert delivered(queue) == [3]
    assert queue.next_call(0.9) == []
    returns(queue, queue.next_call(1.0))
    assert delivered(queue) == [0, 2]


def test_no_call_begins_for_a_record_behind_a_retried_one_of_its_key() -> None:
    queue = queue_of(CallLimits("input", concurrency=2), TWICE, "xaba")
    first = queue.next_call(0.0)
    queue.finish(queue.next_call(0.0), (), Passing(), 0.0)
    other = queue.next_call(0.0)
    assert numbers([*first, *other]) == [0, 2]
    returns(queue, other)
    assert queue.next_call(0.5) == []


def test_with_order_by_key_a_call_waits_for_the_end_of_the_one_before() -> None:
    queue = queue_of(CallLimits("key", concurrency=9), TWICE, "aab")
    first, other = queue.next_call(0.0), queue.next_call(0.0)
    assert numbers([*first, *other]) == [0, 2]
    assert queue.next_call(0.0) == []
    returns(queue, first)
    assert numbers(queue.next_call(0.0)) == [1]
    assert delivered(queue) == [0]


@pytest.mark.parametrize("order", ["input", "key", "none"])
def test_no_call_begins_after_a_record_at_which_the_job_stops(order: Literal["input"]) -> None:
    queue = queue_of(CallLimits(order, concurrency=2), Policy(None, "fail"), "aabc")
    first = queue.next_call(0.0)
    queue.finish(first, (), ValueError(), 0.0)
    assert queue.next_call(0.0) == []
    assert [each.error is None for each in queue.take(9)] == [False]


def test_a_record_before_the_one_that_stops_the_job_is_still_called() -> None:
    queue = queue_of(CallLimits("input", concurrency=2, batch=1), Policy(None, "fail"), "abc")
    first, second = queue.next_call(0.0), queue.next_call(0.0)
    queue.finish(second, (), ValueError(), 0.0)
    assert queue.next_call(0.0) == []
    returns(queue, first)
    assert numbers(queue.take(9)) == [0, 1]


def test_a_record_before_a_retried_one_of_its_key_does_not_wait_for_it() -> None:
    # The batch returned two records to the queue while a later one of the key was being called.
    queue = queue_of(CallLimits("input", concurrency=2, batch=2), TWICE, "aaa")
    queue.is_flushing = True
    batch, last = queue.next_call(0.0), queue.next_call(0.0)
    assert (numbers(batch), numbers(last)) == ([0, 1], [2])
    queue.finish(batch, (), RowError(0), 0.0)
    queue.finish(last, (), Passing(), 0.0)
    assert delivered(queue) == [0]
    assert numbers(queue.next_call(0.0)) == [1]


@pytest.mark.parametrize("order", ["input", "key", "none"])
def test_no_more_calls_begin_than_may_be_in_progress(order: Literal["input"]) -> None:
    queue = queue_of(CallLimits(order, concurrency=2), TWICE, "abc")
    first = queue.next_call(0.0)
    assert queue.next_call(0.0)
    assert queue.next_call(0.0) == []
    returns(queue, first)
    assert queue.next_call(0.0)


def test_a_batch_that_fails_for_good_is_called_record_by_record() -> None:
    queue = queue_of(CallLimits("input", batch=3), TWICE, "abc")
    queue.finish(queue.next_call(0.0), (), ValueError(), 0.0)
    for each in range(3):
        call = queue.next_call(0.0)
        assert numbers(call) == [each]
        returns(queue, call)
    assert delivered(queue) == [0, 1, 2]


def test_a_batch_waits_for_more_records_until_its_time() -> None:
    queue = queue_of(CallLimits("input", batch=3, max_wait_s=0.5), TWICE, "ab")
    assert queue.next_call(0.4) == []
    assert queue.next_s() == 0.5
    assert numbers(queue.next_call(0.5)) == [0, 1]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("size", [100, 4_096, 5_000, 20_000])
def test_the_queue_takes_as_many_records_as_all_batches_need(size: int, concurrency: int) -> None:
    limits = CallLimits("input", concurrency, batch=size, max_wait_s=60)
    queue = queue_of(limits, Policy(None, "fail"), "")
    added = 0
    for _ in range(concurrency):
        while not queue.is_full and not (call := queue.next_call(0.0)):
            queue.add([PendingRecord(added, None, 0, added, "t", 0)], 0.0)
            added += 1
        assert len(call) == size
    assert not queue.is_full


def test_a_batch_begins_when_the_queue_takes_no_more_records() -> None:
    limits = CallLimits("input", batch=1_000, max_wait_s=60)
    queue = queue_of(limits, Policy(None, "fail"), "")
    while not queue.is_full:
        assert queue.next_call(0.0) == []
        queue.add([PendingRecord("x" * 2**20, None, 0, 0, "t", 0)], 0.0)
    assert 1 < len(queue.next_call(0.0)) < 1_000


@pytest.mark.parametrize("order", ["input", "key", "none"])
def test_a_full_batch_waits_only_for_the_limit_of_the_rate(order: Literal["input"]) -> None:
    limits = CallLimits(order, batch=2, max_wait_s=60, rate_per_s=5)
    queue = queue_of(limits, TWICE, "abcde")
    returns(queue, queue.next_call(0.0))
    assert queue.next_call(0.0) == []
    assert queue.next_s() == pytest.approx(0.2)
    returns(queue, queue.next_call(0.2))
    assert queue.next_s() == 60.0


def test_a_record_that_is_called_alone_waits_only_for_the_limit_of_the_rate() -> None:
    limits = CallLimits("input", batch=3, max_wait_s=60, rate_per_s=5)
    queue = queue_of(limits, TWICE, "abc")
    queue.finish(queue.next_call(0.0), (), ValueError(), 0.0)
    assert queue.next_s() == pytest.approx(0.2)
    assert numbers(queue.next_call(0.2)) == [0]


@pytest.mark.parametrize("limits", [CallLimits("input", 9, rate_per_s=5), CallLimits(batch=1)])
def test_nothing_is_due_while_a_probe_is_in_progress(limits: CallLimits) -> None:
    queue = queue_of(limits, PAUSES, "abc")
    queue.finish(queue.next_call(0.0), (), Passing(), 0.0)
    assert queue.next_call(0.9) == []
    assert queue.next_s() == 1.0
    assert queue.next_call(1.0)
    assert queue.next_call(50.0) == []
    assert queue.next_s() is None


def test_an_open_circuit_counts_no_attempts() -> None:
    policy = Policy(retry(2, delay=1, max_delay=8, on=Passing, open_circuit_after=1), "skip")
    queue = queue_of(CallLimits(), policy, "a")
    for now_s in (0.0, 10.0, 30.0, 50.0):
        call = queue.next_call(now_s)
        queue.finish(call, (), Passing(), now_s)
        assert call[0].attempts == 1
    returns(queue, queue.next_call(100.0))
    assert delivered(queue) == [0]


def test_no_other_record_is_called_while_the_service_asks_to_wait() -> None:
    busy = Passing()
    busy.retry_after = 5  # type: ignore[attr-defined]
    queue = queue_of(CallLimits("input"), PAUSES, "ab")
    queue.finish(queue.next_call(0.0), (), busy, 0.0)
    assert queue.next_call(4.9) == []
    assert queue.next_s() == 5.0
    assert queue.next_call(5.0)


def test_a_probe_that_fails_for_good_does_not_stop_the_stage() -> None:
    queue = queue_of(CallLimits("input"), PAUSES, "ab")
    queue.finish(queue.next_call(0.0), (), Passing(), 0.0)
    queue.finish(queue.next_call(1.0), (), ValueError(), 1.0)
    returns(queue, queue.next_call(1.0))
    assert sorted([*delivered(queue), *delivered(queue)]) == [0, 1]


def test_a_failure_that_was_not_delivered_is_not_stored() -> None:
    stored = Stored()
    queue = queue_of(CallLimits(), TWICE, "a")
    queue.finish(queue.next_call(0.0), (), Passing(), 0.0)
    queue.finish(queue.next_call(1.0), (), Passing(), 0.0)
    assert queue.take(1)[0].error is not None
    assert queue.records.problem() is None
    stored.apply(queue.records.prepare())
    again = queue_of(CallLimits(), TWICE, "", stored)
    assert again.next_call(0.0)[0].attempts == 1


def test_the_lowest_watermark_is_that_of_a_record_that_still_waits() -> None:
    queue = queue_of(CallLimits("none"), TWICE, "")
    records = [PendingRecord(at, None, 0, at, "t", 0) for at in range(3)]
    for record, mark_ms in zip(records, (5, 1, 9), strict=True):
        record.mark_ms = mark_ms
    queue.add(records, 0.0)
    assert queue.lowest_mark_ms() == 1
    queue.next_call(0.0)
    queue.remove(records[1:2])
    assert queue.lowest_mark_ms() == 5
    queue.remove([records[0], records[2]])
    assert queue.lowest_mark_ms() is None


def test_a_call_of_a_sink_has_written_the_records_before_the_one_that_failed() -> None:
    queue = queue_of(CallLimits("input", batch=4, writes=True), Policy(None, "skip"), "abcd")
    call = queue.next_call(0.0)
    queue.finish(call, (), RowError(1), 0.0)
    assert [record.offset for record in queue.take(9)] == [0, 1]
    assert [record.offset for record in queue.next_call(1.0)] == [2, 3]


def test_a_sink_that_was_not_called_yet_has_written_nothing() -> None:
    queue = queue_of(CallLimits("input", batch=4, writes=True), Policy(None, "skip"), "abcd")
    call = queue.next_call(0.0)
    error = RowError(2, "it fits into no column")
    error.is_before_call = True
    queue.finish(call, (), error, 0.0)
    assert numbers(queue.next_call(0.1)) == [0, 1, 3]
