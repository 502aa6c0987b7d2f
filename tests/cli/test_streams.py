"""Standard streams that are closed, full or gone: one line of error or none, and the right code."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.processes import COMMAND, WAIT_S, Ended, environment, run

JOB = """
from streamkit import App
app = App("job")
app.stream("lines", bytes).to("copies")
if __name__ == "__main__":
    import sys
    sys.exit(app.run(once=True))
"""


def shell(folder: Path, command: str, *redirections: str, given: bytes = b"") -> Ended:
    """Run a command by a shell, which opens and closes its streams."""
    line = f"{command} {' '.join(redirections)}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=WAIT_S,
        env=environment(),
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def streamkit(folder: Path, arguments: str, *redirections: str, given: bytes = b"") -> Ended:
    return shell(folder, f"{shlex.join(COMMAND)} {arguments}", *redirections, given=given)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three lines in a topic, and a job that copies them."""
    run(tmp_path, "produce", "lines", given=b"a\nb\nc\n")
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


DEAD_ERRORS = ["2>&-", "2>/dev/full", "2> >(head -c1 >/dev/null)", "2> >(exec <&-)"]


@pytest.mark.parametrize("dead", DEAD_ERRORS)
@pytest.mark.parametrize("command", ["run", "python", "json"])
def test_a_job_goes_on_though_nobody_can_read_its_report(
    folder: Path, command: str, dead: str
) -> None:
    if command == "python":
        ended = shell(folder, f"{shlex.quote(COMMAND[0])} job.py", dead)
    else:
        ended = streamkit(
            folder, f"run job.py --once {'--json' if command == 'json' else ''}", dead
        )
    assert ended.code == 0
    assert run(folder, "consume", "copies", "-B", "-d").out == b"a\nb\nc\n"


@pytest.mark.parametrize("dead", [">&-", ">/dev/full", "> >(exec <&-)"])
def test_a_job_goes_on_though_nobody_can_read_its_json(folder: Path, dead: str) -> None:
    assert streamkit(folder, "run job.py --once --json", dead).code == 0
    assert run(folder, "consume", "copies", "-B", "-d").out == b"a\nb\nc\n"


def test_a_failing_job_keeps_its_exit_code_though_nobody_reads_why(folder: Path) -> None:
    assert streamkit(folder, "run none.py", "2>/dev/full").code == 2


@pytest.mark.parametrize("dead", DEAD_ERRORS)
def test_lines_are_stored_and_printed_though_nobody_reads_notes(folder: Path, dead: str) -> None:
    assert streamkit(folder, "produce lines", dead, given=b"d\n").code == 0
    assert streamkit(folder, "consume lines -B -d", dead).out == b"a\nb\nc\nd\n"


@pytest.mark.parametrize(
    ("arguments", "redirection", "code", "error"),
    [
        ("produce lines", "<&-", 2, "standard input is closed"),
        ("produce lines -f /dev/stdin", "<&-", 2, "standard input is closed"),
        ("produce lines --print-metadata", ">&-", 1, "standard output: it is closed"),
        ("produce lines --print-metadata", ">/dev/full", 1, "standard output: No space left"),
        ("consume lines -B -d", ">&-", 1, "standard output: it is closed"),
        ("consume lines", ">&-", 1, "standard output: it is closed"),
        ("consume lines -B -d", ">/dev/full", 1, "standard output: No space left"),
        ("consume lines -B -d -O table", ">/dev/full", 1, "standard output: No space left"),
        ("topic list", ">&-", 1, "standard output: it is closed"),
        ("topic list -O json", ">/dev/full", 1, "standard output: No space left"),
        ("topic create more", ">/dev/full", 1, "standard output: No space left"),
        ("partition list", ">&-", 1, "standard output: it is closed"),
        ("graph job.py", ">&-", 1, "standard output: it is closed"),
        ("check job.py", ">/dev/full", 1, "standard output: No space left"),
        ("--help", ">/dev/full", 1, "standard output: No space left"),
        ("--version", ">&-", 1, "standard output: it is closed"),
    ],
)
def test_a_dead_stream_that_a_command_needs_is_one_line_of_error(
    folder: Path, arguments: str, redirection: str, code: int, error: str
) -> None:
    ended = streamkit(folder, arguments, redirection, given=b"d\n")
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert ended.code == code
    assert len(errors) == 1, ended.err
    assert error in errors[0]
    assert "Traceback" not in ended.err
    assert "Exception" not in ended.err


@pytest.mark.parametrize("arguments", ["consume lines -B -d", "topic list", "--help"])
def test_a_reader_that_has_seen_enough_is_no_error(folder: Path, arguments: str) -> None:
    ended = streamkit(folder, arguments, "> >(exec <&-)")
    assert ended.code == 0
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("arguments", ["consume lines -B -d", "topic list", "run job.py --once"])
def test_what_reads_nothing_needs_no_standard_input(folder: Path, arguments: str) -> None:
    ended = streamkit(folder, arguments, "<&-")
    assert (ended.code, "Traceback" in ended.err) == (0, False)


def test_with_all_streams_closed_nothing_is_written_where_it_does_not_belong(folder: Path) -> None:
    assert streamkit(folder, "run job.py --once", "<&- >&- 2>&-").code == 0
    assert run(folder, "consume", "copies", "-B", "-d").out == b"a\nb\nc\n"


def test_a_printing_job_needs_no_standard_output(folder: Path) -> None:
    printing = 'app.stream("lines", bytes).map(lambda value: print(value) or value)'
    text = JOB.replace('app.stream("lines", bytes)', printing)
    (folder / "job.py").write_text(text)
    assert streamkit(folder, "run job.py --once", ">&-").code == 0


def test_a_report_fits_any_encoding(folder: Path) -> None:
    (folder / "job.py").write_text('raise ValueError("naïve →")\n')
    ascii_only = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
    ended = shell(folder, f"{ascii_only} {shlex.join(COMMAND)} check job.py")
    assert ended.code == 2
    assert "ValueError: na\\xefve \\u2192" in ended.err
