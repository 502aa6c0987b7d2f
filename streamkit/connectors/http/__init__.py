"""HTTP as a source and a sink: polling, webhooks, server-sent events, and posts."""

from __future__ import annotations

from streamkit.connectors.http.event_source import ServerSentEvents
from streamkit.connectors.http.paging import Cursor
from streamkit.connectors.http.poll import HttpPoll
from streamkit.connectors.http.post import HttpSink
from streamkit.connectors.http.webhook import Webhook

__all__ = ["Cursor", "HttpPoll", "HttpSink", "ServerSentEvents", "Webhook"]
