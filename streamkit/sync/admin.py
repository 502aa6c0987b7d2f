"""Topics and partitions, without an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from streamkit.client import PartitionInfo, StoredOffset, TopicInfo
from streamkit.sync.connection import Connection

T = TypeVar("T")


class Admin:
    """Topics and partitions. See `streamkit.client.Admin`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._admin = connection.client.admin

    def create_topic(self, name: str, partitions: int = 1, **options: Any) -> None:
        """Make a topic; options as in `streamkit.client.Admin.create_topic`."""
        self._call(lambda: self._admin.create_topic(name, partitions, **options))

    def delete_topic(self, name: str, *, force: bool = False) -> None:
        """Remove a topic and everything in it."""
        self._call(lambda: self._admin.delete_topic(name, force=force))

    def add_partitions(self, name: str, count: int = 1) -> list[PartitionInfo]:
        """Give a topic more partitions; return the new ones."""
        return self._call(lambda: self._admin.add_partitions(name, count))

    def list_topics(self, *, system: bool = False) -> list[TopicInfo]:
        """Return the topics by name."""
        return self._call(lambda: self._admin.list_topics(system=system))

    def describe_topic(self, name: str) -> TopicInfo:
        """Return one topic."""
        return self._call(lambda: self._admin.describe_topic(name))

    def list_partitions(
        self, topic: str | None = None, *, system: bool = False
    ) -> list[PartitionInfo]:
        """Return partitions by topic and number."""
        return self._call(lambda: self._admin.list_partitions(topic, system=system))

    def list_consumers(self) -> list[StoredOffset]:
        """Return every stored consumer offset."""
        return self._call(lambda: self._admin.list_consumers())

    def delete_consumer(
        self, consumer_id: str, topic: str | None = None, partition: int | None = None
    ) -> list[StoredOffset]:
        """Forget the offsets of a consumer; return what was forgotten."""
        return self._call(lambda: self._admin.delete_consumer(consumer_id, topic, partition))

    def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        return self._connection.call(_run(make))


async def _run(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
