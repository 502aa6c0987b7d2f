"""Replays of dead letters, jobs that fail at the same record again and again, and their reports."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import Ended, read_until, run, started

APP = """
import asyncio, pathlib
import msgspec
from streamkit import App, Context, Record, State
from streamkit.policies import dead_letter, retry

class Order(msgspec.Struct):
    number: int

app = App("orders", version="2")
orders = app.stream("orders", Order, on_error=dead_letter("dead"))
is_well = pathlib.Path("well").exists()

@app.stage(orders, concurrency=8, on_error=retry(attempts=2, delay=0.01).then(dead_letter("dead")))
async def called(order: Order) -> Order:
    await asyncio.sleep(SLEEP)
    if order.number % 10 == 3 and not is_well:
        raise OSError("not well")
    return order

@app.stage(called, name="PLAIN", on_error=dead_letter("dead"))
def plain(order: Order) -> Order:
    if order.number % 10 == 4 and not is_well:
        raise ValueError("not well either")
    return order

@app.stage(plain.key_by(lambda order: str(order.number % 3)))
def counted(order: Order, state: State[int]) -> tuple[int, int]:
    state.set(state.get(0) + 1)
    return order.number, state.get(0)

counted.to("done")
"""


def write_app(folder: Path, sleep: float = 0.0, plain: str = "plain") -> None:
    (folder / "app.py").write_text(APP.replace("SLEEP", str(sleep)).replace("PLAIN", plain))


def produced(folder: Path, count: int) -> None:
    lines = b"".join(b'{"number": %d}\n' % number for number in range(count))
    assert run(folder, "produce", "orders", given=lines + b"not JSON\n").code == 0


def report(done: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    assert found["event"] == "ended", done
    return found


def stage(ended: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in ended["stages"] if each["name"] == name)
    return found


def numbers(folder: Path) -> Counter[int]:
    lines = run(folder, "consume", "done", "-B", "-d").lines
    return Counter(json.loads(line)[0] for line in lines)


def read_progress(process: subprocess.Popen[bytes], pending: int) -> None:
    """Read reports up to one in which so many records are pending."""
    assert process.stdout is not None
    for line in process.stdout:
        found = json.loads(line)
        if found["event"] == "progress" and found["pending"] == pending:
            return
    raise AssertionError("the job has ended")


def waiting(folder: Path) -> int:
    return int(run(folder, "dlq", "count", "dead").out.split()[0])


def test_what_failed_is_replayed_into_its_stage_once(tmp_path: Path) -> None:
    write_app(tmp_path)
    produced(tmp_path, 40)
    ended = report(run(tmp_path, "run", "app.py", "--once", "--json"))
    assert (ended["records_in"], ended["records_out"], ended["dead_lettered"]) == (41, 32, 9)
    calls = stage(ended, "called")
    assert (calls["taken"], calls["handled"], calls["dead_lettered"]) == (40, 36, 4)
    assert calls["waits"]["retries"] == 4
    assert calls["waits"]["p50_ms"] is not None
    for each in ended["stages"]:
        sums = [each[what] for what in ("handled", "dropped", "skipped", "dead_lettered")]
        assert each["taken"] == sum(sums) + each["pending"]
    assert waiting(tmp_path) == 9

    (tmp_path / "well").touch()
    again = run(tmp_path, "dlq", "replay", "app.py", "dead", "--json")
    assert again.code == 0, again
    assert report(again)["dead_lettered"] == 1  # what is not JSON
    assert numbers(tmp_path) == Counter(range(40))
    assert waiting(tmp_path) == 1
    counts = json.loads(run(tmp_path, "state", "export", "orders", "counted").lines[0])["value"]
    assert counts == 14

    once_more = report(run(tmp_path, "dlq", "replay", "app.py", "dead", "--json"))
    assert stage(once_more, "replay-dead")["taken"] == 1
    assert numbers(tmp_path) == Counter(range(40))


def test_a_run_replays_beside_its_sources(tmp_path: Path) -> None:
    write_app(tmp_path)
    produced(tmp_path, 10)
    assert run(tmp_path, "run", "app.py", "--once").code == 0
    (tmp_path / "well").touch()
    lines = b"".join(b'{"number": %d}\n' % number for number in range(10, 20))
    run(tmp_path, "produce", "orders", given=lines)
    assert run(tmp_path, "run", "app.py", "--once", "--replay", "dead").code == 0
    assert numbers(tmp_path) == Counter(range(20))


def test_a_replay_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    write_app(tmp_path)
    produced(tmp_path, 200)
    assert run(tmp_path, "run", "app.py", "--once").code == 0
    (tmp_path / "well").touch()
    write_app(tmp_path, sleep=0.3)
    with started(tmp_path, "dlq", "replay", "app.py", "dead") as process:
        read_until(process, b"records waiting")
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        process.wait()
    write_app(tmp_path)
    assert run(tmp_path, "dlq", "replay", "app.py", "dead").code == 0
    assert set(numbers(tmp_path)) == set(range(200))
    assert waiting(tmp_path) in (
        1,
        2,
    )  # what is not JSON, once more if the kill came before a commit


def test_a_replay_names_a_stage_that_the_app_does_not_have(tmp_path: Path) -> None:
    write_app(tmp_path)
    produced(tmp_path, 10)
    run(tmp_path, "run", "app.py", "--once")
    write_app(tmp_path, plain="other")
    done = run(tmp_path, "dlq", "replay", "app.py", "dead")
    assert done.code == 1
    assert "the letter is for the stage 'plain', which this app does not have" in done.err
    assert 'set name="plain"' in done.err


def test_a_replay_of_a_missing_topic_and_of_a_running_job_are_refused(tmp_path: Path) -> None:
    write_app(tmp_path)
    produced(tmp_path, 10)
    run(tmp_path, "run", "app.py", "--once")
    missing = run(tmp_path, "dlq", "replay", "app.py", "daed")
    assert (missing.code, "'dead'" in missing.err) == (1, True), missing
    with started(tmp_path, "run", "app.py") as process:
        read_until(process, b"records waiting")
        refused = run(tmp_path, "dlq", "replay", "app.py", "dead")
        assert (refused.code, "another run" in refused.err) == (4, True), refused


CRASHING = """
from streamkit import App
app = App("crashing")
lines = app.stream("lines", str)

@app.stage(lines)
def checked(line: str) -> str:
    if line == "bad":
        raise ValueError("boom")
    return line

checked.to("done")
"""


def crash(folder: Path, *options: str) -> Ended:
    return run(folder, "run", "crashing.py", "--once", "--json", *options)


def test_the_third_failure_at_a_record_is_a_crash_loop(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    run(tmp_path, "produce", "lines", given=b"a\nbad\nb\n")
    codes = []
    for runs in (1, 2, 3, 4):
        done = crash(tmp_path)
        codes.append(done.code)
        assert report(done)["crash"] == {
            "stage": "checked",
            "topic": "lines",
            "partition": 0,
            "offset": 1,
            "runs": runs,
        }
    assert codes == [1, 1, 5, 5]
    shown = run(tmp_path, "run", "crashing.py", "--once")
    assert "crash loop: 5 runs in a row have failed at this record" in shown.err

    (tmp_path / "crashing.py").write_text(CRASHING.replace('"bad"', '"good"'))
    assert crash(tmp_path).code == 0
    assert run(tmp_path, "consume", "done", "-B", "-d").lines == [b"a", b"bad", b"b"]


def test_a_record_of_a_crash_loop_can_be_put_aside(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    run(tmp_path, "produce", "lines", given=b"a\nbad\nb\nbad\nc\n")
    option = ("--on-crash-loop", "dead-letter")
    found = [crash(tmp_path, *option).code for _ in range(6)]
    assert found == [1, 1, 1, 1, 0, 0]
    assert run(tmp_path, "consume", "done", "-B", "-d").lines == [b"a", b"b", b"c"]
    letters = run(tmp_path, "consume", "crashing-dead-letters", "-B", "-d").lines
    assert [json.loads(each)["offset"] for each in letters] == [1, 3]


BATCHES = """
from streamkit import App
app = App("crashing")

@app.stage(app.stream("lines", str), batch=4)
def checked(lines: list[str]) -> list[str]:
    if "bad" in lines:
        raise ValueError("boom")
    return lines

checked.to("done")
"""


def test_of_a_batch_only_the_record_that_fails_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(BATCHES)
    run(tmp_path, "produce", "lines", given=b"a\nb\nbad\nc\nd\n")
    option = ("--on-crash-loop", "dead-letter")
    assert [crash(tmp_path, *option).code for _ in range(3)] == [1, 1, 0]
    assert run(tmp_path, "consume", "done", "-B", "-d").lines == [b"a", b"b", b"c", b"d"]
    letters = run(tmp_path, "consume", "crashing-dead-letters", "-B", "-d").lines
    assert [json.loads(each)["offset"] for each in letters] == [2]


PARKED = """
import pathlib
from streamkit import App
from streamkit.policies import retry
app = App("parked")
lines = app.stream("lines", str)

@app.stage(lines, name="NAME", on_error=retry(attempts=100, delay=5))
def checked(line: str) -> str:
    if line == "bad" and not pathlib.Path("well").exists():
        raise ValueError("boom")
    return line

checked.to("done")
"""


def test_what_waits_for_a_retry_is_in_the_last_commit(tmp_path: Path) -> None:
    (tmp_path / "parked.py").write_text(PARKED.replace("NAME", "checked"))
    run(tmp_path, "produce", "lines", "--key-separator", ":", given=b"k:bad\nk:a\nj:b\n")
    with started(tmp_path, "run", "parked.py", "--json") as process:
        read_progress(process, 2)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    assert process.returncode == 0
    ended = json.loads(out.splitlines()[-1])
    assert (ended["pending"], stage(ended, "checked")["waits"]["parked"]) == (2, 1)
    (listed,) = json.loads(run(tmp_path, "state", "list", "parked", "-O", "json").out)
    assert (listed["name"], listed["keys"]) == ("checked/pending", 2)
    (tmp_path / "well").touch()
    assert run(tmp_path, "run", "parked.py", "--once").code == 0
    assert run(tmp_path, "consume", "done", "-B", "-d").lines == [b"b", b"bad", b"a"]


def test_records_that_wait_for_a_stage_that_is_gone_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "parked.py").write_text(PARKED.replace("NAME", "checked"))
    run(tmp_path, "produce", "lines", given=b"bad\n")
    with started(tmp_path, "run", "parked.py", "--json") as process:
        read_progress(process, 1)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    (tmp_path / "parked.py").write_text(PARKED.replace("NAME", "renamed"))
    refused = run(tmp_path, "run", "parked.py", "--once")
    assert refused.code == 1
    assert "records wait for a stage 'checked', which this app does not have" in refused.err
    assert "streamkit state delete parked checked/pending" in refused.err
    assert run(tmp_path, "state", "delete", "parked", "checked/pending").code == 0
    assert run(tmp_path, "run", "parked.py", "--once").code == 0


FAILS = """
import itertools, sys
tries = itertools.count()
def fails():
    print("trying", file=sys.stderr, flush=True)
    return next(tries) < 5
"""


@pytest.mark.parametrize("options", [("--once",), ("--drain",)])
def test_a_run_that_ends_by_itself_waits_for_retries(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    text = PARKED.replace("NAME", "checked").replace("delay=5", "delay=0.05")
    text = text.replace('not pathlib.Path("well").exists()', "fails()")
    (tmp_path / "parked.py").write_text(text + FAILS)
    run(tmp_path, "produce", "lines", given=b"bad\nb\n")
    if options == ("--once",):
        assert run(tmp_path, "run", "parked.py", *options).code == 0
    else:
        with started(tmp_path, "run", "parked.py", *options) as process:
            read_until(process, b"trying")
            process.send_signal(signal.SIGTERM)
            process.communicate()
        assert process.returncode == 0
    assert run(tmp_path, "consume", "done", "-B", "-d").lines == [b"bad", b"b"]
