"""Administration without an event loop."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from streamkit.client import (
    PartitionInfo,
    SmartModuleInfo,
    SpuInfo,
    StoredOffset,
    TopicInfo,
)
from streamkit.client.admin.admin import Admin as AsyncAdmin
from streamkit.sync.client_runner import ClientRunner
from streamkit.sync.signatures import parameters_of
from streamkit.sync.watch import Watch

T = TypeVar("T")


class Admin:
    """Administration of one cluster; for arguments and errors see `streamkit.client.Admin`."""

    def __init__(self, runner: ClientRunner) -> None:
        self._runner = runner
        self._admin = runner.client.admin

    # --- topics ----------------------------------------------------------------------------

    @parameters_of(AsyncAdmin.create_topic)
    def create_topic(self, *args: Any, **options: Any) -> None:
        """Create a topic; return when its partitions can be written to."""
        self._call(self._admin.create_topic(*args, **options))

    def create_topic_from(
        self, path: str | os.PathLike[str], *, dry_run: bool = False, exist_ok: bool = False
    ) -> str:
        """Create the topic that a file describes; return its name."""
        return self._call(self._admin.create_topic_from(path, dry_run=dry_run, exist_ok=exist_ok))

    def delete_topic(self, name: str, *, force: bool = False) -> None:
        """Delete a topic and all its records."""
        self._call(self._admin.delete_topic(name, force=force))

    def add_partitions(self, name: str, count: int = 1) -> list[PartitionInfo]:
        """Add partitions to a topic; return the new ones."""
        return self._call(self._admin.add_partitions(name, count))

    def add_mirror(self, name: str, remote: str, *, home_to_remote: bool = False) -> None:
        """Add a partition for another remote cluster to the home of a mirror."""
        self._call(self._admin.add_mirror(name, remote, home_to_remote=home_to_remote))

    def list_topics(self, *, system: bool = False) -> list[TopicInfo]:
        """Return the topics, sorted by name."""
        return self._call(self._admin.list_topics(system=system))

    def describe_topic(self, name: str) -> TopicInfo:
        """Return one topic."""
        return self._call(self._admin.describe_topic(name))

    def watch_topics(self) -> Watch[TopicInfo]:
        """Watch all topics, including system topics, and every change."""
        return Watch(self._runner, self._admin.watch_topics())

    # --- partitions ------------------------------------------------------------------------

    def list_partitions(
        self, topic: str | None = None, *, system: bool = False
    ) -> list[PartitionInfo]:
        """Return partitions sorted by topic and number."""
        return self._call(self._admin.list_partitions(topic, system=system))

    def watch_partitions(self) -> Watch[PartitionInfo]:
        """Watch all partitions and every change."""
        return Watch(self._runner, self._admin.watch_partitions())

    # --- SmartModules and SPUs ---------------------------------------------------------------

    def create_smartmodule(
        self, name: str, wasm: bytes | str | os.PathLike[str], *, dry_run: bool = False
    ) -> None:
        """Create a SmartModule, or replace the one with the same name."""
        self._call(self._admin.create_smartmodule(name, wasm, dry_run=dry_run))

    def list_smartmodules(self, *names: str) -> list[SmartModuleInfo]:
        """Return SmartModules sorted by name: all, or only those in ``names``."""
        return self._call(self._admin.list_smartmodules(*names))

    def delete_smartmodule(self, name: str) -> None:
        """Delete a SmartModule."""
        self._call(self._admin.delete_smartmodule(name))

    def watch_smartmodules(self) -> Watch[SmartModuleInfo]:
        """Watch all SmartModules and every change."""
        return Watch(self._runner, self._admin.watch_smartmodules())

    def list_spus(self) -> list[SpuInfo]:
        """Return the SPUs of the cluster, sorted by number."""
        return self._call(self._admin.list_spus())

    # --- stored offsets ----------------------------------------------------------------------

    def list_consumers(self) -> list[StoredOffset]:
        """Return all stored consumer offsets."""
        return self._call(self._admin.list_consumers())

    def delete_consumer(
        self, consumer_id: str, topic: str | None = None, partition: int | None = None
    ) -> list[StoredOffset]:
        """Delete stored offsets of a consumer; return the deleted ones."""
        return self._call(self._admin.delete_consumer(consumer_id, topic, partition))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.call(work)
