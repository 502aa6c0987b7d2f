"""`startup`: whole processes, from their start to the output that a user waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from streamkit.bench.environment import Environment, broker
from streamkit.bench.result import Comparison, Result, Scale, Timing, WrongOutput
from streamkit.broker.data_folder import DataFolder

_HELP_S_MAX = 0.3
_FIRST_RECORD_S_MAX = 1.0
# Processes per round; the result is the median of all.
_RUNS_PER_ROUND = 3
_WAIT_S_MAX = 60.0
_APP = """from streamkit import App

app = App("bench-startup")


@app.source("first")
def lines(line: str) -> str:
    return line


@app.sink(lines)
def shown(line: str) -> None:
    print(line, flush=True)
"""


def run(scale: Scale) -> Result:
    runs = scale.rounds * _RUNS_PER_ROUND
    bare_s = median(_whole_process_s("-c", "pass") for _ in range(runs))
    help_s = median(_help_s() for _ in range(runs))
    with broker(scale) as environment:
        environment.client.admin.create_topic("first")
        with environment.client.producer("first") as producer:
            producer.send("a record")
        running_s = median(_first_record_s(environment) for _ in range(runs))
    cold_s = median(_first_record_cold_s(scale) for _ in range(runs))
    limit = "the limit"
    return Result(
        "startup",
        f"median of {runs} processes",
        [
            Comparison(what, Timing(found_s), Timing(max_s), limit, 1.0)
            for what, found_s, max_s in (
                ("streamkit --help", help_s, _HELP_S_MAX),
                ("first record, broker runs", running_s, _FIRST_RECORD_S_MAX),
                ("first record, broker started", cold_s, _FIRST_RECORD_S_MAX),
            )
        ],
        [f"`python -c pass` takes {bare_s * 1e3:.0f} ms here"],
    )


def _whole_process_s(*arguments: str) -> float:
    started_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started_s


def _help_s() -> float:
    started_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "streamkit", "--help"], check=True, capture_output=True, text=True
    )
    elapsed_s = time.perf_counter() - started_s
    if "Commands:" not in done.stdout:
        raise WrongOutput(f"the help does not list the commands: {done.stdout!r}")
    return elapsed_s


def _first_record_s(environment: Environment) -> float:
    with tempfile.TemporaryDirectory(dir=environment.folder) as folder:
        elapsed_s = _until_first_line_s(Path(folder), "--cluster", environment.address)
    # A job without state would resume at the offset on the broker, after the record.
    environment.client.admin.delete_consumer("bench-startup")
    return elapsed_s


def _first_record_cold_s(scale: Scale) -> float:
    """Return the same time as `_first_record_s`, including the start of the broker."""
    with tempfile.TemporaryDirectory(prefix="streamkit-bench-", dir=scale.folder) as name:
        folder = Path(name)
        data_dir = str(folder / "data")
        produce = [sys.executable, "-m", "streamkit", "--data-dir", data_dir, "produce", "first"]
        subprocess.run(produce, input="a record\n", text=True, check=True, capture_output=True)
        _wait_for_end(folder / "data")
        elapsed_s = _until_first_line_s(folder, "--data-dir", data_dir)
        _wait_for_end(folder / "data")
        return elapsed_s


def _wait_for_end(data_dir: Path) -> None:
    """Wait until the embedded broker of the previous command has stopped."""
    deadline_s = time.monotonic() + _WAIT_S_MAX
    while time.monotonic() < deadline_s:
        fd = DataFolder(data_dir).try_lock()
        if fd is not None:
            os.close(fd)
            return
        time.sleep(0.02)
    raise WrongOutput(f"the broker of {data_dir} did not stop")


def _until_first_line_s(folder: Path, *environment: str) -> float:
    (folder / "bench_startup_app.py").write_text(_APP)
    # `--once` ends the job even if it does not find the record.
    command = [
        sys.executable,
        "-m",
        "streamkit",
        "run",
        "bench_startup_app.py",
        "--once",
        *environment,
    ]
    messages = folder / "messages"
    started_s = time.perf_counter()
    with (
        messages.open("w") as errors,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None, "stdout is a pipe"
        line = process.stdout.readline()
        elapsed_s = time.perf_counter() - started_s
    if line != "a record\n":
        raise WrongOutput(f"the job's first line is {line!r}: {messages.read_text()}")
    return elapsed_s
