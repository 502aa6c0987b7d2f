"""Settings from options, the environment and files."""

from streamkit.settings.load import (
    KEYS,
    SettingOrigin,
    Settings,
    load_settings,
    parse_assignments,
)
from streamkit.settings.secret import Secret

__all__ = [
    "KEYS",
    "Secret",
    "SettingOrigin",
    "Settings",
    "load_settings",
    "parse_assignments",
]
