"""`streamkit state`, and the start of a job whose state does not fit its app any more."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.processes import Ended, read_until, run, started

APP = """
from streamkit import App, State
app = App("counting")
words = app.stream("words", str)
@app.stage(words.key_by(str), name="{name}")
def counted(word: str, state: State[{kind}]) -> str | None:
    state.set(state.get({start}) + {step})
    return None
"""


def job(folder: Path, name: str = "counted", kind: str = "int") -> Ended:
    step, start = ("1", "0") if kind == "int" else ("'x'", "''")
    text = APP.format(name=name, kind=kind, step=step, start=start)
    (folder / "app.py").write_text(text + 'counted.to("nothing")\n')
    return run(folder, "run", "app.py", "--once")


def test_a_state_is_listed_shown_exported_and_deleted(tmp_path: Path) -> None:
    run(tmp_path, "produce", "words", given=b"a\nb\na\n")
    assert job(tmp_path).code == 0
    (listed,) = json.loads(run(tmp_path, "state", "list", "counting", "-O", "json").out)
    assert (listed["name"], listed["keys"], listed["type"]) == ("counted", 2, "int")
    assert run(tmp_path, "state", "show", "counting", "counted", "--key", "a").lines == [b"2"]
    assert run(tmp_path, "state", "export", "counting", "counted").lines == [
        b'{"key":"a","value":2}',
        b'{"key":"b","value":1}',
    ]
    assert run(tmp_path, "state", "delete", "counting", "counted").code == 0
    assert run(tmp_path, "state", "list", "counting", "-O", "json").out == b"[]\n"


def test_an_unknown_app_state_or_key_is_an_error(tmp_path: Path) -> None:
    unknown = run(tmp_path, "state", "list", "counting")
    assert (unknown.code, "there is no state of an app 'counting'" in unknown.err) == (2, True)
    run(tmp_path, "produce", "words", given=b"a\n")
    job(tmp_path)
    other = run(tmp_path, "state", "export", "counting", "other")
    assert (other.code, "its states are: counted" in other.err) == (2, True)
    no_key = run(tmp_path, "state", "show", "counting", "counted", "--key", "z")
    assert (no_key.code, "has no key 'z'" in no_key.err) == (2, True)


def test_a_state_can_be_read_but_not_deleted_while_the_job_runs(tmp_path: Path) -> None:
    run(tmp_path, "produce", "words", given=b"a\n")
    job(tmp_path)
    with started(tmp_path, "run", "app.py") as running:
        read_until(running, b"records waiting")
        assert run(tmp_path, "state", "show", "counting", "counted", "--key", "a").lines == [b"1"]
        refused = run(tmp_path, "state", "delete", "counting", "counted")
        assert refused.code != 0
        assert "is running" in refused.err or "has locked" in refused.err


def test_a_job_whose_state_has_another_type_does_not_start(tmp_path: Path) -> None:
    run(tmp_path, "produce", "words", given=b"a\n")
    job(tmp_path)
    ended = job(tmp_path, kind="str")
    assert ended.code == 1
    assert "the stored state of 'counted' cannot be read" in ended.err
    assert "was int, now it is str" in ended.err


def test_a_job_without_the_stage_of_a_state_keeps_it_and_reports_it(tmp_path: Path) -> None:
    run(tmp_path, "produce", "words", given=b"a\n")
    job(tmp_path)
    ended = job(tmp_path, name="renamed")
    assert ended.code == 0
    assert "the state of a stage 'counted' is stored" in ended.err
    listed = json.loads(run(tmp_path, "state", "list", "counting", "-O", "json").out)
    assert [each["name"] for each in listed] == ["counted"]
