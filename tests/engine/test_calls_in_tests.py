"""What `app.test()` does with records that wait for calls and retries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from streamkit import App
from streamkit.aggregates import Count
from streamkit.policies import retry
from streamkit.windows import Tumbling

BEGIN = datetime(2024, 5, 1, 8, tzinfo=UTC)


class Reading(msgspec.Struct):
    sensor: str
    at: datetime


def test_a_window_that_waited_for_a_retry_is_complete_after_it() -> None:
    app = App("readings")
    readings = app.stream("readings", Reading, event_time=lambda reading: reading.at)
    is_up = False

    @app.stage(readings, on_error=retry(attempts=2, delay=10, on=OSError))
    def checked(reading: Reading) -> Reading:
        if reading.sensor == "attic" and not is_up:
            raise OSError("down")
        return reading

    windows = checked.key_by(lambda reading: reading.sensor).window(Tumbling(minutes=1))
    counts = windows.aggregate(name="counts", readings=Count())
    counts.to("counts")
    with app.test() as job:
        job.send(readings, Reading("attic", BEGIN))
        job.send(readings, Reading("cellar", BEGIN + timedelta(minutes=5)))
        assert job.output(counts) == []
        is_up = True
        job.advance(seconds=10)
        assert [(each["key"], each["readings"]) for each in job.output(counts)] == [("attic", 1)]
