"""Joins against the rules, applied record by record, whatever happens to the job.

The rules know nothing of slices, commits and interleavings: results must not depend on those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import App
from streamkit.aggregates import CollectList, Count
from streamkit.dataflow.join_stream import JoinResults
from streamkit.dataflow.keyed_stream import KeyedStream
from streamkit.dataflow.stream import Stream
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.state.store import Store
from streamkit.windows import Tumbling
from tests.engine.join_runs import Case, Output, Pair, Row, Run, cases_of, paired, store_in

some: Final = settings(max_examples=80, deadline=None)
hows: Final = st.sampled_from(["inner", "left", "outer"])
reaches: Final = st.sampled_from([0, 1, 4, 10, 25])
sizes: Final = st.sampled_from([1, 7, 10, 25])
# A result: its key, its time, and the numbers of the rows of both sides.
Found = tuple[str, int, int | None, int | None]


# --- The rules -------------------------------------------------------------------------


def on_time(rows: Sequence[tuple[Row, int]], late: int) -> tuple[list[Row], list[int]]:
    """Return the rows that an interval join accepts, and the numbers of the late ones."""
    return (
        [row for row, mark in rows if row.at + late >= mark],
        [row.id for row, mark in rows if row.at + late < mark],
    )


def on_time_in_window(
    rows: Sequence[tuple[Row, int]], size: int, late: int
) -> tuple[list[Row], list[int]]:
    """Return the rows that a join of windows accepts, and the numbers of the late ones."""
    ends = [row.at // size * size + size for row, _ in rows]
    return (
        [row for (row, mark), end in zip(rows, ends, strict=True) if end + late > mark],
        [row.id for (row, mark), end in zip(rows, ends, strict=True) if end + late <= mark],
    )


def all_pairs(
    lefts: Sequence[Row], rights: Sequence[Row], how: str, fit: Callable[[Row, Row], bool]
) -> list[Found]:
    """Return the pairs of rows that fit together, and the rows that are alone."""
    found: list[Found] = []
    alone = {row.id for row in lefts}, {row.id for row in rights}
    for left in lefts:
        for right in rights:
            if left.key == right.key and fit(left, right):
                found.append((left.key, max(left.at, right.at), left.id, right.id))
                alone[0].discard(left.id)
                alone[1].discard(right.id)
    if how != "inner":
        found += [(row.key, row.at, row.id, None) for row in lefts if row.id in alone[0]]
    if how == "outer":
        found += [(row.key, row.at, None, row.id) for row in rights if row.id in alone[1]]
    return found


# --- The jobs --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store_in(tmp_path_factory.mktemp("joins")) as found:
        yield found


def keyed(app: App, source: str, case: Case) -> KeyedStream[str, Row]:
    stream: Stream[Row] = app.stream(source, Row, out_of_order=case.out_of_order / 1_000)
    return stream.key_by(lambda row: row.key)


def joined_app(case: Case, how: Any, **options: Any) -> tuple[App, JoinResults[str, Pair, Any]]:
    app = App("model")
    left, right = keyed(app, "left", case), keyed(app, "right", case)
    results = left.join(
        right, how=how, combine=paired, late=case.late / 1_000, name="join", **options
    )
    results.to("results")
    results.late.to("late")
    return app, results


def ran(app: App, case: Case, store: Store) -> Run:
    return Run(app, case.lanes, store).to_the_end(case.actions)


def chunk_of(rows: Sequence[Row]) -> Chunk:
    return Chunk(
        list(map(msgspec.json.encode, rows)),
        [row.key.encode() for row in rows],
        [row.at for row in rows],
        range(len(rows)),
        "left",
        0,
    )


def found_of(outputs: Sequence[Output]) -> list[Found]:
    return [((each.key or b"").decode(), each.time_ms, *each.pair) for each in outputs]


def check(run: Run, wanted: Sequence[Found], late: Sequence[int]) -> None:
    assert Counter(found_of(run.outputs_of("results"))) == Counter(wanted)
    assert Counter(each.value["id"] for each in run.outputs_of("late")) == Counter(late)
    assert not any(run.waiting().values()), "a drained job waits for nothing"


# --- The tests -------------------------------------------------------------------------


@some
@given(case=cases_of("left", "right"), how=hows, within=reaches)
def test_interval_joins_follow_the_rules(store: Store, case: Case, how: Any, within: int) -> None:
    app, _ = joined_app(case, how, within=within / 1_000)
    run = ran(app, case, store)
    lefts, late_lefts = on_time(case.marked("left"), case.late)
    rights, late_rights = on_time(case.marked("right"), case.late)
    wanted = all_pairs(lefts, rights, how, lambda a, b: abs(a.at - b.at) <= within)
    check(run, wanted, late_lefts + late_rights)


@some
@given(case=cases_of("left", "right"), how=hows, size=sizes)
def test_joins_of_windows_follow_the_rules(store: Store, case: Case, how: Any, size: int) -> None:
    app, _ = joined_app(case, how, window=Tumbling(seconds=size / 1_000))
    run = ran(app, case, store)
    lefts, late_lefts = on_time_in_window(case.marked("left"), size, case.late)
    rights, late_rights = on_time_in_window(case.marked("right"), size, case.late)
    wanted = all_pairs(lefts, rights, how, lambda a, b: a.at // size == b.at // size)
    check(run, wanted, late_lefts + late_rights)
    ends = [time // size for _, time, _, _ in found_of(run.outputs_of("results"))]
    assert ends == sorted(ends), "windows close in order"


@some
@given(case=cases_of("left"), how=hows, within=reaches)
def test_a_stream_can_be_joined_with_itself(
    store: Store, case: Case, how: Any, within: int
) -> None:
    app = App("model")
    rows = keyed(app, "left", case)
    results = rows.join(
        rows, how=how, combine=paired, within=within / 1_000, late=case.late / 1_000
    )
    results.to("results")
    results.late.to("late")
    whole = replace(case, actions=[(*each[:3], 0) for each in case.actions])
    run = ran(app, whole, store)
    kept, late = on_time(case.marked("left"), case.late)
    check(run, all_pairs(kept, kept, how, lambda a, b: abs(a.at - b.at) <= within), late + late)


def test_a_pair_is_not_written_before_both_records_count() -> None:
    """Of a slice with two records, the job stops after the first."""
    app = App("model")
    rows = app.stream("left", Row).key_by(lambda row: row.key)
    rows.join(rows, combine=paired, within=1).to("results")
    task = Task(app.topology)
    work = task.process(app.topology.get("left"), chunk_of([Row(0, "a", 5), Row(1, "a", 5)]))
    first = [
        msgspec.json.decode(value, type=Pair)
        for output in work.outputs
        for offset, value in zip(output.chunk.offsets, output.chunk.values, strict=True)
        if offset == 0
    ]
    assert first == [Pair(0, 0)]


@some
@given(case=cases_of("left", "right"), within=reaches)
def test_pairs_that_cannot_be_combined_are_skipped_alone(
    store: Store, case: Case, within: int
) -> None:
    def refuses(left: Row | None, right: Row | None) -> Pair:
        if left is not None and left.id % 3 == 0:
            raise ValueError(left)
        return paired(left, right)

    app = App("model")
    left, right = keyed(app, "left", case), keyed(app, "right", case)
    left.join(right, how="outer", combine=refuses, within=within / 1_000, on_error="skip").to(
        "results"
    )
    run = ran(app, case, store)
    lefts, rights = (on_time(case.marked(source), 0)[0] for source in ("left", "right"))
    wanted = all_pairs(lefts, rights, "outer", lambda a, b: abs(a.at - b.at) <= within)
    check(run, [each for each in wanted if each[2] is None or each[2] % 3], [])


# --- Windows and joins of each other ---------------------------------------------------


@some
@given(case=cases_of("left", "right"), how=hows, within=reaches, size=sizes)
def test_windows_after_a_join_lose_nothing(
    store: Store, case: Case, how: Any, within: int, size: int
) -> None:
    app, results = joined_app(case, how, within=within / 1_000)
    windows = results.window(Tumbling(seconds=size / 1_000)).aggregate(pairs=Count())
    windows.to("windows")
    windows.late.to("windows-late")
    check_windows(ran(app, case, store), size)


@some
@given(case=cases_of("left", "right"), how=hows, first=sizes, size=sizes)
def test_windows_after_a_join_of_windows_lose_nothing(
    store: Store, case: Case, how: Any, first: int, size: int
) -> None:
    app, results = joined_app(case, how, window=Tumbling(seconds=first / 1_000))
    windows = results.window(Tumbling(seconds=size / 1_000)).aggregate(pairs=Count())
    windows.to("windows")
    windows.late.to("windows-late")
    check_windows(ran(app, case, store), size)


def check_windows(run: Run, size: int) -> None:
    """Compare windows with the pairs that were emitted."""
    pairs = found_of(run.outputs_of("results"))
    wanted = Counter((key, time // size * size + size - 1) for key, time, _, _ in pairs)
    windows = run.outputs_of("windows")
    assert run.outputs_of("windows-late") == []
    found = [((each.key or b"").decode(), each.time_ms) for each in windows]
    assert len(found) == len(set(found)), "each window has one result"
    counts = [each.value["pairs"] for each in windows]
    assert dict(zip(found, counts, strict=True)) == wanted


@some
@given(case=cases_of("left", "right"), how=hows, within=reaches, size=sizes)
def test_a_join_after_windows_loses_none_of_them(
    store: Store, case: Case, how: Any, within: int, size: int
) -> None:
    """The right side of the join are the last rows of each window of the source."""
    app = App("model")
    left = keyed(app, "left", case)
    windows = (
        keyed(app, "right", case)
        .window(Tumbling(seconds=size / 1_000), late=case.late / 1_000)
        .aggregate(ids=CollectList(lambda row: row.id), name="windows")
    )

    def of_window(row: Row | None, window: dict[str, Any] | None) -> Pair:
        return Pair(None if row is None else row.id, None if window is None else _id_of(window))

    windows.to("windows")
    results = left.join(windows, how=how, combine=of_window, within=within / 1_000)
    results.to("results")
    results.late.to("late")
    run = ran(app, case, store)
    rights = [
        Row(min(each.value["ids"]), (each.key or b"").decode(), each.time_ms)
        for each in run.outputs_of("windows")
    ]
    late = case.late
    lefts = [row for row, mark in case.marked("left") if row.at >= mark - late]
    wanted = all_pairs(lefts, rights, how, lambda a, b: abs(a.at - b.at) <= within)
    check(run, wanted, [row.id for row, mark in case.marked("left") if row.at < mark - late])


def _id_of(window: dict[str, Any]) -> int:
    found: int = min(window["ids"])
    return found
