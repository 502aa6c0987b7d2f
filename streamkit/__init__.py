"""Stream processing and ETL in Python on Fluvio topics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamkit.app import App
    from streamkit.client import Client
    from streamkit.dataflow.context import Context
    from streamkit.dataflow.state_handle import State
    from streamkit.dataflow.timers import Timer
    from streamkit.record import Offset, Record, Topic
    from streamkit.settings import Secret

__version__ = "0.1.0"
__all__ = ["App", "Client", "Context", "Offset", "Record", "Secret", "State", "Timer", "Topic"]

# Imported at first use, so that `import streamkit` loads none of these modules.
_HOME = {
    "App": "streamkit.app",
    "Client": "streamkit.client",
    "Context": "streamkit.dataflow.context",
    "Offset": "streamkit.record",
    "Record": "streamkit.record",
    "Secret": "streamkit.settings",
    "State": "streamkit.dataflow.state_handle",
    "Timer": "streamkit.dataflow.timers",
    "Topic": "streamkit.record",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'streamkit' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
