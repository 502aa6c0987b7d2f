"""Deliberate bugs in the engine: the tests of this folder notice every one of them.

Each names the check that fails then; the same check passes without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamkit.connectors.topics import BrokerOffsets, TopicWriter
from streamkit.dataflow import operators
from streamkit.run.opening import Opening
from streamkit.runtime import delivery, function_sinks
from streamkit.runtime.committer import Committer
from streamkit.runtime.delivery import Delivery
from streamkit.runtime.feeds import TaskFeed, ThreadFeed
from streamkit.runtime.function_sinks import FunctionWriter, ObjectWriter
from streamkit.runtime.function_source import FunctionReader
from streamkit.runtime.task import Task
from tests.hostile import test_matrix, test_rules
from tests.hostile.behaviours import HARMLESS, RAISES
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


def rule(test: Callable[[Place], object]) -> Check:
    return lambda place, folder: test(place)


BUGS = {
    "a refusal of a commit is swallowed": Bug(
        Edit(Committer, "_wait_for_sinks", "self._fail(error)", "pass"),
        test_rules.test_a_refusal_that_was_heard_is_not_lost_to_a_stop,
    ),
    "a flush may overlap with a write": Bug(
        Edit(ObjectWriter, "flush", "async with self._calling:", "if True:"),
        rule(test_rules.test_a_flush_never_overlaps_with_a_write),
    ),
    "what a sink returns is not awaited": Bug(
        Edit(FunctionWriter, "_call_each", "await settle(result)", "pass"),
        lambda place, folder: test_rules.test_what_a_sink_returns_is_awaited(place, "pool"),
    ),
    "a failure counts one record too many": Bug(
        Edit(Task, "_continued", "work.fail(error, offset)", "work.fail(error, offset + 1)"),
        cell("stage", "raises", "middle", "fail"),
    ),
    "a round gives topics more than it has reached": Bug(
        Edit(delivery, "_between", "bisect_left(offsets, end))", "len(offsets))"),
        cell("each", "slow", "middle", "fail"),
    ),
    "a refusal of a sink is forgotten": Bug(
        Edit(Delivery, "_call", "return refused.offset", "return end"),
        cell("each", "raises", "middle", "fail"),
    ),
    "a skipped row of a sink is not counted": Bug(
        Edit(Task, "_account_skip", "counts.skipped += 1", "pass"),
        cell("each", "raises", "middle", "skip"),
    ),
    "only Exceptions belong to a row": Bug(
        Edit(operators, "_fill", "except BaseException as error:", "except Exception as error:"),
        cell("stage", "raises-exit", "middle", "fail"),
    ),
    "every cancellation is taken for ours": Bug(
        Edit(function_sinks, "is_ours", "task.cancelling() > 0", "True"),
        cell("async-each", "raises-cancelled", "middle", "fail"),
    ),
    "a cancelled task of the user's ends a source": Bug(
        Edit(TaskFeed, "_run", "self._is_stopped and isinstance", "isinstance"),
        rule(test_rules.test_an_async_source_that_awaits_a_cancelled_task_fails),
    ),
    "a generator is not closed": Bug(
        Edit(ThreadFeed, "_run", "if self._is_stopped and close is not None:", "if False:"),
        rule(test_rules.test_the_finally_of_a_generator_runs_at_a_stop),
    ),
    "positions are kept by reference": Bug(
        Edit(FunctionReader, "_accept_pair", "if type(position) not in _ATOMS:", "if False:"),
        rule(test_rules.test_a_position_that_the_generator_changes_in_place_is_the_one_it_yielded),
    ),
    "starts are not committed": Bug(
        Edit(Opening, "_keep_starts", "if starts or sinks:", "if False:"),
        rule(test_rules.test_a_partition_that_was_quiet_begins_where_it_began_before),
    ),
    "the broker gets the highest of two positions": Bug(
        Edit(BrokerOffsets, "store", "min(self._next", "max(self._next"),
        test_rules.test_two_sources_of_one_topic_lose_nothing_with_their_state,
    ),
    "records are not measured": Bug(
        Edit(TopicWriter, "on_chunk", "self._refuse_unsendable(chunk)", "pass"),
        lambda place, folder: test_rules.test_a_record_above_the_limit_is_one_record(place, "skip"),
    ),
    "all rows of a list are skipped": Bug(
        Edit(function_sinks, "failed_write", "isinstance(error, RowError)", "False"),
        rule(test_rules.test_rows_before_the_one_that_a_sink_names_count_as_written),
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_noticed(
    name: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = BUGS[name]
    sound, broken = tmp_path / "sound", tmp_path / "broken"
    for folder in (sound, broken):
        folder.mkdir()
    bug.check(place, sound)
    bug.edit.apply(monkeypatch)
    assert not passes(bug.check, place, broken)


def passes(check: Check, place: Place, folder: Path) -> bool:
    try:
        check(place, folder)
    except KeyboardInterrupt:
        raise
    except BaseException:  # what a bug lets through may be anything
        return False
    return True
