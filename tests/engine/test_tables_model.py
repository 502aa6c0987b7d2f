"""Lookups with ``as_of`` against the rules, applied record by record, whatever happens to the job.

| what | rule |
|---|---|
| a record | late if its event time plus ``late`` is before the watermark of its partition |
| a row of the table | valid from its event time, or from the watermark of its partition if later |
| a lookup | the newest valid row of the key; of the same time, the one that came later |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import App
from streamkit.aggregates import Count
from streamkit.dataflow.join_stream import LookupResults
from streamkit.state.store import Store
from streamkit.windows import Tumbling
from tests.engine.join_runs import Case, Lane, Output, Pair, Row, Run, cases_of, paired, store_in

some: Final = settings(max_examples=150, deadline=None)
hows: Final = st.sampled_from(["inner", "left"])
cases: Final = cases_of("rows", "table")
# A result: its time, and the numbers of the row and of the row of the table.
Found = tuple[int, int | None, int | None]


# --- The rules -------------------------------------------------------------------------


def valid_from(case: Case, order: Sequence[Row]) -> list[tuple[int, Row]]:
    """Return the rows of the table in order of arrival, with the time from which each is valid."""
    marks = {row.id: mark for row, mark in case.marked("table")}
    return [(max(row.at, marks[row.id]), row) for row in order if row.id in marks]


def row_at(versions: Sequence[tuple[int, Row]], key: str | None, time: int) -> Row | None:
    """Return the row of a key at a time."""
    found: tuple[int, Row] | None = None
    for valid, row in versions:
        if row.key == key and valid <= time and (found is None or found[0] <= valid):
            found = (valid, row)
    return None if found is None or found[1].is_deletion else found[1]


def looked_up(case: Case, order: Sequence[Row], how: str) -> tuple[list[Found], list[int]]:
    """Return the results, and the numbers of the late rows."""
    versions = valid_from(case, order)
    results: list[Found] = []
    late = []
    for row, mark in case.marked("rows"):
        if row.at + case.late < mark:
            late.append(row.id)
            continue
        found = row_at(versions, row.on, row.at)
        if found is not None or how == "left":
            results.append((row.at, row.id, None if found is None else found.id))
    return results, late


# --- The jobs --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store_in(tmp_path_factory.mktemp("tables")) as found:
        yield found


def app_of(case: Case, how: Any) -> tuple[App, LookupResults[Pair, Row]]:
    app = App("model")
    out_of_order = case.out_of_order / 1_000
    rows = app.stream("rows", Row, out_of_order=out_of_order)
    table = app.table("table", Row, out_of_order=out_of_order)
    results = rows.lookup(
        table,
        on=lambda row: row.on,
        combine=paired,
        how=how,
        as_of=True,
        late=case.late / 1_000,
        name="lookup",
    )
    results.to("results")
    results.late.to("late")
    return app, results


def found_of(outputs: Sequence[Output]) -> list[Found]:
    return [(each.time_ms, *each.pair) for each in outputs]


# --- The tests -------------------------------------------------------------------------


@some
@given(case=cases, how=hows)
def test_lookups_follow_the_rules(store: Store, case: Case, how: Any) -> None:
    app, _ = app_of(case, how)
    run = Run(app, case.lanes, store).to_the_end(case.actions)
    wanted, late = looked_up(case, run.order, how)
    results = run.outputs_of("results")
    assert Counter(found_of(results)) == Counter(wanted)
    assert Counter(each.value["id"] for each in run.outputs_of("late")) == Counter(late)
    keys = {row.id: row.key.encode() for row, _ in case.marked("rows")}
    assert all(each.key == keys[each.value["left"]] for each in results)
    if not case.late:
        times = [each.time_ms for each in results]
        assert times == sorted(times), "results come in order of event time"
    assert run.waiting()["lookup/waiting"] == 0, "a drained job waits for nothing"


@some
@given(case=cases, how=hows, size=st.sampled_from([1, 7, 25]))
def test_windows_after_a_lookup_lose_nothing(store: Store, case: Case, how: Any, size: int) -> None:
    app, results = app_of(case, how)
    windows = (
        results.key_by(lambda pair: "all")
        .window(Tumbling(seconds=size / 1_000))
        .aggregate(pairs=Count())
    )
    windows.to("windows")
    windows.late.to("windows-late")
    run = Run(app, case.lanes, store).to_the_end(case.actions)
    assert run.outputs_of("windows-late") == []
    wanted = Counter(time // size for time, _, _ in found_of(run.outputs_of("results")))
    found = [(each.time_ms // size, each.value["pairs"]) for each in run.outputs_of("windows")]
    assert sorted(found) == sorted(wanted.items())


@some
@given(case=cases_of("rows", "table"))
def test_a_table_keeps_the_latest_row_of_each_key(store: Store, case: Case) -> None:
    """A stream with a timer is not needed: a lookup sees the table as it is now."""
    app = App("model")
    rows = app.stream("rows", Row)
    table = app.table("table", Row)
    rows.lookup(table, on=lambda row: row.on, combine=paired, how="left").to("results")
    # Something has to wait for time, so that the job has watermarks.
    rows.key_by(lambda row: row.key).window(Tumbling(seconds=1)).aggregate(n=Count()).to("n")
    run = Run(app, case.lanes, store).to_the_end(case.actions)
    now: dict[str, Row | None] = {}
    wanted: list[Found] = []
    of_table = {row.id for row, _ in case.marked("table")}
    for row in run.order:
        if row.id in of_table:
            now[row.key] = None if row.is_deletion else row
        else:
            found = now.get(row.on or "")
            wanted.append((row.at, row.id, None if found is None else found.id))
    assert found_of(run.outputs_of("results")) == wanted


def test_rows_of_the_same_time_stay_in_order_when_a_slice_is_undone(store: Store) -> None:
    """The oldest of two rows of the same time is removed, and comes back when a slice is undone."""
    table = [Row(0, "a", 5), Row(1, "a", 5), Row(2, "a", 40)]
    case = Case(
        [Lane("rows", 0, [Row(9, "x", 20, "a"), Row(10, "x", 30, "a")]), Lane("table", 0, table)],
        [("read", 1, 2, 0), ("read", 0, 1, 0), ("read", 1, 1, 1)],
        out_of_order=0,
        late=0,
    )
    app, _ = app_of(case, "left")
    run = Run(app, case.lanes, store).to_the_end(case.actions)
    assert Counter(found_of(run.outputs_of("results"))) == Counter(
        looked_up(case, run.order, "left")[0]
    )
