"""The ends of a copy: topics, and what connectors make from paths and URLs."""

from __future__ import annotations

import re
from typing import Any, Final

from streamkit.connectors.files.urls import without_query
from streamkit.connectors.registry import ConnectorFacts, find_all
from streamkit.dataflow.contracts import Sink, Source
from streamkit.errors import UsageError

TOPIC: Final = "fluvio:"


def topic_of(end: str) -> str | None:
    """Return the topic of an end such as ``fluvio:orders``; None if it is another place."""
    return end.removeprefix(TOPIC) if end.startswith(TOPIC) else None


def without_password(end: str) -> str:
    """Return an end without the user, password and query of a URL, for names and errors."""
    return re.sub(r"//[^/]*@", "//", without_query(end))


def source_of(end: str) -> Source[Any]:
    """Return the source for an end that is not a topic.

    Raises:
        UsageError: No connector reads it.
    """
    facts = _connector_of(end)
    if facts.source_of is None:
        raise UsageError(
            f"{without_password(end)!r} cannot be read: the connector {facts.name!r} has no source"
        )
    return facts.source_of(end)


def sink_of(end: str) -> Sink[Any]:
    """Return the sink for an end that is not a topic.

    Raises:
        UsageError: No connector writes it.
    """
    facts = _connector_of(end)
    if facts.sink_of is None:
        raise UsageError(
            f"{without_password(end)!r} cannot be written: the connector {facts.name!r} has no sink"
        )
    return facts.sink_of(end)


def _connector_of(end: str) -> ConnectorFacts:
    """Return the connector with the scheme of an end, or else with its suffix."""
    known = [each.facts for each in find_all() if each.facts is not None]
    scheme, colon, _ = end.partition(":")
    for facts in known:
        if colon and scheme in facts.schemes:
            return facts
    for facts in known:
        if facts.suffixes and without_query(end).endswith(facts.suffixes):
            return facts
    schemes = [f"{each}:" for facts in known for each in facts.schemes]
    suffixes = [f"*{each}" for facts in known for each in facts.suffixes]
    raise UsageError(
        f"no connector reads or writes {without_password(end)!r}",
        hint=f"a topic is {TOPIC}NAME; others are {', '.join([*schemes, *suffixes])}",
    )
