"""Asks for what only the administration interface of Kafka knows: ids and options of a topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streamkit.connectors.kafka.client import (
    LOOKUP_S,
    Config,
    Watch,
    client_config,
    library,
    not_valid,
    partitions_now,
)
from streamkit.connectors.kafka.limits import TopicOptions

_ANSWER_S: Final = 2.0
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # all bits are 0


class Administration:
    """A client for facts about one topic. Its calls block; use it in one thread.

    Every fact may be unknown: older brokers have no ids of topics, some servers have no
    administration interface, and the user may not be allowed to see an option.
    """

    def __init__(self, servers: str, topic: str, config: Config, watch: Watch) -> None:
        self._where = f"Kafka topic {topic} at {servers}"
        self._topic = topic
        plain = client_config(servers, config, watch)
        # Otherwise a question about a topic creates it.
        self._config = {"allow.auto.create.topics": False, **plain}
        self._watch = watch
        self._client: Any = None

    def partitions(self) -> list[int] | None:
        """Return the partitions of the topic; None if no broker has answered in a second.

        Raises:
            ConfigError: The topic does not exist, may not be used, or an option is not valid.
        """
        return partitions_now(self._opened(), self._topic)

    def topic_id(self, consumer: Any) -> str:
        """Return the ids of the cluster and of the topic; empty if they are not known.

        Args:
            consumer: A client that is connected already.
        """
        topics = library().TopicCollection([self._topic])
        cluster, found = self._asked(
            consumer, lambda client: client.describe_topics(topics, request_timeout=_ANSWER_S)
        )
        if not cluster or found is None or str(found.topic_id) == _NO_ID:
            return ""
        return f"{cluster} {found.topic_id}"

    def options(self) -> TopicOptions:
        """Return the options of the topic that limit records, as far as they are known."""
        kind = _module().ConfigResource
        topic = kind(kind.Type.TOPIC, self._topic)
        _, found = self._asked(
            self._opened(),
            lambda client: client.describe_configs([topic], request_timeout=_ANSWER_S),
        )
        return TopicOptions.of({each.name: each.value for each in (found or {}).values()})

    def close(self) -> None:
        """End the client."""
        self._client = None  # the library ends its threads and connections

    def _asked(self, connected: Any, ask: Callable[[Any], dict[Any, Any]]) -> tuple[str, Any]:
        """Return the id of the cluster and the answer; None if there is no answer."""
        kafka = library()
        try:
            cluster = connected.list_topics(self._topic, timeout=LOOKUP_S)
            if cluster.controller_id not in cluster.brokers:
                return "", None  # without a controller, the library would wait for one
            (future,) = ask(self._opened()).values()
            return cluster.cluster_id or "", future.result()
        except kafka.KafkaException:
            return "", None  # the other requests of the job fail with the reason, if it matters

    def _opened(self) -> Any:
        if self._client is None:
            try:
                self._client = _module().AdminClient(self._config)
            except library().KafkaException as error:
                raise not_valid(self._where, self._watch, error) from None
        self._client.poll(0)  # for the callbacks
        return self._client


def _module() -> Any:
    library()
    from confluent_kafka import admin

    return admin
