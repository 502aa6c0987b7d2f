"""Seeded bugs in the rules of event time: each must make a named test of the engine fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from streamkit.dataflow.due_keys import DueKeys
from streamkit.dataflow.joins import _IntervalJoin
from streamkit.dataflow.sessions import _Sessions
from streamkit.dataflow.stateful import _Expiry, _Running
from streamkit.dataflow.tables import _AsOfLookup
from streamkit.dataflow.timers import Timers
from streamkit.dataflow.watermarks import Watermarks
from streamkit.dataflow.windowed import _Windows
from streamkit.runtime import task as task_module
from streamkit.runtime.running_graph import RunningGraph
from streamkit.runtime.task import Task
from streamkit.state.change_log import ChangeLog
from streamkit.state.panes import Panes
from streamkit.state.waiting import WaitingRecords
from tests.engine import test_joins as joins
from tests.engine import test_tables as tables
from tests.engine import test_time_rules as rules
from tests.engine import test_timers as timers
from tests.engine import test_ttl as ttl
from tests.seeded import Edit


@dataclass(frozen=True)
class Bug:
    edit: Edit
    check: Callable[[], object]


BUGS = {
    "the watermark is the highest of all partitions": Bug(
        Edit(Watermarks, "next_of", "min(holding_ms) if", "max(holding_ms) if"),
        joins.test_a_fast_stream_does_not_make_a_slow_one_late,
    ),
    "a table does not hold the watermark back": Bug(
        Edit(Watermarks, "next_of", "min([streams_ms, *tables_ms])", "streams_ms"),
        tables.test_a_record_waits_for_the_watermark_of_the_table,
    ),
    "a record is late by the watermark of the stage": Bug(
        Edit(Watermarks, "of_rows", "map(max, found,", "map(min, [own_ms] * len(found),"),
        joins.test_late_records_are_counted_and_handed_over,
    ),
    "a stage fires before the stages that it reads": Bug(
        Edit(Task, "_fired", "in self._timed:", "in reversed(self._timed):"),
        rules.test_the_results_of_a_drained_window_reach_the_next_window,
    ),
    "timers are called before the records of their slice": Bug(
        Edit(
            Task,
            "_worked",
            "self._graph.begin(",
            "[self._fire(x, 2**60, work) for x in self._timed]; self._graph.begin(",
        ),
        timers.test_timers_come_after_the_records_of_their_slice,
    ),
    "a timer is called one ms too late": Bug(
        Edit(DueKeys, "take", "first_ms <= time_ms", "first_ms < time_ms"),
        timers.test_a_timer_is_called_when_the_watermark_reaches_its_time,
    ),
    "the wait of a window is not passed to the next one": Bug(
        Edit(
            task_module,
            "plan_time",
            "NodeTime(tuple(sources), hold_ms, tuple(waits_for.items()), before)",
            "NodeTime(tuple(sources), 0, (), before)",
        ),
        rules.test_results_that_waited_for_late_records_are_in_time_for_the_next_window,
    ),
    "a pane is lost when its shard is written again": Bug(
        Edit(ChangeLog, "_sort", "self._keys[shard_of(key)].append(key)", "pass"),
        rules.test_an_open_window_survives_any_number_of_commits,
    ),
    "a commit does not delete closed panes": Bug(
        Edit(Panes, "keep_slice", "if stored:", "if False:"),
        rules.test_a_closed_window_does_not_come_back_after_a_restart,
    ),
    "changes of panes are undone in the order in which they were made": Bug(
        Edit(Panes, "undo_slice", "in reversed(self._updates)", "in self._updates"),
        rules.test_a_slice_that_fails_leaves_nothing_in_a_window,
    ),
    "late records are not counted": Bug(
        Edit(RunningGraph, "give", "work.late.append((node, each.offsets))", "pass"),
        rules.test_late_records_are_counted,
    ),
    "a sliding window counts a record that is late for it": Bug(
        Edit(_Windows, "_next_window", "if first > closed_ms:", "if True:"),
        rules.test_a_record_counts_only_in_the_windows_that_it_is_not_late_for,
    ),
    "a session closes one ms too late": Bug(
        Edit(_Sessions, "_close", "if end > closing_ms:", "if end >= closing_ms:"),
        rules.test_a_session_closes_when_the_watermark_reaches_its_end,
    ),
    "a join removes a record one ms too early": Bug(
        Edit(_IntervalJoin, "on_time", "- self._step.late_ms", "- self._step.late_ms + 1"),
        joins.test_a_record_that_could_match_stays_until_the_last_moment,
    ),
    "a matched record is emitted as unmatched": Bug(
        Edit(_IntervalJoin, "on_time", "if not each.is_matched", ""),
        lambda: joins.test_unmatched_records_come_once_and_matched_ones_never("left", ["1x", "2-"]),
    ),
    "a commit does not store that a record is matched": Bug(
        Edit(WaitingRecords, "keep_slice", "for _, each in", "for _, each in [] and"),
        joins.test_waiting_records_and_their_marks_survive_a_restart,
    ),
    "old rows of a table are removed too early": Bug(
        Edit(_AsOfLookup, "_add_versions", "rows[1].time_ms <= kept_ms", "True"),
        tables.test_a_lookup_finds_the_row_of_the_time_of_the_record,
    ),
    "a lookup uses the newest row": Bug(
        Edit(
            _AsOfLookup,
            "_row",
            "self._versions.at(key, time_ms)",
            "(self._versions.of_key(key) or [None])[-1]",
        ),
        tables.test_a_lookup_finds_the_row_of_the_time_of_the_record,
    ),
    "a late row of a table is valid from its own time": Bug(
        Edit(_AsOfLookup, "_add_versions", "max(time_ms, mark)", "time_ms"),
        tables.test_a_late_row_is_valid_from_the_watermark,
    ),
    "a drained job stores the end of time as its watermark": Bug(
        Edit(Task, "_fired", "max(time.of_node(node), time.highest_seen(node))", "2**61"),
        rules.test_a_drained_job_continues_with_the_watermark_of_its_records,
    ),
    "the time of a value is judged by the watermark of the stage": Bug(
        Edit(
            _Running,
            "on_chunk",
            "list(map(max, chunk.timestamps_ms, marks))",
            "[self._room.watermark_ms()] * len(chunk)",
        ),
        ttl.test_a_slow_partition_does_not_make_values_of_others_live_longer,
    ),
    "a value is removed one ms too late": Bug(
        Edit(_Expiry, "remove", "at_ms <= watermark_ms", "at_ms < watermark_ms"),
        ttl.test_a_value_that_is_gone_takes_no_memory,
    ),
    "a failed call sets its timers": Bug(
        Edit(_Running, "on_chunk", "self._requests.undo()", "pass"),
        timers.test_a_call_that_fails_sets_no_timer,
    ),
    "a replaced timer is called too": Bug(
        Edit(Timers, "apply", "if timer[1] != each.name", ""),
        timers.test_a_timer_of_the_same_name_is_replaced,
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_makes_its_check_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    bug.check()
    bug.edit.apply(monkeypatch)
    assert not passes(bug.check)


def passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except Exception:  # a bug may let any exception through
        return False
    except pytest.fail.Exception:
        return False
    return True
