"""Jobs inside other programs."""

from __future__ import annotations

from typing import assert_type

from streamkit import App
from streamkit.run import RunningJob

app = App("embedded")
app.stream("lines", str).map(str.strip).to("tidy-lines")


def with_threads() -> None:
    with app.start(embedded=True, stop_deadline=5) as job:
        assert_type(job, RunningJob)
        assert_type(job.progress.lag, int | None)
    assert_type(job.wait(timeout=1), int)
    assert_type(app.start().stop(), int)


async def with_a_loop() -> None:
    async with app.start_async(once=True) as job:
        assert_type(job, RunningJob)
    assert_type(await app.run_async(once=True), int)
