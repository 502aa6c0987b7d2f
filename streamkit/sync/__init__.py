"""The client without an event loop: the same names, plain calls and plain iterators.

One event loop runs in a thread of its own, started with the first client and shared by all.
Waiting never holds the interpreter: other threads go on. Ctrl-C ends every wait at once.
"""

from __future__ import annotations

from streamkit.sync.admin import Admin
from streamkit.sync.client import Client
from streamkit.sync.consumer import Consumer
from streamkit.sync.handles import RecordHandle, RecordsHandle
from streamkit.sync.producer import Producer

__all__ = ["Admin", "Client", "Consumer", "Producer", "RecordHandle", "RecordsHandle"]
