"""Administration through the SC: topics, partitions, SmartModules, SPUs, stored offsets."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from datetime import timedelta

import anyio

from streamkit.client import checks
from streamkit.client.admin.objects import (
    PartitionInfo,
    SmartModuleInfo,
    SpuInfo,
    TopicInfo,
    partition_info,
    smartmodule_info,
    spu_info,
    topic_info,
)
from streamkit.client.admin.topic_file import load_topic
from streamkit.client.admin.topic_options import (
    Deduplication,
    check_module_name,
    check_name,
    mirrored,
    topic_spec,
)
from streamkit.client.admin.watching import Watch
from streamkit.client.cluster import Cluster
from streamkit.client.consume.offsets import OffsetClient, StoredOffset
from streamkit.client.smartmodules.wasm import compressed_module
from streamkit.errors import (
    BrokerError,
    RequestTimedOut,
    SmartModuleNotFound,
    TopicAlreadyExists,
    TopicNotFound,
    UsageError,
)
from streamkit.protocol import specs
from streamkit.protocol.apis import CREATE, DELETE, LIST, UPDATE
from streamkit.protocol.control_plane import (
    AddMirror,
    AddPartitions,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    StatusResponse,
    UpdateRequest,
)
from streamkit.protocol.error_codes import Code
from streamkit.protocol.server_errors import as_exception
from streamkit.protocol.specs import SmartModuleSpec
from streamkit.protocol.topic_specs import AssignedReplicas, ComputedReplicas, TopicSpec

_PARTITIONS_S = 10.0


class Admin:
    """Administration of one cluster. Use it as ``client.admin``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._offsets = OffsetClient(cluster)

    # --- topics --------------------------------------------------------------------

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        replication: int = 1,
        ignore_rack: bool = False,
        assignment: Sequence[Sequence[int]] | None = None,
        mirrors: Sequence[str] | None = None,
        home_to_remote: bool = False,
        retention: float | timedelta | None = None,
        segment_size_bytes: int | None = None,
        max_partition_size_bytes: int | None = None,
        compression: str = "any",
        deduplication: Deduplication | None = None,
        system: bool = False,
        dry_run: bool = False,
        exist_ok: bool = False,
    ) -> None:
        """Create a topic; return when its partitions can be written to.

        Args:
            name: 1 to 63 characters of ``a-z 0-9 -``, without a ``-`` at the start or end.
            partitions: The number of partitions.
            replication: On how many SPUs each partition is stored.
            ignore_rack: Place replicas without regard to racks.
            assignment: The SPUs of each partition, the leader first, instead of ``partitions``
                and ``replication``.
            mirrors: Create the home of a mirror with one partition per remote cluster, instead
                of ``partitions``. The list may be empty; see `add_mirror`.
            home_to_remote: Copy the mirror from this cluster to the remote clusters.
            retention: How long closed segments are kept, in seconds or as a timedelta.
            segment_size_bytes: The size of a segment file of a partition's log.
            max_partition_size_bytes: The largest size of a partition. It must be at least the
                segment size, which is 1 GiB by default.
            compression: The required codec of batches; ``any`` lets producers choose.
            deduplication: Drop records that occurred before.
            system: Create a system topic, which lists do not show.
            dry_run: Only check the request; do not create the topic.
            exist_ok: Accept an existing topic with the same partition count. Its other options
                do not change.

        Raises:
            UsageError: A value is not valid; nothing was sent.
            TopicAlreadyExists: The name is in use. With ``exist_ok``: the existing topic has
                another partition count, and the message shows both.
            BrokerError: The server rejected the topic; the message shows the reason.
        """
        check_name(name, "topic")
        for option, given in (
            ("dry_run", dry_run),
            ("exist_ok", exist_ok),
            ("home_to_remote", home_to_remote),
        ):
            checks.flag(option, given)
        if home_to_remote and mirrors is None:
            raise UsageError("home_to_remote needs mirrors")
        mirror = None if mirrors is None else mirrored(name, mirrors, home_to_remote=home_to_remote)
        spec = topic_spec(
            partitions,
            replication=replication,
            ignore_rack=ignore_rack,
            assignment=assignment,
            mirror=mirror,
            retention=retention,
            segment_size_bytes=segment_size_bytes,
            max_partition_size_bytes=max_partition_size_bytes,
            compression=compression,
            deduplication=deduplication,
            system=system,
        )
        await self._create(name, spec, dry_run=dry_run, exist_ok=exist_ok)

    async def create_topic_from(
        self, path: str | os.PathLike[str], *, dry_run: bool = False, exist_ok: bool = False
    ) -> str:
        """Create the topic that a file describes, like Fluvio's own ``topic create --config``.

        Args:
            path: A file with YAML, TOML or JSON, according to its extension. YAML needs the
                package pyyaml, which the extra ``cli`` installs.
            dry_run: Only check the request; do not create the topic.
            exist_ok: See `create_topic`.

        Returns:
            The topic's name.

        Raises:
            UsageError: The file cannot be read, or does not describe a topic.
            ConfigError: The YAML reader is not installed.
            TopicAlreadyExists: See `create_topic`.
            BrokerError: See `create_topic`.
        """
        name, spec = load_topic(checks.path("path", path))
        for option, given in (("dry_run", dry_run), ("exist_ok", exist_ok)):
            checks.flag(option, given)
        check_name(name, "topic")
        await self._create(name, spec, dry_run=dry_run, exist_ok=exist_ok)
        return name

    async def delete_topic(self, name: str, *, force: bool = False) -> None:
        """Delete a topic and all its records.

        Raises:
            TopicNotFound: The topic does not exist.
            BrokerError: It is a system topic, and ``force`` is not set.
        """
        request = DeleteRequest(specs.TOPIC, checks.text("name", name), checks.flag("force", force))
        status = await self._cluster.admin(DELETE, request)
        if status.error.code == Code.TOPIC_NOT_FOUND:
            raise TopicNotFound(name, hint=self._cluster.metadata.did_you_mean(name))
        _check(status, name)

    async def add_partitions(self, name: str, count: int = 1) -> list[PartitionInfo]:
        """Add ``count`` partitions to a topic; return the new ones.

        From then on keys are distributed over more partitions, so old and new records of one key
        may be in different partitions.

        Raises:
            TopicNotFound: The topic does not exist.
        """
        count = checks.whole("count", count, 0, checks.U32_MAX)
        before = (await self.describe_topic(name)).partitions
        request = UpdateRequest(specs.TOPIC, name, AddPartitions(count))
        _check(await self._cluster.admin(UPDATE, request), name)
        await self._wait_for_partitions(name, before + count)
        return [each for each in await self.list_partitions(name) if each.partition >= before]

    async def add_mirror(self, name: str, remote: str, *, home_to_remote: bool = False) -> None:
        """Add a partition for another remote cluster to the home of a mirror.

        Raises:
            TopicNotFound: The topic does not exist.
            BrokerError: The remote cluster does not exist, or the topic is not the home of a
                mirror.
        """
        mirror = AddMirror(
            checks.text("remote", remote), checks.flag("home_to_remote", home_to_remote)
        )
        request = UpdateRequest(specs.TOPIC, checks.text("name", name), mirror)
        status = await self._cluster.admin(UPDATE, request)
        if status.error.code == Code.TOPIC_NOT_FOUND:
            raise TopicNotFound(name, hint=self._cluster.metadata.did_you_mean(name))
        _check(status, name)

    async def list_topics(self, *, system: bool = False) -> list[TopicInfo]:
        """Return the topics, sorted by name: user topics, or system topics."""
        request = ListRequest(specs.TOPIC, system=checks.flag("system", system))
        response = await self._cluster.admin(LIST, request)
        return sorted(map(topic_info, response.items), key=lambda topic: topic.name)

    async def describe_topic(self, name: str) -> TopicInfo:
        """Return one topic.

        Raises:
            TopicNotFound: The topic does not exist.
        """
        checks.text("name", name)
        for system in (False, True):
            request = ListRequest(specs.TOPIC, (name,), system=system)
            response = await self._cluster.admin(LIST, request)
            for item in response.items:
                if item.name == name:
                    return topic_info(item)
        raise TopicNotFound(name, hint=self._cluster.metadata.did_you_mean(name))

    def watch_topics(self) -> Watch[TopicInfo]:
        """Watch all topics, including system topics, and every change."""
        return Watch(self._cluster, specs.TOPIC, topic_info)

    # --- partitions ----------------------------------------------------------------

    async def list_partitions(
        self, topic: str | None = None, *, system: bool = False
    ) -> list[PartitionInfo]:
        """Return partitions sorted by topic and number: all, or those of one topic."""
        checks.optional(checks.text, "topic", topic)
        request = ListRequest(specs.PARTITION, system=checks.flag("system", system))
        response = await self._cluster.admin(LIST, request)
        found = sorted(
            map(partition_info, response.items), key=lambda each: (each.topic, each.partition)
        )
        return [each for each in found if topic is None or each.topic == topic]

    def watch_partitions(self) -> Watch[PartitionInfo]:
        """Watch all partitions and every change; servers report new end offsets twice a second."""
        return Watch(self._cluster, specs.PARTITION, partition_info)

    # --- SmartModules and SPUs ------------------------------------------------------

    async def create_smartmodule(
        self, name: str, wasm: bytes | str | os.PathLike[str], *, dry_run: bool = False
    ) -> None:
        """Create a SmartModule, or replace the one with the same name.

        On a stock cluster it can be used about half a second later.

        Args:
            name: 1 to 63 characters of ``a-z 0-9 -``, without a ``-`` at the start or end.
            wasm: The module, or the path of its file: wasm, or gzipped wasm. It is sent
                compressed, as servers require.
            dry_run: Only check the name and the module. Nothing is sent, because stock servers
                would store it.

        Raises:
            UsageError: The name or the module is not valid, or the file cannot be read; nothing
                was sent.
            BrokerError: The server rejected the module.
        """
        check_name(name, "SmartModule")
        checks.flag("dry_run", dry_run)
        payload = compressed_module(await _content(wasm))
        if dry_run:
            return
        request = CreateRequest(specs.SMARTMODULE, name, SmartModuleSpec(payload=payload))
        _check(await self._cluster.admin(CREATE, request), name)

    async def list_smartmodules(self, *names: str) -> list[SmartModuleInfo]:
        """Return SmartModules sorted by name: all, or only those in ``names``.

        Args:
            names: Full names; for packages ``name``, ``group/name`` or ``group/name@version``.

        Raises:
            UsageError: The part after the ``@`` is not a valid version.
        """
        for name in names:
            check_module_name(name)
        request = ListRequest(specs.SMARTMODULE, names, summary=True)
        response = await self._cluster.admin(LIST, request)
        return sorted(map(smartmodule_info, response.items), key=lambda module: module.name)

    async def delete_smartmodule(self, name: str) -> None:
        """Delete a SmartModule, by its name or by ``group/name@version``.

        Raises:
            SmartModuleNotFound: The SmartModule does not exist.
            UsageError: The part after the ``@`` is not a valid version.
        """
        check_module_name(name)
        status = await self._cluster.admin(DELETE, DeleteRequest(specs.SMARTMODULE, name))
        if status.error.code == Code.SMARTMODULE_NOT_FOUND:
            known = [module.name for module in await self.list_smartmodules()]
            raise SmartModuleNotFound(name, hint=_did_you_mean(name, known))
        _check(status, name)

    def watch_smartmodules(self) -> Watch[SmartModuleInfo]:
        """Watch all SmartModules and every change."""
        return Watch(self._cluster, specs.SMARTMODULE, smartmodule_info)

    async def list_spus(self) -> list[SpuInfo]:
        """Return the SPUs of the cluster sorted by number, including those that are offline."""
        response = await self._cluster.admin(LIST, ListRequest(specs.SPU))
        return sorted(map(spu_info, response.items), key=lambda spu: spu.id)

    # --- stored offsets -------------------------------------------------------------

    async def list_consumers(self) -> list[StoredOffset]:
        """Return all stored consumer offsets, sorted by consumer, topic and partition."""
        found = await self._offsets.stored()
        return sorted(found, key=lambda each: (each.consumer_id, each.topic, each.partition))

    async def delete_consumer(
        self, consumer_id: str, topic: str | None = None, partition: int | None = None
    ) -> list[StoredOffset]:
        """Delete stored offsets of a consumer, all or some; return the deleted ones."""
        checks.text("consumer_id", consumer_id)
        checks.optional(checks.text, "topic", topic)
        partition = checks.optional(checks.whole, "partition", partition, 0, checks.U32_MAX)
        deleted = [
            each
            for each in await self._offsets.stored(consumer_id, topic)
            if partition is None or each.partition == partition
        ]
        for each in deleted:
            await self._offsets.delete(each)
        return deleted

    async def _create(self, name: str, spec: TopicSpec, *, dry_run: bool, exist_ok: bool) -> None:
        request = CreateRequest(specs.TOPIC, name, spec, dry_run)
        try:
            status = await self._cluster.admin(CREATE, request)
        except RequestTimedOut:
            if not await self._exists(name, spec):
                raise
            return  # a stock server may respond too late although the topic was created
        if status.error.code == Code.TOPIC_NOT_PROVISIONED and await self._exists(name, spec):
            return
        if exist_ok and status.error.code == Code.TOPIC_ALREADY_EXISTS:
            await self._check_partition_count(name, spec)
        else:
            _check(status, name)
        if not dry_run and isinstance(spec.replicas, ComputedReplicas | AssignedReplicas):
            await self._wait_for_partitions(name, spec.partition_count)

    async def _check_partition_count(self, name: str, spec: TopicSpec) -> None:
        """Refuse an existing topic with another partition count.

        Raises:
            TopicAlreadyExists: The partition counts differ.
        """
        found, wanted = (await self.describe_topic(name)).partitions, spec.partition_count
        if found != wanted:
            raise TopicAlreadyExists(
                name,
                about=f" with {found} partitions, not {wanted}",
                hint="add_partitions can add the missing ones" if found < wanted else "",
            )

    async def _exists(self, name: str, spec: TopicSpec) -> bool:
        topics = await self.list_topics(system=spec.system)
        partitions = await self.list_partitions(name, system=spec.system)
        return name in [each.name for each in topics] and len(partitions) == spec.partition_count

    async def _wait_for_partitions(self, name: str, count: int) -> None:
        """Wait until this client can write to all partitions: watch updates may arrive late."""
        with anyio.move_on_after(_PARTITIONS_S):
            for number in range(count):
                while True:
                    try:
                        await self._cluster.leader(name, number)
                        break
                    except BrokerError:
                        await self._cluster.clock.sleep(0.01)


async def _content(wasm: bytes | str | os.PathLike[str]) -> bytes:
    if isinstance(wasm, bytes):
        return wasm
    path = checks.path("wasm", wasm)
    try:
        return await anyio.Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the SmartModule {path}: {error.strerror}") from error


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"existing SmartModules: {', '.join(known[:8])}" if known else "there are none yet"


def _check(status: StatusResponse, name: str) -> None:
    if status.error:
        raise as_exception(status.error, about=name, message=status.error_message or "")
