"""What `streamkit connectors` shows about Kafka, and the topics of `streamkit copy`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.connectors.kafka.client import is_secret
from streamkit.connectors.registry import ConnectorFacts
from streamkit.errors import UsageError
from streamkit.record import Offset
from streamkit.settings.secret import Secret


@dataclass(frozen=True, slots=True)
class _Address:
    servers: str
    topic: str
    options: dict[str, str]
    config: dict[str, Any]


def source_at(end: str) -> KafkaSource:
    """Return the source for an end such as ``kafka://host:9092,other:9092/orders?start=end``.

    ``start`` may also be a time with a zone, such as ``2026-07-01T12:00:00Z``.

    Raises:
        UsageError: The URL is not valid.
    """
    found = _parsed(end, ("start", "tombstones", "removed"))
    options: dict[str, Any] = dict(found.options)
    if "start" in options:
        options["start"] = _start(options["start"])
    return KafkaSource(found.servers, found.topic, config=found.config, **options)


def _start(text: str) -> Offset | str:
    text = text.replace(" ", "+")  # a "+" in a URL means a space
    if text.isdecimal():
        return text
    try:
        return Offset.at_time(datetime.fromisoformat(text))
    except ValueError:  # it is not a time; the source checks it
        return text


def sink_at(end: str) -> KafkaSink:
    """Return the sink for an end such as ``kafka://host:9092/orders``.

    Raises:
        UsageError: The URL is not valid.
    """
    found = _parsed(end, ("tombstones",))
    tombstones = found.options.get("tombstones", "false")
    if tombstones not in ("true", "false"):
        raise UsageError(f"tombstones={tombstones} is not valid", hint="use true or false")
    return KafkaSink(
        found.servers, found.topic, tombstones=tombstones == "true", config=found.config
    )


def _parsed(end: str, names: tuple[str, ...]) -> _Address:
    parts = urlsplit(end)
    login, at, servers = parts.netloc.rpartition("@")
    topic = unquote(parts.path.removeprefix("/"))
    if not servers or not topic or "/" in topic:
        raise UsageError(
            "the URL of a Kafka topic needs servers and a topic",
            hint="for example kafka://host:9092/orders",
        )
    config: dict[str, Any] = {}
    if at:
        user, _, password = login.partition(":")
        config = {
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "PLAIN",
            "sasl.username": unquote(user),
            "sasl.password": Secret(unquote(password)),
        }
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in names:
            options[name] = value
        elif is_secret(name):
            raise UsageError(
                f"the URL of a Kafka topic may not have {name!r}, which other users would see",
                hint="give user and password as kafka://user:password@host:9092/topic",
            )
        else:
            config[name] = value
    return _Address(servers, topic, options, config)


KAFKA = ConnectorFacts(
    "kafka",
    "Reads and writes topics of Kafka.",
    source=KafkaSource,
    sink=KafkaSink,
    extra="kafka",
    guarantee="at least once",
    example='app.stream(KafkaSource("host:9092", "orders"), Order)',
    schemes=("kafka",),
    source_of=source_at,
    sink_of=sink_at,
)
