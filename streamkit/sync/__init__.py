"""The client without an event loop: the same names, plain calls and plain iterators.

One event loop runs in a thread of its own, started with the first client and shared by all.
Waiting never holds the interpreter: other threads go on.
"""

from __future__ import annotations

from streamkit.sync.admin import Admin
from streamkit.sync.client import Client, Consumer, Handle, HandleOfMany, Producer

__all__ = ["Admin", "Client", "Consumer", "Handle", "HandleOfMany", "Producer"]
