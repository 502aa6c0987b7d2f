"""What producers and consumers are told, and what they tell of themselves. Pure."""

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
    """What became of one batch, as a producer's ``on_batch`` is told.

    ``base_offset`` is that of its first record, -1 where it is not stored; then ``error`` says
    why. ``wire_bytes`` is its size as sent, header included. ``queued_s`` is how long its
    first record waited to be sent, ``acknowledged_s`` how long until the answer was here.
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
    """What a producer has done since it was made.

    ``records``, ``batches`` and ``wire_bytes`` (headers included) count what is stored,
    ``failed_records`` what is not, or not known to be. ``requests`` counts every one written,
    ``retries`` those that were not the first try.
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
    """What to read and how. ``start_offsets`` gives the first offset of single partitions."""

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
    """What a consumer has done since it was made.

    ``wire_bytes`` are those of batches as they came, compressed or not. ``retries`` counts
    everything that was tried again, ``reopened`` the streams among it, ``cut`` the responses
    that a server ended inside a batch, ``refetched`` batches read again for their checksum.
    """

    records: int = 0
    wire_bytes: int = 0
    responses: int = 0
    retries: int = 0
    reopened: int = 0
    cut: int = 0
    refetched: int = 0
    evicted: int = 0
