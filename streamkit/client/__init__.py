"""The client for Fluvio clusters and the embedded broker."""

from __future__ import annotations

from streamkit.client.admin import Admin, PartitionInfo, TopicInfo
from streamkit.client.client import Client
from streamkit.client.consumer import Consumer
from streamkit.client.handles import ManyHandle, ManyMetadata, RecordHandle, RecordMetadata
from streamkit.client.offsets import StoredOffset
from streamkit.client.producer import Producer
from streamkit.client.tls import Tls

__all__ = [
    "Admin",
    "Client",
    "Consumer",
    "ManyHandle",
    "ManyMetadata",
    "PartitionInfo",
    "Producer",
    "RecordHandle",
    "RecordMetadata",
    "StoredOffset",
    "Tls",
    "TopicInfo",
]
