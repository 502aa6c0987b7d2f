"""Produce requests to the leader of one partition, and the meaning of their responses."""

from __future__ import annotations

from streamkit.client.channel import PendingResponse
from streamkit.client.cluster import Cluster
from streamkit.client.options import ProducerMetrics, ProducerOptions
from streamkit.client.produce.accumulator import ReadyBatch
from streamkit.client.smartmodules.smartmodule import check_carried
from streamkit.errors import (
    BrokerError,
    NotFlushed,
    NotLeader,
    ProtocolError,
    RequestTimedOut,
    StreamKitError,
    TransportError,
)
from streamkit.limits import BATCH_BYTES_HARD_MAX
from streamkit.protocol.apis import PRODUCE
from streamkit.protocol.data_plane import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from streamkit.protocol.error_codes import Code, ErrorCode
from streamkit.protocol.server_errors import as_exception

# It is unknown whether a request with one of these codes was stored.
UNKNOWN_CODES = frozenset(
    {
        Code.REQUEST_TIMED_OUT,
        Code.STORAGE_ERROR,
        Code.PARTITION_FULL,
        Code.PARTITION_SHORT_CIRCUITED,
    }
)
# A request with one of these codes was not stored.
NOT_STORED_CODES = frozenset(
    {Code.NOT_LEADER_FOR_PARTITION, Code.TOPIC_NOT_FOUND, Code.PARTITION_NOT_LEADER}
)
# After a refusal with one of these codes the batches may be stored; after other codes they are
# not.
_DOUBTFUL_CODES = frozenset({Code.REQUEST_TIMED_OUT, Code.STORAGE_ERROR})
# Part of the version of streamkit's own broker, which stores an entry completely or not at all.
OUR_MARK = "+streamkit."


class ProduceRequests:
    """The requests of one partition. Once ``is_stopped`` is set, no more are written."""

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        partition: int,
        options: ProducerOptions,
        metrics: ProducerMetrics,
    ) -> None:
        self.name = f"{topic}-{partition}"
        self.is_stopped = False
        self._cluster = cluster
        self._topic = topic
        self._partition = partition
        self._options = options
        self._metrics = metrics
        self._undoes_writes = False

    async def post(
        self, batches: list[ReadyBatch], *, entry_each: bool = False
    ) -> PendingResponse[ProduceResponse]:
        """Write one request to the leader's connection; the caller awaits its response.

        The batches form one entry, or one entry each.

        Raises:
            TransportError: ``sent`` shows whether the server may have processed the request.
            NotFlushed: The producer was stopped.
            StreamKitError: The partition has no leader.
        """
        address = await self._cluster.leader(self._topic, self._partition)
        channel = await self._cluster.spu(address)
        if self.is_stopped:
            raise NotFlushed(f"{self.name}: the producer was closed before the records were resent")
        chain = self._options.smartmodules
        if chain:
            check_carried(chain, "Produce", channel.version_of(PRODUCE), address)
        self._undoes_writes = OUR_MARK in channel.platform_version
        entries = [batch.data for batch in batches]
        if not entry_each:
            entries = [b"".join(entries)]
        data = tuple(PartitionProduceData(self._partition, entry) for entry in entries)
        request = ProduceRequest(
            acks=self._options.acks,
            timeout_ms=self._options.timeout_ms,
            topics=(TopicProduceData(self._topic, data),),
            smartmodules=chain,
        )
        self._metrics.requests += 1
        mark(batches, may_be_stored=True)  # until a response says otherwise
        return await channel.post(PRODUCE, request)

    def read(self, response: ProduceResponse, entries: int) -> list[tuple[ErrorCode, int]]:
        """Return the code and the first offset of each entry.

        Raises:
            ProtocolError: The response does not match the request.
        """
        entry_responses = [
            entry_response for each in response.topics for entry_response in each.partitions
        ]
        if len(entry_responses) != entries:
            raise ProtocolError(
                f"{len(entry_responses)} responses for {entries} entries of {self.name}"
            )
        names = {
            f"{each.topic}-{part.partition}" for each in response.topics for part in each.partitions
        }
        if names != {self.name}:
            raise ProtocolError(
                f"the request was for {self.name}, the response for {sorted(names)}"
            )
        return [
            (entry_response.error, entry_response.base_offset) for entry_response in entry_responses
        ]

    def is_outcome_unknown(self, code: ErrorCode, batches: list[ReadyBatch]) -> bool:
        """Whether batches may be stored although the response is a refusal.

        A stock server with a full disk keeps the batches that it wrote before the failing one.
        """
        if code.code == Code.PARTITION_FULL:
            return len(batches) > 1 and not self._undoes_writes
        return code.code in _DOUBTFUL_CODES

    def final_error(self, problem: StreamKitError, may_be_stored: bool) -> StreamKitError:
        """Return the error of the last attempt; an earlier attempt may have stored the records."""
        if may_be_stored and not (isinstance(problem, TransportError) and problem.sent):
            return RequestTimedOut(
                f"{self.name}: it is not known whether the records are stored: {problem}",
                sent=True,
            )
        if type(problem) is not BrokerError and type(problem) is not NotLeader:
            return problem
        return type(problem)(
            problem.code,
            f"{problem}; the server rejected every attempt, so the records are not stored",
            hint=problem.hint,
            retryable=problem.retryable,
        )

    def refused(self, code: ErrorCode, batch: ReadyBatch) -> BrokerError:
        """Return the error of a batch that would be refused again, without a retry."""
        if code.code != Code.MESSAGE_TOO_LARGE:
            return as_exception(code, about=self.name)
        segment = self._cluster.metadata.segment_bytes(self._topic)
        most = f"{min(segment or BATCH_BYTES_HARD_MAX, BATCH_BYTES_HARD_MAX):,} bytes"
        return BrokerError(
            code.code,
            f"{self.name}: the batch is too large for the server: {batch.record_count} records, "
            f"{len(batch.data):,} bytes, {batch.plain_bytes:,} before compression; the limit is "
            f"{most}{', the segment size of the topic' if segment else ''}",
            hint="make the record smaller, or lower batch_size",
        )


def mark(batches: list[ReadyBatch], *, may_be_stored: bool) -> None:
    """Set whether a server may have stored batches without confirming it."""
    for batch in batches:
        batch.may_be_stored = may_be_stored
