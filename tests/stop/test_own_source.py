"""A clean stop processes all values that a source without replay has yielded."""

from __future__ import annotations

from pathlib import Path

from tests.stop.running import Job

APP = """\
import itertools
import time
from collections.abc import Iterator

from streamkit import App
from streamkit.connectors.files import JsonLines

app = App("numbers")
made = open("made", "ab", buffering=0)


@app.source
def numbers() -> Iterator[int]:
    for number in itertools.count():
        made.write(b".")
        yield number


def slowly(number: int) -> int:
    time.sleep(0.0001)
    return number


numbers.map(slowly).to(JsonLines("numbers.jsonl"))
"""


def test_values_of_a_generator_are_not_lost_at_a_stop(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    with Job(app, tmp_path, "--embedded") as job:
        job.wait_until(lambda: any(event.get("records_in", 0) > 0 for event in job.events))
        job.signal()
        assert job.wait() == 0
    written = [int(line) for line in (tmp_path / "numbers.jsonl").read_text().splitlines()]
    made = (tmp_path / "made").stat().st_size
    assert written == list(range(len(written)))
    # The generator may be yielding one more value when the job stops reading.
    assert made - len(written) <= 1


def test_a_stage_that_raises_system_exit_fails(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        APP.replace("time.sleep(0.0001)", "if number == 7:\n        raise SystemExit(0)")
    )
    with Job(app, tmp_path, "--embedded") as job:
        assert job.wait() == 1
    assert "SystemExit" in job.ended["error"]
    assert "offset 7" in job.ended["error"]
