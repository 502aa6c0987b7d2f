"""The client for programs without an event loop: the same names, plain calls, plain iterators.

One event loop runs in its own thread. It starts with the first client, and all clients share it.
While a call waits, other threads run. Ctrl-C ends every wait immediately.
"""

from __future__ import annotations

from streamkit.sync.admin import Admin
from streamkit.sync.client import Client
from streamkit.sync.consumer import Consumer
from streamkit.sync.handles import RecordHandle, RecordsHandle
from streamkit.sync.producer import Producer

__all__ = ["Admin", "Client", "Consumer", "Producer", "RecordHandle", "RecordsHandle"]
