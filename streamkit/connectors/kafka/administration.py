"""Asks for what only the administration interface of Kafka knows: ids and options of a topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streamkit.connectors.kafka.client import LOOKUP_S, Config, Watch, client_config, library

_ANSWER_S: Final = 2.0
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # all bits are 0


class Administration:
    """A client for facts about one topic. Its calls block; use it in one thread.

    Every fact may be unknown: older brokers have no ids of topics, some servers have no
    administration interface, and the user may not be allowed to see an option.
    """

    def __init__(self, servers: str, topic: str, config: Config, watch: Watch) -> None:
        self._topic = topic
        self._config = client_config(servers, config, watch)
        self._client: Any = None

    def topic_id(self) -> str:
        """Return the ids of the cluster and of the topic; empty if they are not known."""
        topics = library().TopicCollection([self._topic])
        cluster, found = self._asked(
            lambda client: client.describe_topics(topics, request_timeout=_ANSWER_S)
        )
        if not cluster or found is None or str(found.topic_id) == _NO_ID:
            return ""
        return f"{cluster} {found.topic_id}"

    def batch_bytes_max(self) -> int | None:
        """Return how many bytes a batch of the topic may have; None if that is not known."""
        kind = _module().ConfigResource
        topic = kind(kind.Type.TOPIC, self._topic)
        _, found = self._asked(
            lambda client: client.describe_configs([topic], request_timeout=_ANSWER_S)
        )
        option = None if found is None else found.get("max.message.bytes")
        return None if option is None or not option.value else int(option.value)

    def close(self) -> None:
        """End the client."""
        self._client = None  # the library ends its threads and connections

    def _asked(self, ask: Callable[[Any], dict[Any, Any]]) -> tuple[str, Any]:
        """Return the id of the cluster and the answer; None if there is no answer."""
        kafka = library()
        if self._client is None:
            self._client = _module().AdminClient(self._config)
        self._client.poll(0)  # for the callbacks
        try:
            cluster = self._client.list_topics(self._topic, timeout=LOOKUP_S)
            if cluster.controller_id not in cluster.brokers:
                return "", None  # without a controller, the library would wait for one
            (future,) = ask(self._client).values()
            return cluster.cluster_id or "", future.result()
        except kafka.KafkaException:
            return "", None  # the other requests of the job fail with the reason, if it matters


def _module() -> Any:
    from confluent_kafka import admin

    return admin
