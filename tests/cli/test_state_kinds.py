"""`streamkit state` for windows, joins, tables and timers, and the plan of an app that has all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from streamkit import App, Context, State
from streamkit.aggregates import Count
from streamkit.cli.main import cli
from streamkit.dataflow.explain import explain, plan_lines
from streamkit.record import Chunk
from streamkit.runtime.task import Task
from streamkit.state.states import States
from streamkit.state.store import Store
from streamkit.windows import Session, Sliding, Tumbling


class Row(msgspec.Struct):
    key: str
    at: int


START = 1_700_000_000_000
END = "2023-11-14T22:14:00+00:00"


def by_key(row: Row) -> str:
    return row.key


def by_time(row: Row) -> int:
    return row.at


def pair(left: Row, right: Row | None) -> list[int]:
    return [left.at, -1 if right is None else right.at]


def everything() -> App:
    """An app with every kind of state."""
    app = App("all")
    rows = app.stream("rows", Row, event_time=by_time, out_of_order=0.005)
    table = app.table("table", Row, event_time=by_time)
    keyed = rows.key_by(by_key)
    minutes = keyed.window(Tumbling(minutes=1), late=10).aggregate(name="minutes", rows=Count())
    slides = keyed.window(Sliding(minutes=1, every=30)).aggregate(name="slides", rows=Count())
    visits = keyed.window(Session(gap=60)).aggregate(name="visits", rows=Count())
    pairs = keyed.join(keyed, within=5, how="left", combine=pair, name="pairs")
    windows = keyed.join(keyed, window=Tumbling(minutes=1), combine=pair, name="windows")
    found = rows.lookup(
        table, on=by_key, combine=pair, how="left", as_of=True, late=2, name="found"
    )
    now = rows.lookup(table, on=by_key, combine=pair, how="left", name="now")

    @app.stage(keyed, name="kept", ttl=3600)
    def kept(row: Row, state: State[int], context: Context[str]) -> int | None:
        state.set(row.at)
        context.timer(row.at + 60_000, "soon")
        return None

    kept.on_timer(lambda timer, state: state.get())
    again = minutes.window(Tumbling(hours=1)).aggregate(name="again", most=Count())
    streams: list[Any] = [slides, visits, pairs, windows, found, now, kept, again, minutes.late]
    for stream in streams:
        stream.to(f"{stream.name}-out")
    return app


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the state of a job that has read two rows of each source."""
    folder = tmp_path_factory.mktemp("all")
    store = Store(folder / "state" / "all" / "main.sqlite")
    store.open(app="all", cluster="embedded")
    app = everything()
    task = Task(app.topology, states=States(), never_idle=True)
    for topic, times in (("table", (0, 7)), ("rows", (1_000, 2_000))):
        values = [msgspec.json.encode(Row("a", START + time)) for time in times]
        part = Chunk(values, [b"a"] * 2, [0] * 2, range(2), topic, 0)
        work = task.process(app.topology.get(topic), part)
        assert work.failure is None
        task.settle(work, work.end)
    store.commit({}, {}, task.states.prepare())
    store.close()
    return folder


def command(folder: Path, *arguments: str) -> str:
    """Run `streamkit state`."""
    given = ["--data-dir", str(folder), "state", *arguments]
    done = CliRunner().invoke(cli, given, prog_name="streamkit")
    assert done.exit_code == 0, done.output
    return done.stdout


def exported(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(map(json.loads, command(folder, "export", "all", name).splitlines()))


def shown(folder: Path, name: str) -> list[Any]:
    lines = command(folder, "show", "all", name, "--key", "a").splitlines()
    return list(map(json.loads, lines))


WINDOW_JOIN = "waiting of windows of tuple of int, Row"


def test_every_state_of_a_stage_is_listed(ran: Path) -> None:
    listed = json.loads(command(ran, "list", "all", "-O", "json"))
    assert {each["name"]: (each["keys"], each["type"]) for each in listed} == {
        "minutes": (1, "windows of tuple of int"),
        "slides": (1, "windows of tuple of int"),
        "visits": (1, "windows of vartuple of tuple of int, int, tuple of int"),
        "pairs/left": (2, "waiting of Row"),
        "pairs/right": (2, "waiting of Row"),
        "windows/left": (2, WINDOW_JOIN),
        "windows/right": (2, WINDOW_JOIN),
        "found/waiting": (2, "waiting of Row"),
        "found/versions": (2, "waiting of none or Row"),
        "table": (1, "Row"),
        "kept": (1, "tuple of int, int"),
        "kept/timers": (1, "vartuple of tuple of int, str"),
    }


def test_values_of_windows_are_shown_with_their_end(ran: Path) -> None:
    assert exported(ran, "minutes") == [{"key": "a", "window_end": END, "value": [2]}]
    assert shown(ran, "minutes") == [{"window_end": END, "value": [2]}]
    assert exported(ran, "slides")[0]["key"] == "a"


def test_records_of_a_window_that_is_joined_are_shown_by_side(ran: Path) -> None:
    rows = [[START + at, {"key": "a", "at": START + at}] for at in (1_000, 2_000)]
    for side in ("left", "right"):
        entries = exported(ran, f"windows/{side}")
        assert [each["value"] for each in entries] == rows
        assert {each["time"] for each in entries} == {END}


def test_sessions_are_shown_by_their_key(ran: Path) -> None:
    assert shown(ran, "visits") == [[[START + 1_000, START + 2_000, [2]]]]


def test_waiting_records_are_shown_with_their_time(ran: Path) -> None:
    first, _ = exported(ran, "pairs/left")
    assert first == {
        "key": "a",
        "time": "2023-11-14T22:13:21+00:00",
        "is_matched": True,
        "value": {"key": "a", "at": START + 1_000},
    }
    assert len(shown(ran, "pairs/right")) == 2


def test_rows_of_tables_and_their_versions_are_shown(ran: Path) -> None:
    assert exported(ran, "table") == [{"key": "a", "value": {"key": "a", "at": START + 7}}]
    times = [each["value"]["at"] for each in exported(ran, "found/versions")]
    assert times == [START, START + 7]


def test_records_that_wait_for_a_table_are_shown_by_their_key(ran: Path) -> None:
    waiting = exported(ran, "found/waiting")
    assert [each["value"]["at"] for each in waiting] == [START + 1_000, START + 2_000]
    assert [each["key"] for each in waiting] == ["a", "a"]


def test_timers_and_values_that_expire_are_shown(ran: Path) -> None:
    assert exported(ran, "kept") == [{"key": "a", "value": [START + 2_000, START + 2_000]}]
    assert exported(ran, "kept/timers") == [{"key": "a", "value": [[START + 62_000, "soon"]]}]


def test_the_plan_of_an_app_is_explained_for_people() -> None:
    lines = plan_lines("all", explain(everything().topology))
    text = "\n".join(lines)
    for words in (
        "all: all stages run together in one task",
        "rows  [source]\n    watermark: the highest event time less 5 ms; a partition is idle "
        "after 1 min",
        "table  [table]\n    keeps table: Row",
        "minutes  [stage of by-key]\n    keeps minutes: windows of tuple of int (tumbling 1 min: "
        "rows=Count)\n    waits for the watermark of rows\n    results may be 10 s behind",
        "pairs  [stage of by-key, by-key]\n    keeps pairs/left: waiting of Row",
        "    waits for the watermark of rows, table\n    results may be 2 s behind the watermark",
        "now  [stage of rows, table]\n",
        "    keeps kept/timers: vartuple of tuple of int, str\n    waits for the watermark of rows",
        "    waits for the watermark of rows, 10 s behind",
        "minutes-late  [stage of minutes]\n    gets the records that came too late",
        "    positions of sources: rows, table",
    ):
        assert words in text, text


def test_the_plan_of_an_app_is_explained_as_json() -> None:
    plan = json.loads(msgspec.json.encode(explain(everything().topology)))
    nodes = {each["name"]: each for each in plan["nodes"]}
    assert plan["sources"] == ["rows", "table"]
    assert plan["states"] == [
        *("again", "found/versions", "found/waiting", "kept", "kept/timers", "minutes"),
        *(
            "pairs/left",
            "pairs/right",
            "slides",
            "table",
            "visits",
            "windows/left",
            "windows/right",
        ),
    ]
    assert [each["name"] for each in nodes["found"]["states"]] == [
        "found/waiting",
        "found/versions",
    ]
    assert nodes["pairs"]["reads"] == ["by-key", "by-key"]
    assert (nodes["table"]["kind"], nodes["now"]["reads"]) == ("table", ["rows", "table"])
