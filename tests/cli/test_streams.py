"""Standard streams that are closed or full: at most one error line, and the right exit code."""

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
    """Run a command in a shell, which redirects or closes its streams."""
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
def test_a_job_continues_if_its_report_cannot_be_written(
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
def test_a_job_continues_if_its_json_report_cannot_be_written(folder: Path, dead: str) -> None:
    assert streamkit(folder, "run job.py --once --json", dead).code == 0
    assert run(folder, "consume", "copies", "-B", "-d").out == b"a\nb\nc\n"


def test_a_failing_job_keeps_its_exit_code_if_its_error_cannot_be_written(folder: Path) -> None:
    assert streamkit(folder, "run none.py", "2>/dev/full").code == 2


@pytest.mark.parametrize("dead", DEAD_ERRORS)
def test_lines_are_stored_and_printed_if_notes_cannot_be_written(folder: Path, dead: str) -> None:
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
def test_a_command_prints_one_error_line_if_a_stream_it_needs_is_closed_or_full(
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
def test_an_output_pipe_closed_by_its_reader_is_not_an_error(folder: Path, arguments: str) -> None:
    ended = streamkit(folder, arguments, "> >(exec <&-)")
    assert ended.code == 0
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("arguments", ["consume lines -B -d", "topic list", "run job.py --once"])
def test_commands_without_input_run_with_standard_input_closed(
    folder: Path, arguments: str
) -> None:
    ended = streamkit(folder, arguments, "<&-")
    assert (ended.code, "Traceback" in ended.err) == (0, False)


def test_a_job_with_all_streams_closed_writes_no_report_into_its_files(folder: Path) -> None:
    assert streamkit(folder, "run job.py --once", "<&- >&- 2>&-").code == 0
    assert run(folder, "consume", "copies", "-B", "-d").out == b"a\nb\nc\n"


def test_a_job_that_prints_runs_with_standard_output_closed(folder: Path) -> None:
    printing = 'app.stream("lines", bytes).map(lambda value: print(value) or value)'
    text = JOB.replace('app.stream("lines", bytes)', printing)
    (folder / "job.py").write_text(text)
    assert streamkit(folder, "run job.py --once", ">&-").code == 0


def test_a_report_is_escaped_if_the_encoding_lacks_its_characters(folder: Path) -> None:
    (folder / "job.py").write_text('raise ValueError("naïve →")\n')
    ascii_only = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
    ended = shell(folder, f"{ascii_only} {shlex.join(COMMAND)} check job.py")
    assert ended.code == 2
    assert "ValueError: na\\xefve \\u2192" in ended.err
