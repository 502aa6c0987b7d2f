"""User code that forks, hangs, leaves threads or replaces streams, in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_LATE
from tests.conftest import IS_DEEP
from tests.stop.job_environment import Place, place_in
from tests.stop.running import PATIENCE_S, PROJECT

COUNT = 20
# A stop with a deadline of 2 s may take this long: the watchdog waits, and the machine may be busy.
DEADLINE = ("--stop-deadline", "2s")
LATE_S_MAX = 15.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        found.produce("numbers", [b"%d" % number for number in range(COUNT)])
        yield found


def app_of(place: Place, body: str) -> Path:
    """Write an app whose ``body`` defines `worked`, a stage of the numbers."""
    path = place.folder / "job.py"
    path.write_text(
        "import multiprocessing, os, signal, subprocess, sys, threading, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from streamkit import App\n"
        'app = App("job")\n'
        'numbers = app.stream("numbers", int)\n'
        "fork = multiprocessing.get_context('fork')\n"
        f"{body}\n"
    )
    return path


def values_of(place: Place) -> list[int]:
    return [int(value) for value in place.values("out")]


def pids_of(place: Place) -> list[int]:
    return [int(pid) for pid in (place.folder / "pids").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def end_orphans(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


ENDED_CHILD = """
def worked(x):
    child = fork.Process(target=time.sleep, args=(60,))
    child.start()
    {end}
    child.join(20)
    assert child.exitcode == {code}, child.exitcode
    return x
numbers.filter(lambda x: x < 3).map(worked).to("out")
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("child.terminate()", -signal.SIGTERM),
        ("child.kill()", -signal.SIGKILL),
        ("time.sleep(0.2); os.kill(child.pid, signal.SIGINT)", 1),
    ],
)
def test_a_signal_to_a_forked_child_does_not_end_the_job(place: Place, end: str, code: int) -> None:
    job = place.run(app_of(place, ENDED_CHILD.format(end=end, code=code)), "--once")
    assert job.process.returncode == EXIT_CLEAN, job.words
    assert job.ended["reason"] == "reached the end"
    assert values_of(place) == [0, 1, 2]


POOLS = {
    "pool": "pool = fork.Pool(2)\ndef call(x): return pool.apply(abs, (x,))",
    "executor": (
        "pool = ProcessPoolExecutor(2, mp_context=fork)\n"
        "def call(x): return pool.submit(abs, x).result()"
    ),
    "spawned": (
        "pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn'))\n"
        "def call(x): return pool.submit(abs, x).result()"
    ),
    "lazy": (
        "pool = None\n"
        "def call(x):\n"
        "    global pool\n"
        "    pool = pool or fork.Pool(2)\n"
        "    return pool.apply(abs, (x,))"
    ),
}


@pytest.mark.parametrize("pool", POOLS)
def test_an_open_process_pool_does_not_keep_the_job_running(place: Place, pool: str) -> None:
    job = place.run(app_of(place, f'{POOLS[pool]}\nnumbers.map(call).to("out")'), "--once")
    assert job.process.returncode == EXIT_CLEAN, job.words
    assert values_of(place) == list(range(COUNT))


def test_orphans_of_a_killed_job_do_not_lock_its_state(place: Place) -> None:
    app = app_of(
        place,
        "pool = ProcessPoolExecutor(2, mp_context=fork)\n"
        "def call(x):\n"
        "    y = pool.submit(abs, x).result()\n"
        "    open('pids', 'w').write(' '.join(map(str, pool._processes)))\n"
        "    return y\n"
        'numbers.map(call).to("out")',
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "streamkit", "run", str(app), *place.options],
        cwd=place.folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    with process.stderr as output:
        while len(values_of(place) if (place.folder / "pids").exists() else []) < COUNT:
            assert process.poll() is None, output.read()
        process.kill()
    process.wait()
    orphans = pids_of(place)
    try:
        assert any(map(is_alive, orphans)), "the test proves nothing without an orphan"
        again = place.run(app, "--once")
        assert again.process.returncode == EXIT_CLEAN, again.words
    finally:
        end_orphans(orphans)
    assert set(values_of(place)) == set(range(COUNT))


@pytest.mark.parametrize("end", ["return x", "raise ValueError", "raise SystemExit(0)"])
def test_a_forked_child_that_returns_into_the_job_exits(place: Place, end: str) -> None:
    app = app_of(
        place,
        "def worked(x):\n"
        "    if x == 3 and os.fork() == 0:\n"
        f"        {end}\n"
        "    return x\n"
        'numbers.map(worked).to("out")',
    )
    job = place.run(app, "--once")
    assert job.process.returncode == EXIT_CLEAN, job.words
    assert values_of(place) == list(range(COUNT))
    assert "returned into the job" in job.error_text
    assert [event["event"] for event in job.events].count("ended") == 1


def test_ctrl_c_that_also_ends_the_pool_stops_the_job_in_order(place: Place) -> None:
    app = app_of(
        place,
        "def slowly(x):\n"
        "    time.sleep(0.05)\n"
        "    return x\n"
        "pool = ProcessPoolExecutor(1, mp_context=fork)\n"
        'numbers.map(lambda x: pool.submit(slowly, x).result()).to("out")',
    )
    command = [sys.executable, "-m", "streamkit", "run", str(app), "--json", *place.options]
    process = subprocess.Popen(
        command,
        cwd=place.folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    with process.stdout as output:
        while '"started"' not in output.readline():
            assert process.poll() is None
        while not values_of(place):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        rest = output.read()
    assert process.wait(PATIENCE_S) == EXIT_CLEAN, rest
    done = values_of(place)
    assert done == list(range(len(done)))
    fixed = place.run(app_of(place, 'numbers.to("out")'), "--once")
    assert fixed.process.returncode == EXIT_CLEAN, fixed.words
    assert values_of(place) == list(range(COUNT))


HANGS = {
    "stage": 'numbers.map(hang).to("out")',
    "filter": 'numbers.filter(hang).to("out")',
    "flat-map": 'numbers.flat_map(lambda x: [hang(x)]).to("out")',
    "key": 'numbers.to("out", key=lambda x: (hang(x), b"k")[1])',
    "partitioner": 'numbers.to("out", partitioner=lambda keys, count: [hang(9)])',
    "sink": "app.sink(numbers)(hang)",
    "sink-of-lists": "app.sink(numbers, batch=3, name='lists')(lambda rows: hang(9))",
    "async-sink": "app.sink(numbers)(hang_async)",
    "class-write": 'numbers.to(Table("write"), name="table")',
    "class-flush": 'numbers.to(Table("flush"), name="table")',
    "class-close": 'numbers.to(Table("close"), name="table")',
    "async-class-flush": 'numbers.to(Table("async flush"), name="table")',
}
HANGING = """
import asyncio
def say():
    sys.stderr.write("it hangs\\n")
    sys.stderr.flush()
def hang(x):
    if x == 9:
        say()
        time.sleep(60)
    return x
async def hang_async(x: int) -> None:
    if x == 9:
        say()
        await asyncio.sleep(60)
class Table:
    def __init__(self, call): self.call = call
    def open(self): pass
    def write(self, rows): self.hang("write")
    def flush(self):
        if self.call == "async flush":
            say()
            return asyncio.sleep(60)
        self.hang("flush")
    def close(self): self.hang("close")
    def hang(self, call):
        if self.call == call:
            say()
            time.sleep(60)
"""


# All blocked calls look the same to the event loop, so without --deep one of each kind is tested.
QUICK_HANGS = ("stage", "sink", "async-sink", "class-write", "class-flush", "class-close")


@pytest.mark.parametrize("callable_", list(HANGS) if IS_DEEP else QUICK_HANGS)
def test_a_hanging_callable_cannot_delay_a_stop_beyond_its_deadline(
    place: Place, callable_: str
) -> None:
    app = app_of(place, f"{HANGING}\n{HANGS[callable_]}")
    with place.job(app, *DEADLINE) as job:
        job.wait_for(lambda event: event["event"] == "started")
        if callable_ != "class-close":  # close is called only at the end
            job.wait_for_error("it hangs")
        sent_s = job.signal(signal.SIGTERM)
        assert job.wait() == EXIT_LATE, job.words
        assert job.ended_s - sent_s < LATE_S_MAX
        assert job.ended["reason"] == "stopped at the deadline"


@pytest.mark.parametrize("callable_", ["class-flush", "class-close", "async-class-flush"])
def test_the_deadline_also_applies_to_an_end_without_a_signal(place: Place, callable_: str) -> None:
    started_s = time.monotonic()
    app = app_of(place, f"{HANGING}\n{HANGS[callable_]}")
    job = place.run(app, "--once", "--commit-interval", "60s", *DEADLINE)
    assert job.process.returncode == EXIT_LATE, job.words
    assert time.monotonic() - started_s < LATE_S_MAX + PATIENCE_S / 4


def test_a_generator_that_waits_forever_does_not_delay_the_stop(place: Place) -> None:
    app = app_of(
        place,
        "@app.source\n"
        "def waiting():\n"
        "    yield 1\n"
        "    time.sleep(60)\n"
        'waiting.to("out")\n'
        'numbers.to("out", name="others")',
    )
    with place.job(app) as job:
        job.wait_for_records(COUNT + 1)
        job.signal()
        assert job.wait() == EXIT_CLEAN, job.words
    assert sorted(values_of(place)) == sorted([1, *range(COUNT)])


def test_a_thread_that_never_ends_is_reported_and_abandoned_at_the_deadline(place: Place) -> None:
    app = app_of(
        place,
        "def forever():\n"
        "    while True:\n"
        "        time.sleep(1)\n"
        "def worked(x):\n"
        "    if x == 3:\n"
        "        threading.Thread(target=forever, name='mine').start()\n"
        "    return x\n"
        'numbers.map(worked).to("out")',
    )
    job = place.run(app, "--once", *DEADLINE)
    assert job.process.returncode == EXIT_CLEAN, job.words
    assert f"the process waits for the thread 'mine', at {app}:" in job.error_text
    assert values_of(place) == list(range(COUNT))


@pytest.mark.parametrize(
    "stream",
    [
        "type('Odd', (), {'write': lambda self, text: None, 'flush': lambda self: None})()",
        "None",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handled_even_if_standard_error_is_not_a_file(
    place: Place, stream: str, number: int
) -> None:
    app = app_of(
        place,
        f"sys.stderr = {stream}\n"
        'numbers.to("out")\n'
        'if __name__ == "__main__":\n'
        "    sys.exit(app.run(json=True, embedded=True, data_dir=sys.argv[1]))",
    )
    process = subprocess.Popen(
        [sys.executable, str(app), str(place.folder / "data")],
        cwd=place.folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    with process.stdout as output:
        while '"started"' not in output.readline():
            assert process.poll() is None
        process.send_signal(number)
        rest = output.read()
    assert process.wait(PATIENCE_S) == EXIT_CLEAN, rest
    assert '"reason": "stopped' in rest


SLOW = """
def note(name, x):
    with open(name, "a") as file:
        file.write(f"{x}\\n")
"""
SLOW_ENDS = {
    "plain sink of 10 ms": "def post(x: int) -> None:\n    time.sleep(0.01); note('posted', x)\n"
    "app.sink(numbers)(post)",
    "async sink of 10 ms": "import asyncio\nasync def post(x: int) -> None:\n"
    "    await asyncio.sleep(0.01); note('posted', x)\napp.sink(numbers)(post)",
    "stage of 10 ms": "def worked(x):\n    time.sleep(0.01); return x\n"
    "app.sink(numbers.map(worked), name='notes')(lambda x: note('posted', x))",
    "suddenly slow": "def worked(x):\n    time.sleep(0.01 if x > 200 else 0); return x\n"
    "app.sink(numbers.map(worked), name='notes')(lambda x: note('posted', x))",
    "two sinks, the second slow": "def post(x: int) -> None:\n    time.sleep(0.01)\n"
    "app.sink(numbers, name='notes')(lambda x: note('posted', x))\napp.sink(numbers)(post)",
}


@pytest.mark.parametrize("end", SLOW_ENDS)
def test_slow_code_stops_in_order_and_repeats_nothing(place: Place, end: str) -> None:
    count = 6_000
    place.produce("numbers", [b"%d" % number for number in range(COUNT, count)])
    app = app_of(place, SLOW + SLOW_ENDS[end])
    posted = place.folder / "posted"
    with place.job(app) as job:
        job.wait_until(lambda: posted.exists() and posted.stat().st_size > 1_200)
        sent_s = job.signal(signal.SIGTERM)
        assert job.wait() == EXIT_CLEAN, job.words
        assert job.ended_s - sent_s < LATE_S_MAX
    done = [int(line) for line in posted.read_text().split()]
    assert done == list(range(len(done)))
    assert job.ended["lag"] == count - len(done)
    assert job.ended["records_in"] == len(done)
    app.write_text(app.read_text().replace("0.01", "0"))
    rest = place.run(app, "--once")
    assert rest.process.returncode == EXIT_CLEAN, rest.words
    assert [int(line) for line in posted.read_text().split()] == list(range(count))


def test_a_killed_job_with_a_slow_sink_repeats_about_one_commit_interval_of_records(
    place: Place,
) -> None:
    place.produce("numbers", [b"%d" % number for number in range(COUNT, 4_000)])
    app = app_of(place, SLOW + SLOW_ENDS["plain sink of 10 ms"])
    posted = place.folder / "posted"
    with place.job(app, "--commit-interval", "200ms") as job:
        job.wait_for(lambda event: event.get("commits", 0) > 3)
        job.process.kill()
    first = len(posted.read_text().split())
    app.write_text(app.read_text().replace("0.01", "0"))
    rest = place.run(app, "--once")
    assert rest.process.returncode == EXIT_CLEAN, rest.words
    assert rest.ended["records_in"] >= 4_000 - first
    assert first + rest.ended["records_in"] - 4_000 < 1_000, "far more than one commit interval"


def test_an_interrupted_run_with_once_reports_that_it_stopped(place: Place) -> None:
    place.produce("numbers", [b"%d" % number for number in range(COUNT, 6_000)])
    app = app_of(place, "def slow(x):\n    time.sleep(0.01); return x\nnumbers.map(slow).to('out')")
    with place.job(app, "--once") as job:
        job.wait_for(lambda event: event.get("records_in", 0) > 0)
        job.signal(signal.SIGTERM)
        assert job.wait() == EXIT_CLEAN
    assert job.ended["reason"] == "stopped"
    assert job.ended["lag"] == 6_000 - job.ended["records_in"] > 0
