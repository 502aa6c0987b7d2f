"""Writes each stamped batch once, and returns its outcome.

A *lane* is the sequence of batches from one writer to one partition, identified by the stamp of its
batches. The owner of the lane decides what to do with an outcome; this module never retries. For
the reasons see the guarantees page, "Exactly once into Fluvio".

| outcome of an entry | when |
|---|---|
| stored | the response confirms it and has the offset |
| not stored | certainly: codes 6, 2001 and 3001, no leader, or nothing was written |
| refused | every other code: the same bytes would be refused again |
| unknown | no response, or codes 7, 56, 72 and 73 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import anyio

from streamkit.client.channel import Channel
from streamkit.client.cluster import Cluster
from streamkit.client.produce.produce_requests import NOT_STORED_CODES, OUR_MARK, UNKNOWN_CODES
from streamkit.errors import (
    LocalProtocolError,
    ProtocolError,
    StreamKitError,
    TransportError,
)
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.batch import with_epoch
from streamkit.protocol.data_plane import (
    ACKS_ALL,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from streamkit.protocol.server_errors import as_exception

# A request of a dead process must not arrive after the fence of its successor.
_USER_TIMEOUT_MS = 10_000


class LaneStatus(Enum):
    """The outcome of a `LaneEntry`."""

    STORED = "stored"
    NOT_STORED = "not stored"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LaneEntry:
    """Batches of one lane, in order. They are sent in one entry and are not merged or split.

    Each batch already has its lane's producer id and sequence number. The epoch is written when
    the batch is sent, so a batch stays valid when the epoch changes.
    """

    topic: str
    partition: int
    epoch: int
    batches: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class LaneOutcome:
    """The outcome of an entry.

    ``base_offset`` is that of its first batch, or -1 if it is not stored; then ``error`` has the
    reason.
    """

    outcome: LaneStatus
    base_offset: int = -1
    error: StreamKitError | None = None


class LaneProducer:
    """Writes entries of many lanes, one request at a time on each of its own connections.

    Args:
        cluster: Finds the leaders of partitions; its shared connections are not used.
        timeout_ms: How long a server may wait until all replicas have a batch.
    """

    def __init__(self, cluster: Cluster, *, timeout_ms: int = 30_000) -> None:
        self._cluster = cluster
        self._timeout_ms = timeout_ms
        self._channels: dict[str, Channel] = {}
        self._locks: dict[str, anyio.Lock] = {}

    async def send(self, entries: Sequence[LaneEntry]) -> list[LaneOutcome]:
        """Write entries and wait for their outcomes, which are returned in the same order.

        Entries of one partition are sent one after the other. Errors of the network or a broker
        are returned as outcomes, not raised. On cancellation the connections in use are closed,
        and the outcomes of entries in flight are unknown.

        Raises:
            LocalProtocolError: An entry is larger than the limit of a request.
        """
        outcomes: list[LaneOutcome | None] = [None] * len(entries)
        by_address: dict[str, list[int]] = {}
        for row, entry in enumerate(entries):
            try:
                address = await self._cluster.leader(entry.topic, entry.partition)
            except StreamKitError as error:
                outcomes[row] = LaneOutcome(LaneStatus.NOT_STORED, error=error)
            else:
                by_address.setdefault(address, []).append(row)

        async def send_to(address: str, rows: list[int]) -> None:
            for group in _request_groups(entries, rows):
                group.sort(key=lambda row: entries[row].topic)  # the request groups them by topic
                found = await self._send_request(address, [entries[row] for row in group])
                for row, outcome in zip(group, found, strict=True):
                    outcomes[row] = outcome

        async with anyio.create_task_group() as tasks:
            for address, rows in by_address.items():
                tasks.start_soon(send_to, address, rows)
        assert all(outcome is not None for outcome in outcomes), "each entry has an outcome"
        return [outcome for outcome in outcomes if outcome is not None]

    async def is_streamkit(self, topic: str, partition: int) -> bool:
        """Whether the leader of a partition is streamkit's broker, as its version shows.

        Raises:
            TransportError: The server cannot be reached.
            StreamKitError: The partition has no leader.
        """
        address = await self._cluster.leader(topic, partition)
        async with self._lock(address):
            return OUR_MARK in (await self._channel(address)).platform_version

    async def disconnect(self, topic: str, partition: int) -> None:
        """Close the connection of a partition's batches, so that no more can arrive.

        Raises:
            StreamKitError: The partition has no leader.
        """
        channel = self._channels.pop(await self._cluster.leader(topic, partition), None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Close all connections; outcomes of entries in flight become unknown."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    def _lock(self, address: str) -> anyio.Lock:
        return self._locks.setdefault(address, anyio.Lock())

    async def _channel(self, address: str) -> Channel:
        channel = self._channels.get(address)
        if channel is None or not channel.is_open:
            channel = self._channels[address] = await self._cluster.connect(address)
            channel.discard_when_closed(_USER_TIMEOUT_MS)
        return channel

    async def _send_request(self, address: str, entries: list[LaneEntry]) -> list[LaneOutcome]:
        """Write one request and wait for its response; the connection has no other requests."""
        by_topic: dict[str, list[PartitionProduceData]] = {}
        for entry in entries:
            by_topic.setdefault(entry.topic, []).append(_data_of(entry))
        request = ProduceRequest(
            acks=ACKS_ALL,
            timeout_ms=self._timeout_ms,
            topics=tuple(TopicProduceData(topic, tuple(data)) for topic, data in by_topic.items()),
        )
        async with self._lock(address):
            try:
                channel = await self._channel(address)
            except StreamKitError as error:
                return [LaneOutcome(LaneStatus.NOT_STORED, error=error)] * len(entries)
            try:
                response = await channel.call(PRODUCE, request)
                entry_responses = [
                    entry_response
                    for topic in response.topics
                    for entry_response in topic.partitions
                ]
                if len(entry_responses) != len(entries):
                    raise ProtocolError(
                        f"{len(entry_responses)} responses for {len(entries)} entries"
                    )
            except LocalProtocolError:
                raise  # nothing was written, and a retry would fail in the same way
            except (TransportError, ProtocolError) as error:
                # A later response could be mistaken for that of another request.
                await channel.close()
                return [_lost(error)] * len(entries)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await channel.close()
                raise
        return [
            _outcome(entry, entry_response)
            for entry, entry_response in zip(entries, entry_responses, strict=True)
        ]


def _request_groups(entries: Sequence[LaneEntry], rows: list[int]) -> list[list[int]]:
    """Divide entries into requests with at most one entry per partition, and keep their order."""
    groups: list[list[int]] = []
    counts: dict[tuple[str, int], int] = {}
    for row in rows:
        partition = (entries[row].topic, entries[row].partition)
        number = counts.get(partition, 0)
        counts[partition] = number + 1
        if number == len(groups):
            groups.append([])
        groups[number].append(row)
    return groups


def _data_of(entry: LaneEntry) -> PartitionProduceData:
    stamped = [with_epoch(batch, entry.epoch) for batch in entry.batches]
    return PartitionProduceData(entry.partition, b"".join(stamped))


def _lost(error: StreamKitError) -> LaneOutcome:
    was_written = not isinstance(error, TransportError) or error.sent
    return LaneOutcome(LaneStatus.UNKNOWN if was_written else LaneStatus.NOT_STORED, error=error)


def _outcome(entry: LaneEntry, entry_response: PartitionProduceResponse) -> LaneOutcome:
    code = entry_response.error.code
    if not code:
        return LaneOutcome(LaneStatus.STORED, entry_response.base_offset)
    error = as_exception(entry_response.error, about=f"{entry.topic}-{entry.partition}")
    if code in NOT_STORED_CODES:
        return LaneOutcome(LaneStatus.NOT_STORED, error=error)
    return LaneOutcome(
        LaneStatus.UNKNOWN if code in UNKNOWN_CODES else LaneStatus.REFUSED, error=error
    )
