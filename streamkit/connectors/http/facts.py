"""What `streamkit connectors` shows about HTTP.

These connectors have no ends of `streamkit copy`: a URL alone does not say where the records of a
page are, and what the next page is.
"""

from __future__ import annotations

from typing import Final

from streamkit.connectors.http.event_source import ServerSentEvents
from streamkit.connectors.http.poll import HttpPoll
from streamkit.connectors.http.post import HttpSink
from streamkit.connectors.http.webhook import Webhook
from streamkit.connectors.registry import ConnectorFacts

_EXTRA: Final = "http"

HTTP = ConnectorFacts(
    "http",
    "Reads JSON APIs at an interval, and sends records to HTTP services.",
    source=HttpPoll,
    sink=HttpSink,
    extra=_EXTRA,
    guarantee="at least once",
    example='app.stream(HttpPoll("https://host/orders", records="items"), Order)',
)

SERVER_SENT_EVENTS = ConnectorFacts(
    "server-sent-events",
    "Reads a stream of server-sent events.",
    source=ServerSentEvents,
    extra=_EXTRA,
    example='app.stream(ServerSentEvents("https://host/changes"), Change)',
)

WEBHOOK = ConnectorFacts(
    "webhook",
    "Receives records that HTTP clients post, and responds when they are stored.",
    source=Webhook,
    extra=_EXTRA,
    example='app.stream(Webhook("/orders", port=8080), Order)',
)
