"""The client for Fluvio clusters and the embedded broker."""

from __future__ import annotations

from streamkit.client.admin.admin import Admin
from streamkit.client.admin.objects import (
    PartitionInfo,
    ReplicaInfo,
    SmartModuleInfo,
    SpuInfo,
    TopicInfo,
)
from streamkit.client.admin.topic_options import Deduplication
from streamkit.client.admin.watch_state import Added, Changed, Listed, Removed, WatchEvent
from streamkit.client.admin.watching import Watch
from streamkit.client.backoff import RetryPolicy
from streamkit.client.client import Client
from streamkit.client.consume.consumer import Consumer
from streamkit.client.consume.fetch import Fetched, FetchedBatch
from streamkit.client.consume.offsets import StoredOffset
from streamkit.client.options import BatchReport, ConsumerMetrics, ProducerMetrics
from streamkit.client.produce.handles import (
    RecordHandle,
    RecordMetadata,
    RecordsHandle,
    RecordsMetadata,
)
from streamkit.client.produce.producer import Producer
from streamkit.client.smartmodules.smartmodule import Lookback, SmartModule
from streamkit.client.smartmodules.transforms import load_transforms, parse_transforms
from streamkit.client.tls import Tls

__all__ = [
    "Added",
    "Admin",
    "BatchReport",
    "Changed",
    "Client",
    "Consumer",
    "ConsumerMetrics",
    "Deduplication",
    "Fetched",
    "FetchedBatch",
    "Listed",
    "Lookback",
    "PartitionInfo",
    "Producer",
    "ProducerMetrics",
    "RecordHandle",
    "RecordMetadata",
    "RecordsHandle",
    "RecordsMetadata",
    "Removed",
    "ReplicaInfo",
    "RetryPolicy",
    "SmartModule",
    "SmartModuleInfo",
    "SpuInfo",
    "StoredOffset",
    "Tls",
    "TopicInfo",
    "Watch",
    "WatchEvent",
    "load_transforms",
    "parse_transforms",
]
