"""The partitions of a Kafka topic, their limits, and whether it is still the same topic."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from streamkit.connectors.kafka.administration import Administration
from streamkit.connectors.kafka.client import is_away, library, partitions_now
from streamkit.connectors.kafka.starts import Limits, check_topic_id
from streamkit.errors import ConfigError
from streamkit.record import Offset, Origin

_QUERY_S: Final = 5.0
_LOOK_S: Final = 30.0
# A broker that has just started may not know the topic for a moment.
_LOOK_AGAIN_S: Final = 3.0
_MISSING_MAX: Final = 3


class TopicFacts:
    """Facts about one topic. The calls block; use it in the thread of the consumer.

    Args:
        where: The topic and its servers, for errors.
        now_s: The monotonic time of the first look.

    Attributes:
        topic_id: The ids of the cluster and the topic; empty if they are not known.
    """

    def __init__(
        self, consumer: Any, administration: Administration, where: str, topic: str, now_s: float
    ) -> None:
        self._consumer = consumer
        self._administration = administration
        self._where = where
        self._topic = topic
        self._due_s = now_s + _LOOK_S
        self._missing = 0
        self.topic_id = ""

    def all_limits(self, start: Offset) -> dict[int, Limits] | None:
        """Return the limits of all partitions; None if no broker has answered.

        Raises:
            ConfigError: The topic does not exist, or may not be read.
        """
        found = partitions_now(self._consumer, self._topic)
        if found is None:
            return None
        times = self._offsets_at(start.count, found) if start.origin is Origin.TIME else {}
        if times is None:
            return None
        limits: dict[int, Limits] = {}
        for each in found:
            first_and_end = self.limits(each)
            if first_and_end is None:
                return None
            limits[each] = Limits(*first_and_end, times.get(each))
        return limits

    def limits(self, partition: int) -> tuple[int, int] | None:
        """Return the first offset and the end of a partition; None if no broker has answered."""
        kafka = library()
        try:
            found: tuple[int, int] | None = self._consumer.get_watermark_offsets(
                kafka.TopicPartition(self._topic, partition), timeout=_QUERY_S
            )
        except kafka.KafkaException as error:
            if is_away(error.args[0]):
                return None
            raise
        return found

    def check_id(self, committed: str) -> None:
        """Learn the id of the topic; refuse it if it is not the committed one.

        Raises:
            ConfigError: The topic was deleted and created again.
        """
        self.topic_id = self._administration.topic_id(self._consumer)
        check_topic_id(self._where, committed, self.topic_id)

    def new_partitions(self, known: Collection[int], now_s: float) -> list[int]:
        """Return partitions that are not known, at most every 30 seconds.

        Raises:
            ConfigError: The topic or a partition is missing for some time, or was created again.
        """
        if now_s < self._due_s:
            return []
        self._due_s = now_s + _LOOK_S
        try:
            found = partitions_now(self._consumer, self._topic)
            if found is None:
                return []
            self._refuse_lost(known, found)
        except ConfigError:
            self._missing += 1
            if self._missing == _MISSING_MAX:
                raise
            self._due_s = now_s + _LOOK_AGAIN_S
            return []
        self._missing = 0
        topic_id = self._administration.topic_id(self._consumer)
        check_topic_id(self._where, self.topic_id, topic_id)
        self.topic_id = self.topic_id or topic_id
        return [each for each in found if each not in known]

    def _refuse_lost(self, known: Iterable[int], found: Collection[int]) -> None:
        lost = [each for each in known if each not in found]
        if lost:
            raise ConfigError(f"{self._where} has no partition {min(lost)} any more")

    def _offsets_at(self, time_ms: int, partitions: Iterable[int]) -> dict[int, int] | None:
        """Return the first offset of each partition from a time on; -1 if there is none."""
        kafka = library()
        wanted = [kafka.TopicPartition(self._topic, each, time_ms) for each in partitions]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=_QUERY_S)
        except kafka.KafkaException as error:
            if is_away(error.args[0]):
                return None
            raise
        for each in found:
            if each.error is not None:
                if is_away(each.error):
                    return None
                raise kafka.KafkaException(each.error)
        return {each.partition: each.offset for each in found}
