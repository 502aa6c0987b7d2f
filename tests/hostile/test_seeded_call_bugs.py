"""Seeded bugs in calls and retries: each must make a named test of the engine fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from streamkit import policies as policies_module
from streamkit.dataflow.watermarks import Watermarks
from streamkit.policies import Retry
from streamkit.runtime import pending_queues
from streamkit.runtime.applying import Applying
from streamkit.runtime.call_queue import CallLimits, CallQueue
from streamkit.runtime.circuit import Circuit, Rate
from streamkit.runtime.pending_queue import PendingQueue
from streamkit.runtime.pending_queues import PendingQueues
from streamkit.runtime.retry_queue import RetryQueue
from streamkit.runtime.task import Task
from streamkit.state.store import Store
from tests.engine import test_call_queue as queue
from tests.engine import test_call_sinks_model as sinks
from tests.engine import test_calls_failures_model as failures
from tests.engine import test_calls_model as model
from tests.engine import test_calls_time as time
from tests.engine import test_policies as policies
from tests.engine.call_runs import actions_of
from tests.engine.call_task_runs import TaskRun, graph_of
from tests.hostile.test_seeded_time_bugs import Bug, passes
from tests.seeded import Edit


def in_store(check: Callable[[Random, Store], object], seeds: range) -> Callable[[], None]:
    """Return the check of a model, for a few of its cases."""

    def run() -> None:
        with TemporaryDirectory() as folder:
            for store in model.opened_store(Path(folder)):
                for seed in seeds:
                    check(Random(seed), store)

    return run


def cases(name: str, seeds: range, *, has_window: bool = True) -> Callable[[], None]:
    def check(chance: Random, store: Store) -> None:
        case = model.case_of(chance)
        run = model.finished(name, chance, store, case, has_window=has_window)
        model.check(name, run, case, has_window=has_window)

    return in_store(check, seeds)


def circuit_cases(name: str, seeds: range) -> Callable[[], None]:
    def check(chance: Random, store: Store) -> None:
        attempts = chance.randint(1, 3)
        failures.finished(name, chance, store, model.KINDS, attempts=attempts, circuit=True)

    return in_store(check, seeds)


def sink_cases(name: str, seeds: range) -> Callable[[], None]:
    def check(chance: Random, store: Store) -> None:
        case = model.case_of(chance)
        graph = graph_of(model.as_is, model.world_of(chance), sinks.SINKS[name], has_window=False)
        run = TaskRun(graph, case.partitions, store, chance)
        run.to_the_end(actions_of(chance, model.KINDS))
        model.check("", run, case, has_window=False)

    return in_store(check, seeds)


def wanted_of_nan() -> None:
    policies.test_the_wanted_delay_is_read_from_an_error(
        policies.Asking("nan"), None, "UTC", pytest.MonkeyPatch()
    )


BUGS = {
    "a record waits for every retried one of its key": Bug(
        Edit(CallQueue, "_is_after_retried", "min(retried) < record.number", "True"),
        queue.test_a_record_before_a_retried_one_of_its_key_does_not_wait_for_it,
    ),
    "a record does not wait for a retried one of its key": Bug(
        Edit(CallQueue, "_is_after_retried", "min(retried) < record.number", "False"),
        queue.test_no_call_begins_for_a_record_behind_a_retried_one_of_its_key,
    ),
    "two calls of a key begin at once": Bug(
        Edit(CallQueue, "_join_group", "if len(group) == 1:", "if True:"),
        queue.test_with_order_by_key_a_call_waits_for_the_end_of_the_one_before,
    ),
    "the number of calls is not limited": Bug(
        Edit(CallQueue, "next_call", "self.running >= self.limits.concurrency", "False"),
        lambda: queue.test_no_more_calls_begin_than_may_be_in_progress("input"),
    ),
    "a record has one attempt too many": Bug(
        Edit(PendingQueue, "later", "attempts >= retry.attempts", "attempts > retry.attempts"),
        queue.test_a_failure_that_was_not_delivered_is_not_stored,
    ),
    "an open circuit counts attempts": Bug(
        Edit(PendingQueue, "later", "attempts += counts", "counts = True; attempts += 1"),
        queue.test_an_open_circuit_counts_no_attempts,
    ),
    "the job wakes up again and again while a probe is in progress": Bug(
        Edit(CallQueue, "next_s", " and not self.circuit.is_probing", ""),
        lambda: queue.test_nothing_is_due_while_a_probe_is_in_progress(CallLimits("input", 9, 5)),
    ),
    "an old call ends a probe": Bug(
        Edit(Circuit, "failed", "is_probe and self._is_probing", "self._is_probing"),
        policies.test_an_old_call_that_fails_does_not_end_a_probe,
    ),
    "a probe that fails for good never ends": Bug(
        Edit(Circuit, "failed_for_good", "if is_probe:", "if False:"),
        queue.test_a_probe_that_fails_for_good_does_not_stop_the_stage,
    ),
    "a circuit does not close when its probe drops the record": Bug(
        Edit(Applying, "apply", "self._ends_well = len(chunk) > 0", "self._ends_well = False"),
        lambda: time.test_a_circuit_closes_when_its_probe_is_processed(True),
    ),
    "a circuit closes because of records before the failed one": Bug(
        Edit(Applying, "_continued", "self._ends_well = len(applied.chunk) > 0", "pass"),
        time.test_a_circuit_stays_open_although_rows_before_the_failed_one_succeeded,
    ),
    "a record that waits for the circuit is forgotten": Bug(
        Edit(RetryQueue, "put_aside", "self._requeue([record])", "record.stage = 'held'"),
        circuit_cases("retries", range(40)),
    ),
    "a rate allows long bursts": Bug(
        Edit(Rate, "__init__", "_BURST_S - self._gap_s", "9 * _BURST_S"),
        policies.test_a_rate_is_never_exceeded,
    ),
    "a service may ask for a longer delay than the maximum": Bug(
        Edit(Retry, "delay_after_s", "min(wanted_s or 0.0, self.max_delay_s)", "wanted_s or 0.0"),
        policies.test_a_delay_is_within_its_bounds,
    ),
    "a delay may be NaN": Bug(
        Edit(policies_module, "_seconds", " if found == found else None", ""), wanted_of_nan
    ),
    "a slice does not wait for the records that it gives to calls": Bug(
        Edit(Watermarks, "marks_of", "self._waiting[node] = min(", "_ = min("),
        time.test_a_slice_with_a_jump_in_time_makes_none_of_its_records_late,
    ),
    "windows do not wait for the records in calls": Bug(
        Edit(Watermarks, "next_of", "if queued in time.before:", "if False:"),
        time.test_a_slice_with_a_jump_in_time_makes_none_of_its_records_late,
    ),
    "records are judged by the present watermark after their calls": Bug(
        Edit(Watermarks, "resume", "NEVER_MS if each is None else each", "NEVER_MS"),
        cases("calls", range(10)),
    ),
    "a drain does not wait for the calls before a window": Bug(
        Edit(Watermarks, "is_held", "each in before and", "False and"),
        time.test_drained_results_that_go_through_calls_are_not_late_for_the_next_window,
    ),
    "a finished record holds the watermark": Bug(
        Edit(PendingQueue, "lowest_mark_ms", "while self._marks and", "while False and"),
        queue.test_the_lowest_watermark_is_that_of_a_record_that_still_waits,
    ),
    "results are given in the order of partitions": Bug(
        Edit(pending_queues, "_divided", "places.setdefault(record.group, place) != place", "0"),
        time.test_records_of_a_key_in_several_partitions_keep_their_order,
    ),
    "the rest of a slice that was cut short stays given": Bug(
        Edit(Task, "resume", "give_back(records[len(work.records) :])", "give_back([])"),
        cases("calls without keys", range(10, 20)),
    ),
    "a record that waits is counted when its slice is made again": Bug(
        Edit(Task, "settle", "done.earlier = work", "pass"), cases("retries", range(10))
    ),
    "offsets of rows that wait are not in order": Bug(
        Edit(Applying, "_run", "gone.sort()", "pass"),
        cases("expanded, then retries", range(10), has_window=False),
    ),
    "rows that failed in a later step come after others of their key": Bug(
        Edit(PendingQueues, "account", 'sorted(asides, key=attrgetter("row"))', "asides"),
        sink_cases("key and encode", range(45, 50)),
    ),
    "records of the last run are counted as handled": Bug(
        Edit(Task, "__init__", ".taken = self.counts[node].pending =", ".taken ="),
        cases("calls", range(10)),
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_makes_its_check_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    bug.check()
    bug.edit.apply(monkeypatch)
    assert not passes(bug.check)
