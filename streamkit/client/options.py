"""The options of producers and consumers, and their metrics. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from streamkit.client.backoff import DEFAULT_POLICY, OnRetry, RetryPolicy
from streamkit.limits import BATCH_BYTES_DEFAULT, FETCH_BYTES_DEFAULT, REQUEST_BYTES_DEFAULT
from streamkit.protocol.compression import Codec
from streamkit.protocol.data_plane import ACKS_LEADER, READ_UNCOMMITTED
from streamkit.protocol.smartmodules import SmartModuleInvocation
from streamkit.record import Offset

Partitioner = Callable[[Sequence[bytes | None], int], Sequence[int]]
Delivery = Literal["at-least-once", "at-most-once"]
OnEvicted = Literal["fail", "earliest", "latest"]
OffsetStrategy = Literal["none", "manual", "auto"]
BEGINNING: Final = Offset.beginning()


@dataclass(frozen=True, slots=True)
class BatchReport:
    """The outcome of one batch, as passed to a producer's ``on_batch``.

    ``base_offset`` is the offset of the first record, or -1 if the batch is not stored; then
    ``error`` gives the reason. ``wire_bytes`` is the size as sent, including the header.
    ``queued_s`` is how long the first record waited to be sent, ``acknowledged_s`` how long the
    response took.
    """

    topic: str
    partition: int
    base_offset: int
    record_count: int
    wire_bytes: int
    queued_s: float
    acknowledged_s: float
    error: Exception | None


@dataclass(slots=True)
class ProducerMetrics:
    """Counters of a producer since it was created.

    ``records``, ``batches`` and ``wire_bytes`` (headers included) count what is stored.
    ``failed_records`` counts records that are not stored, or not known to be stored.
    ``requests`` counts all requests sent, ``retries`` those that were not the first attempt.
    """

    records: int = 0
    batches: int = 0
    wire_bytes: int = 0
    failed_records: int = 0
    requests: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """How a producer batches and sends; durations in seconds."""

    batch_size_bytes: int = BATCH_BYTES_DEFAULT
    max_request_size_bytes: int = REQUEST_BYTES_DEFAULT
    linger_s: float = 0.1
    compression: Codec | None = None
    acks: int = ACKS_LEADER
    timeout_ms: int = 1_500
    queue_bytes_max: int = 8 << 20
    queue_batches_max: int | None = None
    delivery: Delivery = "at-least-once"
    delivery_timeout_s: float | None = 300.0
    close_timeout_s: float | None = 30.0
    retry: RetryPolicy = DEFAULT_POLICY
    partitioner: Partitioner | None = None
    partition: int | None = None
    smartmodules: tuple[SmartModuleInvocation, ...] = ()
    on_retry: OnRetry | None = None
    on_batch: Callable[[BatchReport], None] | None = None


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """What to read and how. ``start_offsets`` has the first offset of single partitions."""

    start: Offset = BEGINNING
    partitions: tuple[int, ...] | None = None
    start_offsets: dict[int, int] | None = None
    until_end: bool = False
    isolation: int = READ_UNCOMMITTED
    max_bytes: int = FETCH_BYTES_DEFAULT
    prefetch_bytes: int = 4 << 20
    consumer_id: str | None = None
    offset_strategy: OffsetStrategy = "none"
    resumes: bool = True
    on_evicted: OnEvicted = "fail"
    smartmodules: tuple[SmartModuleInvocation, ...] = ()
    open_timeout_s: float | None = None
    on_retry: OnRetry | None = None


@dataclass(slots=True)
class ConsumerMetrics:
    """Counters of a consumer since it was created.

    ``wire_bytes`` is the size of batches as received, compressed or not. ``retries`` counts all
    retries, ``reopened`` the streams that were reopened, ``cut`` the responses that a server
    ended inside a batch, ``refetched`` the batches read again because of a wrong checksum.
    """

    records: int = 0
    wire_bytes: int = 0
    responses: int = 0
    retries: int = 0
    reopened: int = 0
    cut: int = 0
    refetched: int = 0
    evicted: int = 0
