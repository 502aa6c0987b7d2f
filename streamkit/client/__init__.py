"""The client for Fluvio clusters and the embedded broker."""

from __future__ import annotations

from streamkit.client.admin import Admin
from streamkit.client.backoff import RetryPolicy
from streamkit.client.client import Client
from streamkit.client.consumer import Consumer
from streamkit.client.fetch import Fetched, FetchedBatch
from streamkit.client.handles import ManyHandle, ManyMetadata, RecordHandle, RecordMetadata
from streamkit.client.objects import (
    PartitionInfo,
    ReplicaInfo,
    SmartModuleInfo,
    SpuInfo,
    TopicInfo,
)
from streamkit.client.offsets import StoredOffset
from streamkit.client.options import BatchReport, ConsumerMetrics, ProducerMetrics
from streamkit.client.producer import Producer
from streamkit.client.smartmodules import Lookback, SmartModule
from streamkit.client.tls import Tls
from streamkit.client.topic_options import Deduplication
from streamkit.client.transforms import load_transforms, parse_transforms
from streamkit.client.watching import Added, Changed, Listed, Removed, Watch, WatchEvent

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
    "ManyHandle",
    "ManyMetadata",
    "PartitionInfo",
    "Producer",
    "ProducerMetrics",
    "RecordHandle",
    "RecordMetadata",
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
