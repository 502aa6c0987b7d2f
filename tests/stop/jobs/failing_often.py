"""Fails on one record in a hundred, in stages of every policy, and measures its memory.

``RECORDS`` is the number of records. The sink writes the resident size of the process, in bytes, to
the file ``resident`` after each twentieth of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from streamkit import App
from streamkit.policies import dead_letter, retry

app = App("failing-often")
_RECORDS = int(os.environ["RECORDS"])
_AGAIN = retry(3, delay=0.001, max_delay=0.01)
_failed = set[int]()


@app.source
def numbers(resume: int | None) -> Iterator[tuple[int, int]]:
    for number in range(0 if resume is None else resume + 1, _RECORDS):
        yield number, number


@app.stage(numbers, on_error="skip")
def skipped(number: int) -> int:
    if number % 100 == 1:
        raise ValueError(f"bad number {number}")
    return number


@app.stage(skipped, on_error=dead_letter("dead"))
def put_aside(number: int) -> int:
    if number % 100 == 2:
        raise ValueError(f"bad number {number}")
    return number


def fail_once(number: int) -> None:
    if number in _failed:
        _failed.remove(number)
    else:
        _failed.add(number)
        raise OSError("busy")


@app.stage(put_aside.key_by(lambda number: b"%d" % number), on_error=_AGAIN)
def retried(number: int) -> int:
    if number % 100 == 3:
        fail_once(number)
    return number


@app.stage(retried, ordered="key", on_error=_AGAIN.then(dead_letter("dead")))
async def awaited(number: int) -> int:
    if number % 100 == 4:
        fail_once(number)
    if number % 100 == 5:
        raise ValueError(f"bad number {number}")
    return number


_page_bytes = os.sysconf("SC_PAGE_SIZE")
_seen = 0


@app.sink(awaited, batch=1_000)
def measured(numbers: list[int]) -> None:
    global _seen
    step = _RECORDS // 20
    before, _seen = _seen, _seen + len(numbers)
    if before // step < _seen // step:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        with open("resident", "a") as file:
            file.write(f"{pages * _page_bytes}\n")
