"""Seeded bugs in the engine: each must make a test of this folder fail.

Each bug has a check, which passes without the bug and fails with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamkit.connectors.broker_offsets import BrokerOffsets
from streamkit.connectors.topics import TopicWriter
from streamkit.dataflow import operators
from streamkit.run.opening import Opening
from streamkit.runtime import delivery, function_sinks
from streamkit.runtime import task as task_module
from streamkit.runtime.applying import Applying
from streamkit.runtime.async_caller import AsyncCaller
from streamkit.runtime.call_queue import CallQueue
from streamkit.runtime.caller import Caller
from streamkit.runtime.committer import Committer
from streamkit.runtime.delivery import Delivery
from streamkit.runtime.feeds import TaskFeed, ThreadFeed
from streamkit.runtime.function_sinks import FunctionWriter, ObjectWriter
from streamkit.runtime.function_source import FunctionReader
from streamkit.runtime.pending_queues import PendingQueues
from tests.hostile import test_call_matrix, test_call_rules, test_matrix, test_rules
from tests.hostile.behaviours import HARMLESS, RAISES
from tests.hostile.call_graphs import BY_KEY, CALLED_SINKS, IN_ORDER, RETRIED
from tests.hostile.graphs import SINKS, SOURCES, STAGES
from tests.hostile.running import Place
from tests.seeded import Edit

Check = Callable[[Place, Path], object]
BEHAVIOURS = {each.name: each for each in [*RAISES, *HARMLESS]}
SLOTS = {each.name: each for each in [*STAGES, *SINKS, *SOURCES]}


@dataclass(frozen=True)
class Bug:
    edit: Edit
    check: Check


def cell(slot: str, behaviour: str, moment: str, policy: str) -> Check:
    """Return a cell of the matrix as a check."""
    case = test_matrix.Case(SLOTS[slot], BEHAVIOURS[behaviour], moment, policy)
    return lambda place, folder: test_matrix.test_hostile_code_loses_and_repeats_nothing(
        place, case
    )


def call(slot: str, behaviour: str, moment: str, policy: str) -> Check:
    """Return a cell of the matrix of calls as a check."""
    slots = {each.name: each for each in (*IN_ORDER, *BY_KEY, *RETRIED, *CALLED_SINKS)}
    case = test_call_matrix.Case(slots[slot], BEHAVIOURS[behaviour], moment, policy)
    return lambda place, folder: test_call_matrix.test_hostile_calls_lose_and_repeat_nothing(
        place, case
    )


def rule(test: Callable[[Place], object]) -> Check:
    return lambda place, folder: test(place)


BUGS = {
    "a failed flush is ignored": Bug(
        Edit(Committer, "_wait_for_sinks", "self._fail(error)", "pass"),
        test_rules.test_a_failed_flush_is_reported_even_if_the_job_stops,
    ),
    "a flush may overlap with a write": Bug(
        Edit(ObjectWriter, "flush", "async with self._calling:", "if True:"),
        rule(test_rules.test_a_flush_never_overlaps_with_a_write),
    ),
    "the result of a sink is not awaited": Bug(
        Edit(FunctionWriter, "_call_each", "await settle(result)", "pass"),
        lambda place, folder: test_rules.test_awaitable_results_of_a_sink_are_awaited(
            place, "pool"
        ),
    ),
    "a failure ends one record too late": Bug(
        Edit(Applying, "_goes_on", "work.fail(failure, offset)", "work.fail(failure, offset + 1)"),
        cell("stage", "raises", "middle", "fail"),
    ),
    "a round writes more to topics than to other sinks": Bug(
        Edit(delivery, "_between", "bisect_left(offsets, end))", "len(offsets))"),
        cell("each", "slow", "middle", "fail"),
    ),
    "a failed record of a sink is counted as written": Bug(
        Edit(Delivery, "_call", "return refused.offset", "return end"),
        cell("each", "raises", "middle", "fail"),
    ),
    "a skipped row of a sink is not counted": Bug(
        Edit(task_module, "add_counts", "counts[skip.node].skipped += 1", "pass"),
        cell("each", "raises", "middle", "skip"),
    ),
    "only Exceptions fail a row": Bug(
        Edit(operators, "fill", "except BaseException as error:", "except Exception as error:"),
        cell("stage", "raises-exit", "middle", "fail"),
    ),
    "every CancelledError counts as the engine's": Bug(
        Edit(function_sinks, "is_ours", "task.cancelling() > 0", "True"),
        cell("async-each", "raises-cancelled", "middle", "fail"),
    ),
    "a CancelledError of a user task ends a source": Bug(
        Edit(TaskFeed, "_run", "self._is_stopped and isinstance", "isinstance"),
        rule(test_rules.test_an_async_source_that_awaits_a_cancelled_task_fails),
    ),
    "a generator is not closed": Bug(
        Edit(ThreadFeed, "_run", "if self._is_stopped and close is not None:", "if False:"),
        rule(test_rules.test_the_finally_block_of_a_generator_runs_at_a_stop),
    ),
    "positions are stored by reference": Bug(
        Edit(FunctionReader, "_accept_pair", "if type(position) not in _ATOMS:", "if False:"),
        rule(test_rules.test_a_position_changed_in_place_later_is_stored_as_it_was_yielded),
    ),
    "start positions are not committed": Bug(
        Edit(Opening, "_keep_starts", "if starts or sinks:", "if False:"),
        rule(test_rules.test_a_partition_without_new_records_keeps_its_start_position),
    ),
    "the broker gets the higher of two positions": Bug(
        Edit(BrokerOffsets, "store", "min(self._next", "max(self._next"),
        test_rules.test_two_sources_of_one_topic_lose_no_records_if_their_state_is_lost,
    ),
    "record sizes are not checked": Bug(
        Edit(TopicWriter, "on_chunk", "self._refuse_unsendable(chunk)", "pass"),
        lambda place, folder: test_rules.test_only_a_record_above_the_limit_fails_or_is_skipped(
            place, "skip"
        ),
    ),
    "all rows of a list are skipped": Bug(
        Edit(function_sinks, "failed_write", "isinstance(error, RowError)", "False"),
        rule(test_rules.test_rows_before_the_failed_row_in_a_row_error_count_as_written),
    ),
    "a cancellation arrives in the next call": Bug(
        Edit(AsyncCaller, "_work", "if worker.task.cancelling():", "if False:"),
        rule(test_call_rules.test_a_call_that_cancels_its_own_task_does_not_fail_the_next_call),
    ),
    "only Exceptions of results fail a call": Bug(
        Edit(Caller, "_finish", "except BaseException as wrong:", "except Exception as wrong:"),
        lambda place, folder: (
            test_call_rules.test_an_iterator_of_a_batch_that_raises_any_error_fails_its_batch(
                place, False
            )
        ),
    ),
    "a stop begins the calls that wait": Bug(
        Edit(PendingQueues, "hold", "queue.records.problem() is None", "False"),
        rule(test_call_rules.test_a_stop_does_not_begin_the_calls_that_wait),
    ),
    "what sinks have written is written again": Bug(
        Edit(PendingQueues, "written", "called.is_sink", "False"),
        lambda place, folder: test_call_rules.test_a_failure_repeats_no_write_of_a_sink_with_calls(
            place, False
        ),
    ),
    "results of a call come as they are": Bug(
        Edit(CallQueue, "_advance", 'elif record.stage == "done":', "elif True:"),
        call("async", "raises", "middle", "fail"),
    ),
    "a record behind a retry overtakes it": Bug(
        Edit(CallQueue, "_must_be_held", "return is_of_input", "return False"),
        rule(test_call_rules.test_later_records_of_a_key_are_not_called_before_a_retry),
    ),
    "a record fails one attempt too early": Bug(
        Edit(CallQueue, "later", "attempts >= retry.attempts", "attempts > retry.attempts"),
        call("threads", "raises", "middle", "retry"),
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_makes_its_check_fail(
    name: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = BUGS[name]
    correct, broken = tmp_path / "correct", tmp_path / "broken"
    for folder in (correct, broken):
        folder.mkdir()
    bug.check(place, correct)
    bug.edit.apply(monkeypatch)
    assert not passes(bug.check, place, broken)


def passes(check: Check, place: Place, folder: Path) -> bool:
    try:
        check(place, folder)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a bug may let any exception through
        return False
    return True
