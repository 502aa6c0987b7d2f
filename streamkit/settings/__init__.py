"""Settings from options, the environment and files: those of streamkit, and an app's own."""

from streamkit.settings.app_settings import AppSettings
from streamkit.settings.load import (
    KEYS,
    OwnSources,
    SettingOrigin,
    Settings,
    load_settings,
    parse_assignments,
)
from streamkit.settings.secret import Secret

__all__ = [
    "KEYS",
    "AppSettings",
    "OwnSources",
    "Secret",
    "SettingOrigin",
    "Settings",
    "load_settings",
    "parse_assignments",
]
