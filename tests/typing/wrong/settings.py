"""Wrong uses of an app's own settings."""

from __future__ import annotations

import msgspec

from streamkit import App, Secret

from ..rows import Flight


class LateSettings(msgspec.Struct):
    password: Secret
    minutes: float = 15.0


class Plain:
    minutes: float = 15.0


app = App("settings")
settings = app.settings(LateSettings)
app.settings(Plain)  # error: Plain
app.settings(LateSettings(Secret("x")))  # error: LateSettings
LateSettings("x")  # error: Secret


@app.stage(app.stream("flights", Flight))
def late(flight: Flight) -> str:
    _minutes = settings.minutes  # error: minutes
    _seconds = settings.get().seconds  # error: seconds
    return settings.get().minutes  # error: str


def connect(password: str) -> None: ...


connect(settings.get().password)  # error: Secret
app.test(settings={"minutes": 5.0})  # error: Struct
