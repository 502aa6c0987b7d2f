"""Where a partition of Kafka is read from: the committed offset, or `start`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from streamkit.dataflow.contracts import Positions
from streamkit.errors import ConfigError
from streamkit.record import Offset, Origin

Removed = Literal["fail", "skip"]

# The key of the ids of cluster and topic in the committed positions; the other keys are partitions.
TOPIC_ID = "topic"
_START_OVER = "--fresh-state starts over at start=; it also removes the state of the job"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a partition has: its first offset, its end, and its offset at the time of `start`."""

    first: int
    end: int
    at_time: int | None = None

    def start(self, start: Offset) -> int:
        """Return where the first run starts."""
        if start.origin is Origin.TIME:
            assert self.at_time is not None, "it was looked up"
            return self.end if self.at_time < 0 else self.at_time
        return min(max(start.resolve(self.first, self.end), self.first), self.end)


@dataclass(frozen=True, slots=True)
class Starts:
    """Chooses the starts of all partitions of a topic.

    Args:
        where: The topic and its servers, for errors.
        start: Where the first run starts.
        removed: What happens if the record at a committed offset was removed.
    """

    where: str
    start: Offset
    removed: Removed

    def chosen(
        self, committed: Mapping[int, int], limits: Mapping[int, Limits]
    ) -> tuple[dict[int, int], list[str]]:
        """Return the start of each partition, and messages for the user.

        Raises:
            ConfigError: A committed offset or partition does not exist.
        """
        lost = committed.keys() - limits.keys()
        if lost:
            raise ConfigError(
                f"{self.where} has no partition {min(lost)}, which the job has read",
                hint="the topic was created again; --fresh-state reads it from the start",
            )
        starts: dict[int, int] = {}
        notes: list[str] = []
        for partition, found in limits.items():
            at = committed.get(partition)
            if at is None:
                # A partition that was added after the first run is read from its beginning.
                starts[partition] = found.first if committed else found.start(self.start)
                continue
            if at < found.first and self.removed == "skip":
                notes.append(self.skipped(partition, at, found.first))
                at = found.first
            self._check(partition, at, found)
            starts[partition] = at
        return starts, notes

    def skipped(self, partition: int, at: int, first: int) -> str:
        """Return the message for offsets that were skipped."""
        return (
            f"{self.where}: the offsets {at} to {first - 1} of partition {partition} were removed "
            f"before the job has read them; continues at {first}"
        )

    def _check(self, partition: int, at: int, found: Limits) -> None:
        if found.first <= at <= found.end:
            return
        is_removed = at < found.first
        what = "was removed by retention" if is_removed else "is after the end"
        raise ConfigError(
            f"{self.where}: the committed offset {at} of partition {partition} {what}; "
            f"the log has {found.first} to {found.end}",
            hint='removed="skip" of the KafkaSource continues at the first record'
            if is_removed
            else _START_OVER,
        )


def offsets_of(committed: Positions) -> dict[int, int]:
    """Return the committed offsets by partition."""
    return {int(each): int(at) for each, at in committed.items() if each != TOPIC_ID}


def check_topic_id(where: str, committed: str, found: str) -> None:
    """Refuse a topic that was deleted and created again, as far as that is known.

    A copy of the topic in another cluster has another id, too, but maybe the same records.

    Raises:
        ConfigError: It is another topic of the same cluster.
    """
    if committed and found and committed != found and committed.split()[0] == found.split()[0]:
        raise ConfigError(
            f"{where} was deleted and created again after the job has read it", hint=_START_OVER
        )
