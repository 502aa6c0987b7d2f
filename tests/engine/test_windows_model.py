"""Windows against the rules, applied record by record, whatever happens to the job.

The rules know nothing of slices, commits and interleavings: results must not depend on those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.aggregates import CollectList
from streamkit.state.store import Store
from streamkit.windows import AnyWindow, CountWindow, Session, Sliding, Tumbling
from tests.engine.window_runs import Case, Result, Row, Run, cases, is_refused, windows_app

NEVER: Final = -(10**12)
some: Final = settings(max_examples=80, deadline=None)


def ms(number: int) -> timedelta:
    return timedelta(milliseconds=number)


# --- The rules -------------------------------------------------------------------------


def marked(case: Case) -> list[tuple[Row, int]]:
    """Return each row with the watermark of its partition before it."""
    found = []
    for rows in case.partitions:
        times: list[int] = []
        for row in rows:
            found.append((row, max(times) - case.out_of_order if times else NEVER))
            times.append(row.at)
    return found


def result_of(key: str, start: int, end: int, rows: Sequence[Row]) -> Result:
    return Result(key, start, end, len(rows), sorted(row.id for row in rows))


def equal_windows(
    rows: Sequence[tuple[Row, int]], size: int, every: int, offset: int, late: int
) -> tuple[list[Result], list[int]]:
    """Return the results of tumbling or sliding windows, and the late rows."""
    members: dict[tuple[str, int], list[Row]] = defaultdict(list)
    too_late = []
    for row, mark in rows:
        starts = [
            start
            for start in range(row.at - size + 1, row.at + 1)
            if (start - offset) % every == 0 and start + size + late > mark
        ]
        for start in starts:
            members[row.key, start].append(row)
        if not starts:
            too_late.append(row.id)
    results = [
        result_of(key, start, start + size, found) for (key, start), found in members.items()
    ]
    return results, too_late


def sessions(
    rows: Sequence[tuple[Row, int]], gap: int, longest: int | None, late: int
) -> tuple[list[Result], list[int]]:
    """Return the results of sessions, and the late rows."""
    on_time = [row for row, mark in rows if row.at + late >= mark]
    results = []
    for key in sorted({row.key for row in on_time}):
        session: list[Row] = []
        for row in sorted((row for row in on_time if row.key == key), key=lambda row: row.at):
            is_far = bool(session) and row.at - session[-1].at >= gap
            is_long = longest is not None and bool(session) and row.at - session[0].at >= longest
            if is_far or is_long:
                results.append(session_result(session, gap, longest))
                session = []
            session.append(row)
        results.append(session_result(session, gap, longest))
    return results, [row.id for row, mark in rows if row.at + late < mark]


def session_result(rows: Sequence[Row], gap: int, longest: int | None) -> Result:
    start, end = rows[0].at, rows[-1].at + gap
    return result_of(
        rows[0].key, start, end if longest is None else min(end, start + longest), rows
    )


def counted(order: Sequence[Row], count: int) -> list[Result]:
    """Return the results of windows of a number of rows; the last ones may have fewer."""
    results = []
    for key in sorted({row.key for row in order}):
        rows = [row for row in order if row.key == key]
        for first in range(0, len(rows), count):
            found = rows[first : first + count]
            times = [row.at for row in found]
            results.append(result_of(key, min(times), max(times) + 1, found))
    return results


def in_order(results: Sequence[Result]) -> list[Result]:
    plain = [msgspec.structs.replace(each, ids=sorted(each.ids)) for each in results]
    return sorted(plain, key=lambda each: (each.key, each.window_start, each.window_end, each.ids))


# --- The tests -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    found = Store(tmp_path_factory.mktemp("windows") / "main.sqlite")
    found.open(app="model", cluster="c")
    yield found
    found.close()


def finished(store: Store, case: Case, window: AnyWindow, **options: Any) -> Run:
    late = 0 if isinstance(window, CountWindow) else case.late
    app = windows_app(window, late=late, out_of_order=case.out_of_order, **options)
    run = Run(app, case.partitions, store)
    run.to_the_end(case.actions)
    return run


def check(run: Run, wanted: tuple[list[Result], list[int]]) -> None:
    results, late = wanted
    assert in_order(run.values_of("results", Result)) == in_order(results)
    assert sorted(row.id for row in run.values_of("late", Row)) == sorted(late)


sizes: Final = st.sampled_from([1, 7, 10, 25])
offsets: Final = st.sampled_from([0, 3, -4, 11])
# Some divide the length of 12 ms, some do not.
steps: Final = st.sampled_from([1, 4, 5, 6, 7, 8, 12])
gaps: Final = st.sampled_from([1, 4, 10])
lengths: Final = st.sampled_from([1, 5, 12])


@some
@given(case=cases, size=sizes, offset=offsets)
def test_tumbling_windows_follow_the_rules(
    store: Store, case: Case, size: int, offset: int
) -> None:
    run = finished(store, case, Tumbling(seconds=size / 1_000, offset=ms(offset)))
    check(run, equal_windows(marked(case), size, size, offset, case.late))


@some
@given(case=cases, every=steps, offset=offsets)
def test_sliding_windows_follow_the_rules(
    store: Store, case: Case, every: int, offset: int
) -> None:
    run = finished(store, case, Sliding(seconds=0.012, every=ms(every), offset=ms(offset)))
    check(run, equal_windows(marked(case), 12, every, offset, case.late))


@some
@given(case=cases, gap=gaps)
def test_sessions_follow_the_rules(store: Store, case: Case, gap: int) -> None:
    run = finished(store, case, Session(gap=ms(gap)))
    check(run, sessions(marked(case), gap, None, case.late))


@some
@given(case=cases, gap=gaps, longest=lengths)
def test_sessions_with_a_greatest_length_follow_the_rules(
    store: Store, case: Case, gap: int, longest: int
) -> None:
    run = finished(store, case, Session(gap=ms(gap), max_length=ms(longest)))
    check(run, sessions(marked(case), gap, longest, case.late))


@some
@given(case=cases, count=st.sampled_from([1, 2, 5]))
def test_windows_of_a_number_of_records_follow_the_rules(
    store: Store, case: Case, count: int
) -> None:
    run = finished(store, case, CountWindow(count))
    check(run, (counted(run.order, count), []))


@some
@given(case=cases, every=steps)
def test_rows_that_fail_leave_nothing_in_sliding_windows(
    store: Store, case: Case, every: int
) -> None:
    run = finished(store, case, Sliding(seconds=0.012, every=ms(every)), refuses=True)
    rows = marked(case)
    kept = [each for each in rows if not is_refused(each[0])]
    results, _ = equal_windows(kept, 12, every, 0, case.late)
    check(run, (results, equal_windows(rows, 12, every, 0, case.late)[1]))


@some
@given(case=cases, gap=gaps)
def test_rows_that_fail_leave_nothing_in_sessions(store: Store, case: Case, gap: int) -> None:
    run = finished(store, case, Session(gap=ms(gap)), refuses=True)
    rows = marked(case)
    kept = [each for each in rows if not is_refused(each[0])]
    results, _ = sessions(kept, gap, None, case.late)
    check(run, (results, sessions(rows, gap, None, case.late)[1]))


@some
@given(case=cases, every=steps)
def test_the_last_update_of_each_window_is_its_result(store: Store, case: Case, every: int) -> None:
    run = finished(store, case, Sliding(seconds=0.012, every=ms(every)), emit="updates")
    results, late = equal_windows(marked(case), 12, every, 0, case.late)
    last = {(each.key, each.window_start): each for each in run.values_of("results", Result)}
    assert in_order(list(last.values())) == in_order(results)
    assert sorted(row.id for row in run.values_of("late", Row)) == sorted(late)


@some
@given(case=cases, gap=gaps)
def test_the_last_update_of_each_session_is_its_result(store: Store, case: Case, gap: int) -> None:
    run = finished(store, case, Session(gap=ms(gap)), emit="updates")
    results, _ = sessions(marked(case), gap, None, case.late)
    updates = run.values_of("results", Result)
    last = {(each.key, each.window_start, each.window_end): each for each in updates}
    found = [last.get((each.key, each.window_start, each.window_end)) for each in results]
    assert in_order([each for each in found if each is not None]) == in_order(results)


# --- Windows of windows ----------------------------------------------------------------

# A result of the first windows, as the second ones list it.
First = tuple[str, int, int]


class Second(msgspec.Struct, frozen=True):
    window_start: int
    window_end: int
    of: list[First]


firsts: Final = st.sampled_from(
    [
        Tumbling(seconds=0.01),
        Sliding(seconds=0.012, every=0.005),
        Session(gap=0.004),
        Session(gap=0.004, max_length=0.006),
    ]
)


def wanted_first(window: AnyWindow, case: Case) -> list[Result]:
    rows = marked(case)
    if isinstance(window, Session):
        return sessions(rows, window.gap_ms, window.max_length_ms, case.late)[0]
    assert not isinstance(window, CountWindow)
    return equal_windows(rows, window.size_ms, window.every_ms, 0, case.late)[0]


def run_of_two(store: Store, case: Case, window: AnyWindow, second: AnyWindow) -> Run:
    app = windows_app(window, late=case.late, out_of_order=case.out_of_order)
    again = (
        app.results.key_by(lambda result: "all")
        .window(second)
        .aggregate(
            Second,
            of=CollectList(lambda each: (each.key, each.window_start, each.window_end)),
            name="second",
        )
    )
    again.to("second")
    again.late.to("second-late")
    run = Run(app, case.partitions, store)
    run.to_the_end(case.actions)
    return run


def check_second(run: Run, results: list[Result], wanted: list[Result]) -> None:
    """Compare the second windows with results of the rules, whose rows are numbers of results."""
    assert run.values_of("second-late", Result) == []
    found = [
        Result("all", each.window_start, each.window_end, len(each.of), [])
        for each in run.values_of("second", Second)
    ]
    listed = [each for second in run.values_of("second", Second) for each in second.of]
    assert sorted(listed) == sorted(
        (each.key, each.window_start, each.window_end) for each in results
    )
    assert in_order(found) == in_order([msgspec.structs.replace(each, ids=[]) for each in wanted])


def as_rows(results: Sequence[Result]) -> list[tuple[Row, int]]:
    """Return results as rows of the second windows, which lose none of them."""
    return [(Row(at, "all", each.window_end - 1), NEVER) for at, each in enumerate(results)]


@some
@given(case=cases, window=firsts)
def test_windows_of_windows_lose_no_result(store: Store, case: Case, window: AnyWindow) -> None:
    run = run_of_two(store, case, window, Tumbling(seconds=0.025))
    results = wanted_first(window, case)
    check_second(run, results, equal_windows(as_rows(results), 25, 25, 0, 0)[0])


@some
@given(case=cases, window=firsts)
def test_sessions_of_windows_lose_no_result(store: Store, case: Case, window: AnyWindow) -> None:
    run = run_of_two(store, case, window, Session(gap=0.015))
    results = wanted_first(window, case)
    check_second(run, results, sessions(as_rows(results), 15, None, 0)[0])
