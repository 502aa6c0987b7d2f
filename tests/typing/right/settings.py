"""An app's own settings: stages read them with their types, and tests give them."""

from __future__ import annotations

from typing import assert_type

import msgspec

from streamkit import App, Secret
from streamkit.settings import AppSettings

from ..rows import Flight


class LateSettings(msgspec.Struct, frozen=True):
    password: Secret
    minutes: float = 15.0


app = App("settings")
settings = app.settings(LateSettings)
assert_type(settings, AppSettings[LateSettings])


@app.stage(app.stream("flights", Flight))
def late(flight: Flight) -> float | None:
    values = assert_type(settings.get(), LateSettings)
    assert_type(values.password.reveal(), str)
    minutes = (flight.arr_delay or 0.0) - values.minutes
    return minutes if minutes > 0 else None


late.to("late")


def use(settings: AppSettings[LateSettings]) -> float:
    """Sinks and other objects can keep the settings and read them later."""
    return settings.get().minutes


def test() -> None:
    with app.test(settings=LateSettings(Secret("x"), minutes=30.0)) as job:
        job.send("flights", Flight("UA", 1, 45.0))
        assert_type(job.output(late), list[float])
