"""Hostile calls in real processes: in spawned ones, and calls that never end when the job stops."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit.runtime.shutdown import EXIT_CLEAN, EXIT_FAILED, EXIT_LATE
from tests.conftest import IS_DEEP
from tests.hostile.test_processes import COUNT, DEADLINE, LATE_S_MAX, app_of, values_of
from tests.stop.job_environment import Place, place_in

BAD = 9
NUMBERS = list(range(COUNT))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as found:
        found.produce("numbers", [b"%d" % number for number in range(COUNT)])
        yield found


# --- calls in spawned processes ---------------------------------------------------------

SPAWNED = """
class Odd(Exception):
    def __init__(self, value, other): super().__init__(value)

def act():
    {act}

@app.stage(numbers, process=True{options})
def hostile(value: int) -> int:
    if value == {bad} and not os.path.exists("fixed"):
        return act() or value
    return value

hostile.to("out")
"""
# What the call does, and what the error says.
ACTS = {
    "raises": ("raise ValueError('bad row')", "ValueError: bad row"),
    "exits": ("raise SystemExit(0)", "SystemExit"),
    "is-killed": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "leaves": ("os._exit(0)", "exited with code 0"),
    "is-interrupted": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "hangs": ("time.sleep(60)", "TimeoutError: the call took longer than"),
    "cannot-be-sent": ("return threading.Lock()", "lock"),
    "raises-what-cannot-be-sent": ("raise Odd(1, 2)", "Odd"),
    "returns-a-generator": ("return (each for each in ())", "generator"),
}
_CASES = [
    case
    for number, case in enumerate(itertools.product(ACTS, ("fail", "skip")))
    if IS_DEEP or number % 5 == 0
]


@pytest.mark.parametrize(("act", "policy"), _CASES, ids=lambda each: each)
def test_a_hostile_call_in_a_process_affects_only_its_record(
    place: Place, act: str, policy: str
) -> None:
    code, words = ACTS[act]
    # A process needs longer than this to start, which does not count.
    options = f", on_error={policy!r}" + (", timeout=0.2" if act == "hangs" else "")
    app = app_of(place, SPAWNED.format(act=code, options=options, bad=BAD))
    job = place.run(app, "--once")
    others = [number for number in NUMBERS if number != BAD]
    if policy == "skip" and act != "is-interrupted":
        assert job.process.returncode == EXIT_CLEAN, job.words
        assert words in "".join(job.notes)
        assert values_of(place) == others
        return
    assert job.process.returncode == EXIT_FAILED, job.words
    assert f"stage 'hostile' failed on numbers-0 offset {BAD}:" in job.ended["error"]
    assert words in job.ended["error"]
    assert f"{app}:" in job.ended["error"]
    assert values_of(place) == NUMBERS[:BAD]
    (place.folder / "fixed").touch()
    again = place.run(app, "--once")
    assert again.process.returncode == EXIT_CLEAN, again.words
    assert values_of(place) == NUMBERS


# --- calls that never end ---------------------------------------------------------------

NEVER_ENDING = """
import asyncio
def say():
    sys.stderr.write("it hangs\\n")
    sys.stderr.flush()
async def swallow():
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass
"""
ENDLESS = {
    "async": "async def hostile(x: int) -> int:\n    say(); await asyncio.Event().wait()",
    "async-that-swallows": "async def hostile(x: int) -> int:\n    say(); await swallow()",
    "async-that-blocks": "async def hostile(x: int) -> int:\n    say(); time.sleep(60)",
    "async-generator": (
        "async def hostile(x: int) -> AsyncIterator[int]:\n"
        "    say()\n"
        "    while True:\n"
        "        await asyncio.sleep(0.001)\n"
        "        yield x"
    ),
    "thread": "def hostile(x: int) -> int:\n    say(); time.sleep(60)",
    "process": "def hostile(x: int) -> int:\n    say(); time.sleep(60)",
    "plain-batch": "def hostile(x: list[int]) -> list[int]:\n    say(); time.sleep(60)",
}
OPTIONS = {"thread": ", blocking=True", "process": ", process=True", "plain-batch": ", batch=5"}
QUICK_ENDLESS = ("async-that-swallows", "async-that-blocks", "thread", "process")


@pytest.mark.parametrize("call", list(ENDLESS) if IS_DEEP else QUICK_ENDLESS)
def test_a_call_that_never_ends_cannot_delay_a_stop_beyond_its_deadline(
    place: Place, call: str
) -> None:
    decorated = f"@app.stage(numbers{OPTIONS.get(call, '')})\n{ENDLESS[call]}\nhostile.to('out')"
    imports = "from collections.abc import AsyncIterator"
    app = app_of(place, f"{imports}\n{NEVER_ENDING}\n{decorated}")
    with place.job(app, *DEADLINE) as job:
        job.wait_for_error("it hangs")
        sent_s = job.signal(signal.SIGTERM)
        assert job.wait() == EXIT_LATE, job.words
        assert job.ended_s - sent_s < LATE_S_MAX
    assert job.ended["reason"] == "stopped at the deadline"
    fixed = app_of(place, "@app.stage(numbers)\ndef hostile(x: int) -> int:\n    return x\n")
    fixed.write_text(fixed.read_text() + "hostile.to('out')\n")
    again = place.run(fixed, "--once")
    assert again.process.returncode == EXIT_CLEAN, again.words
    assert values_of(place) == NUMBERS


def test_a_task_that_is_left_and_never_ends_does_not_keep_the_process(place: Place) -> None:
    body = (
        "tasks = set()\n"
        "@app.stage(numbers)\n"
        "async def hostile(x: int) -> int:\n"
        "    if x == 3:\n"
        "        tasks.add(asyncio.create_task(swallow()))\n"
        "    return x\n"
        "hostile.to('out')"
    )
    app = app_of(place, f"{NEVER_ENDING}\n{body}")
    started_s = time.monotonic()
    job = place.run(app, "--once", *DEADLINE)
    assert job.ended["exit_code"] == EXIT_CLEAN, job.words
    assert job.process.returncode in (EXIT_CLEAN, EXIT_LATE), job.words
    assert time.monotonic() - started_s < LATE_S_MAX
    assert values_of(place) == NUMBERS


LIFESPAN = """
from collections.abc import AsyncIterator
@app.lifespan
async def hostile() -> AsyncIterator[int]:
    {enter}
    yield 1
    {leave}
numbers.to("out")
"""


@pytest.mark.parametrize("hang", ["await asyncio.Event().wait()", "time.sleep(60)"])
@pytest.mark.parametrize("moment", ["enter", "leave"])
def test_a_lifespan_that_never_ends_does_not_keep_the_process(
    place: Place, moment: str, hang: str
) -> None:
    calls = {"enter": "pass", "leave": "pass"} | {moment: f"say(); {hang}"}
    app = app_of(place, NEVER_ENDING + LIFESPAN.format(**calls))
    options = DEADLINE if moment == "enter" else (*DEADLINE, "--once")
    with place.job(app, *options) as job:
        job.wait_for_error("it hangs")
        sent_s = time.monotonic()
        if moment == "enter":
            sent_s = job.signal(signal.SIGTERM)
        code = job.wait()
        assert job.ended_s - sent_s < LATE_S_MAX
    is_not_begun = moment == "enter" and "await" in hang
    assert code == (EXIT_CLEAN if is_not_begun else EXIT_LATE), job.words
    if moment == "leave":
        assert values_of(place) == NUMBERS
