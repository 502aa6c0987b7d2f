"""Values that expire, and timers, against the rules, whatever happens to the job.

The rules are applied record by record, in the order of each partition. Each key is in one
partition, so results must not depend on slices, commits, crashes and the order of partitions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import App, Context, State
from streamkit.dataflow.keyed_stream import KeyedStream
from streamkit.dataflow.timers import Timer
from streamkit.state.keyed import Keyed
from streamkit.state.store import Store
from tests.engine.join_runs import NEVER, Case, Row, Run, cases_of, store_in

some: Final = settings(max_examples=150, deadline=None)
ttls: Final = st.sampled_from([1, 4, 10, 25, 60])
# The timers that a record wants: a name, and a time after that of the record; None cancels.
Wishes = list[tuple[str, int | None]]
wishes_of_rows: Final = st.lists(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.sampled_from([None, -50, 0, 1, 5, 20, 60])), max_size=3
    ),
    min_size=1,
    max_size=7,
)


def with_own_keys(case: Case, partitions: int) -> Case:
    """Return the first partitions of a case, with other keys in each of them."""
    lanes = [
        lane._replace(
            rows=[msgspec.structs.replace(row, key=f"{row.key}{number}") for row in lane.rows]
        )
        for number, lane in enumerate(case.lanes[:partitions])
    ]
    return replace(case, lanes=lanes)


cases: Final = st.builds(with_own_keys, cases_of("rows", "rows"), st.integers(1, 3))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store_in(tmp_path_factory.mktemp("stateful")) as found:
        yield found


def keyed(app: App, case: Case) -> KeyedStream[str, Row]:
    stream = app.stream("rows", Row, out_of_order=case.out_of_order / 1_000)
    return stream.key_by(lambda row: row.key)


def is_refused(row: Row) -> bool:
    return row.id % 4 == 3


# --- The rules -------------------------------------------------------------------------


def timed(case: Case) -> Iterator[tuple[Row, int]]:
    """Yield each row with its event time, which is at least the watermark before it."""
    for row, mark_ms in case.marked("rows"):
        yield row, max(row.at, mark_ms)


def watermark_of(case: Case) -> int:
    """Return the watermark of the stage when all rows are read."""
    tops_ms = [max(row.at for row in lane.rows) for lane in case.lanes if lane.rows]
    return min(tops_ms, default=NEVER) - case.out_of_order


def firsts_of(case: Case, within: int) -> tuple[list[int], dict[str, int]]:
    """Return the rows that are not duplicates, and the time of the last one of each key."""
    kept_ms: dict[str, int] = {}
    found = []
    for row, now_ms in timed(case):
        if row.key not in kept_ms or now_ms >= kept_ms[row.key] + within:
            kept_ms[row.key] = now_ms
            found.append(row.id)
    return found, kept_ms


def lists_of(case: Case, ttl: int) -> tuple[list[list[int]], dict[str, tuple[int, list[int]]]]:
    """Return the results of `listed`, and the last value of each key with its time."""
    kept: dict[str, tuple[int, list[int]]] = {}
    found = []
    for row, now_ms in timed(case):
        if is_refused(row):
            continue
        set_ms, ids = kept.get(row.key, (NEVER, []))
        if set_ms + ttl <= now_ms:
            set_ms, ids = now_ms, []
        elif row.on is not None:
            set_ms = max(set_ms, now_ms)
        kept[row.key] = set_ms, [*ids, row.id]
        found.append([*ids, row.id])
    return found, kept


def listed(row: Row, state: State[list[int]]) -> list[int]:
    """List rows; some of them do not set the list, so it expires earlier."""
    ids = state.get()
    if ids is None:
        ids = []
        state.set(ids)
    elif row.on is not None:
        state.set(ids)
    ids.append(row.id)
    if is_refused(row):
        raise ValueError
    return list(ids)


def timers_of(
    case: Case, wishes: list[Wishes]
) -> tuple[dict[int, Wishes], dict[str, dict[str, int]]]:
    """Return what each row asks for, and the timers of each key: their times by name.

    Whether a timer can still be replaced after the watermark of its partition has reached it
    depends on the other partitions, so a row then uses another name.
    """
    asked: dict[int, Wishes] = {}
    timers: dict[str, dict[str, int]] = defaultdict(dict)
    for row, mark_ms in case.marked("rows"):
        own = dict(timers[row.key])
        asked[row.id] = []
        for wish, delay in wishes[row.id % len(wishes)]:
            name = wish
            while own.get(name, mark_ms + 1) <= mark_ms:
                name += "+"
            asked[row.id].append((name, None if delay is None else row.at + delay))
            if delay is None:
                own.pop(name, None)
            else:
                own[name] = max(row.at + delay, mark_ms)
        if not is_refused(row):
            timers[row.key] = own
    return asked, timers


def calls_of(times_ms: list[int], ttl: int) -> list[tuple[int, int]]:
    """Return the times of calls for one key, with how many came before without a pause of ttl."""
    found: list[tuple[int, int]] = []
    for at_ms in sorted(times_ms):
        is_gone = not found or found[-1][0] + ttl <= at_ms
        found.append((at_ms, 1 if is_gone else found[-1][1] + 1))
    return found


# --- The tests -------------------------------------------------------------------------


def values_of(run: Run, state: str) -> Mapping[bytes, Any]:
    found = run.task.states.by_name[state]
    assert isinstance(found, Keyed)
    return found.values


@some
@given(case=cases, within=ttls)
def test_duplicates_follow_the_rules(store: Store, case: Case, within: int) -> None:
    app = App("model")
    firsts = keyed(app, case).deduplicate(within=within / 1_000, name="firsts")
    firsts.to("firsts-out")
    run = Run(app, case.lanes, store).to_the_end(case.actions)
    wanted, kept_ms = firsts_of(case, within)
    assert sorted(each.value["id"] for each in run.outputs) == sorted(wanted)
    mark_ms = watermark_of(case)
    assert values_of(run, "firsts") == {
        key.encode(): (at_ms, True) for key, at_ms in kept_ms.items() if at_ms + within > mark_ms
    }


@some
@given(case=cases, ttl=ttls)
def test_values_that_expire_follow_the_rules(store: Store, case: Case, ttl: int) -> None:
    app = App("model")
    lists = keyed(app, case).stateful(
        list[int], listed, ttl=ttl / 1_000, name="lists", on_error="skip"
    )
    lists.to("lists-out")
    run = Run(app, case.lanes, store).to_the_end(case.actions)
    wanted, kept = lists_of(case, ttl)
    assert sorted(each.value for each in run.outputs) == sorted(wanted)
    mark_ms = watermark_of(case)
    assert values_of(run, "lists") == {
        key.encode(): value for key, value in kept.items() if value[0] + ttl > mark_ms
    }


def timers_app(case: Case, asked: Mapping[int, Wishes], ttl: int) -> App:
    """Return an app that calls timers and counts them; some rows and those named ``z`` fail."""
    app = App("model")

    @app.stage(keyed(app, case), name="timers", ttl=ttl / 1_000, on_error="skip")
    def asks(row: Row, state: State[int], context: Context[str]) -> None:
        for name, at_ms in asked[row.id]:
            if at_ms is None:
                context.cancel_timer(name)
            else:
                context.timer(at_ms, name)
        if is_refused(row):
            state.set(-1)
            raise ValueError

    @asks.on_timer
    def called(timer: Timer[str], state: State[int]) -> list[Any]:
        state.set(state.get(0) + 1)
        if timer.name.startswith("z"):
            raise ValueError
        return [timer.key, timer.name, state.get()]

    asks.to("called")
    return app


@some
@given(case=cases, wishes=wishes_of_rows, ttl=ttls)
def test_timers_follow_the_rules(store: Store, case: Case, wishes: list[Wishes], ttl: int) -> None:
    asked, timers = timers_of(case, wishes)
    run = Run(timers_app(case, asked, ttl), case.lanes, store).to_the_end(case.actions)
    assert values_of(run, "timers/timers") == {}, "a drained job has called all timers"
    found: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for each in run.outputs:
        key, name, count = each.value
        found[key].append((each.time_ms, name, count))
    for key, times_ms in timers.items():
        wanted = [(at_ms, name) for name, at_ms in times_ms.items() if not name.startswith("z")]
        assert sorted((at_ms, name) for at_ms, name, _ in found[key]) == sorted(wanted)
        calls = calls_of([at_ms for at_ms, _ in wanted], ttl)
        assert [(at_ms, count) for at_ms, _, count in found[key]] == calls
        is_kept = bool(calls) and calls[-1][0] + ttl > watermark_of(case)
        assert values_of(run, "timers").get(key.encode()) == (calls[-1] if is_kept else None)
