"""Settings from options, the environment and files."""

from streamkit.settings.load import (
    KEYS,
    SettingOrigin,
    Settings,
    load_settings,
    parse_assignments,
)

__all__ = [
    "KEYS",
    "SettingOrigin",
    "Settings",
    "load_settings",
    "parse_assignments",
]
