"""The settings of a run: those of streamkit, and the app's own."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from streamkit.errors import UsageError
from streamkit.run.graph import topics_of
from streamkit.run.options import Job
from streamkit.settings import Settings, load_settings
from streamkit.settings.resolve import resolve


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings, notes for the user, and the values of the app's own settings if it has any."""

    settings: Settings
    notes: tuple[str, ...]
    values: msgspec.Struct | None


def settings_of(app: Job, given: dict[str, str]) -> RunSettings:
    """Read and check the settings for the current folder.

    Args:
        app: The app; its graph is complete.
        given: Keys and values of ``--set``.

    Raises:
        ConfigError: A setting is not valid, or a required one is missing.
    """
    own = app.own_settings
    names = [] if own is None else [field.name for field in own.fields.walk()]
    settings = load_settings(Path.cwd(), os.environ, given, names)
    notes = (*settings.notes, *settings.check_topics(topics_of(app.topology)))
    if own is None:
        for variable in settings.own.variables:
            raise UsageError(
                f"{variable}: this app has no settings of its own",
                hint="unset it, or declare the settings with app.settings(MySettings)",
            )
        return RunSettings(settings, notes, None)
    found = resolve(app.name, own.fields, settings.own)
    return RunSettings(
        replace(settings, reports=found.reports), (*notes, *found.notes), found.values
    )
