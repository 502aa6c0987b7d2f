"""An app's own settings in real processes: `run`, `check` and `app.run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import WAIT_S, environment, run

ENV = "STREAMKIT_SETTINGS_"
APP = """
import msgspec
from streamkit import App, Secret

class Database(msgspec.Struct, frozen=True):
    host: str = "localhost"
    port: int = 5432

class Late(msgspec.Struct, frozen=True):
    password: Secret
    minutes: int = 15
    database: Database = Database()

app = App("late")
settings = app.settings(Late)

@app.stage(app.stream("delays", int))
def late(minutes: int) -> str | None:
    values = settings.get()
    assert values.password.reveal() == "hunter2"
    return f"{minutes}@{values.database.host}" if minutes > values.minutes else None

late.to("late")
"""
LEAKS = """
@app.sink(late)
def connect(text: str) -> None:
    raise OSError(f"cannot connect to postgres://me:{settings.get().password.reveal()}@db")
"""


def job(folder: Path, more: str = "") -> dict[str, str]:
    """Write a job, its records and its secret; return the variables that it needs."""
    (folder / "app.py").write_text(APP + more)
    (folder / "password").write_text("hunter2\n")
    assert run(folder, "produce", "delays", given=b"10\n20\n30\n").code == 0
    return {f"{ENV}PASSWORD_FILE": str(folder / "password")}


def test_a_job_uses_its_settings_and_reports_where_they_come_from(tmp_path: Path) -> None:
    variables = job(tmp_path)
    (tmp_path / "streamkit.toml").write_text("[settings]\nminutes = 1\ndatabase.host = 'db'\n")
    done = run(tmp_path, "run", "app.py", "--once", "--set", "minutes=15", variables=variables)
    assert done.code == 0, done.err
    assert "  setting minutes: 15 (--set minutes)\n" in done.err
    assert f"  setting password: *** ({ENV}PASSWORD_FILE)\n" in done.err
    assert "  setting database.port: 5432 (default)\n" in done.err
    assert run(tmp_path, "consume", "late", "-B", "-d").lines == [b"20@db", b"30@db"]


def test_the_report_in_json_has_the_settings(tmp_path: Path) -> None:
    variables = job(tmp_path)
    done = run(tmp_path, "run", "app.py", "--once", "--json", variables=variables)
    events = [json.loads(line) for line in done.lines]
    (started,) = [each for each in events if each["event"] == "started"]
    assert {"name": "minutes", "value": "15", "origin": "default"} in started["settings"]
    assert b"hunter2" not in done.out


def test_missing_settings_stop_a_job_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    for command in (("run", "app.py", "--once"), ("check", "app.py")):
        done = run(tmp_path, *command)
        assert done.code == 2
        assert "error: 'late' needs settings that are not set: password (Secret)" in done.err
        assert f"password: {ENV}PASSWORD_FILE with the path of a file" in done.err
    assert not (tmp_path / ".streamkit").exists()
    assert run(tmp_path, "graph", "app.py").code == 0


def test_check_shows_the_settings(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    variables = {f"{ENV}PASSWORD": "hunter2"}
    done = run(tmp_path, "check", "app.py", "--set", "database.port=1", variables=variables)
    assert done.code == 0, done.err
    assert done.lines[0] == b"late: 3 stages, no problems found"
    assert b"  setting database.port: 1 (--set database.port)" in done.lines
    wrong = run(tmp_path, "check", "app.py", "--set", "minuts=1", variables=variables)
    assert (wrong.code, "did you mean 'minutes'?" in wrong.err) == (2, True)


def test_variables_of_settings_are_refused_by_a_job_that_has_none(tmp_path: Path) -> None:
    text = 'from streamkit import App\napp = App("plain")\napp.stream("a", bytes).to("b")\n'
    (tmp_path / "app.py").write_text(text)
    variables = {f"{ENV}PASSWORD": "hunter2"}
    done = run(tmp_path, "run", "app.py", "--once", variables=variables)
    assert done.code == 2
    assert f"error: {ENV}PASSWORD: this app has no settings of its own" in done.err
    assert run(tmp_path, "produce", "a", given=b"x\n", variables=variables).code == 0
    (tmp_path / "streamkit.toml").write_text("[settings]\nminutes = 1\n")
    assert run(tmp_path, "run", "app.py", "--once").code == 0


def test_a_secret_in_the_error_of_a_library_is_not_shown(tmp_path: Path) -> None:
    variables = job(tmp_path, LEAKS)
    for options in ((), ("--json",)):
        done = run(tmp_path, "run", "app.py", "--once", *options, variables=variables)
        assert done.code == 1
        assert "postgres://me:***@db" in done.err + done.out.decode()
        assert "hunter2" not in done.err + done.out.decode()


PROGRAMS = {
    "run": """
import sys
from app import app, settings
code = app.run(once=True, settings={"minutes": "25", "settings.database.host": "x"})
try:
    settings.get()
except Exception as error:
    print(error)
sys.exit(code)
""",
    "run_async": """
import asyncio
from app import app, settings

async def main() -> None:
    assert await app.run_async(once=True, settings={"minutes": "25", "database.host": "x"}) == 0

asyncio.run(main())
try:
    settings.get()
except Exception as error:
    print(error)
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_gives_settings_to_its_run(tmp_path: Path, program: str) -> None:
    variables = job(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[program]],
        cwd=tmp_path,
        env=environment(**variables),
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"the settings of 'late' are known only while the job runs\n"
    assert run(tmp_path, "consume", "late", "-B", "-d").lines == [b"30@x"]
