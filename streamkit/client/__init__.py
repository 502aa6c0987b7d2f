"""The client for Fluvio clusters and the embedded broker."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Imported at first use, so that a job without topics does not load the client.
_HOME = {
    "Added": "streamkit.client.admin.watch_state",
    "Admin": "streamkit.client.admin.admin",
    "BatchReport": "streamkit.client.options",
    "Changed": "streamkit.client.admin.watch_state",
    "Client": "streamkit.client.client",
    "Consumer": "streamkit.client.consume.consumer",
    "ConsumerMetrics": "streamkit.client.options",
    "Deduplication": "streamkit.client.admin.topic_options",
    "Fetched": "streamkit.client.consume.fetch",
    "FetchedBatch": "streamkit.client.consume.fetch",
    "Listed": "streamkit.client.admin.watch_state",
    "Lookback": "streamkit.client.smartmodules.smartmodule",
    "PartitionInfo": "streamkit.client.admin.objects",
    "Producer": "streamkit.client.produce.producer",
    "ProducerMetrics": "streamkit.client.options",
    "RecordHandle": "streamkit.client.produce.handles",
    "RecordMetadata": "streamkit.client.produce.handles",
    "RecordsHandle": "streamkit.client.produce.handles",
    "RecordsMetadata": "streamkit.client.produce.handles",
    "Removed": "streamkit.client.admin.watch_state",
    "ReplicaInfo": "streamkit.client.admin.objects",
    "RetryPolicy": "streamkit.client.backoff",
    "SmartModule": "streamkit.client.smartmodules.smartmodule",
    "SmartModuleInfo": "streamkit.client.admin.objects",
    "SpuInfo": "streamkit.client.admin.objects",
    "StoredOffset": "streamkit.client.consume.offsets",
    "Tls": "streamkit.client.tls",
    "TopicInfo": "streamkit.client.admin.objects",
    "Watch": "streamkit.client.admin.watching",
    "WatchEvent": "streamkit.client.admin.watch_state",
    "load_transforms": "streamkit.client.smartmodules.transforms",
    "parse_transforms": "streamkit.client.smartmodules.transforms",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'streamkit.client' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
