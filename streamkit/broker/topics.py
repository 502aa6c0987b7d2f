"""Creating topics, adding partitions, deleting topics: checks, disk, journal, then the watchers.

| step of a create | state after a crash at this step |
|---|---|
| folder and files synced | a folder without an entry: removed at the next start |
| journal entry synced | the topic is complete |
| watchers notified, response sent | the topic is complete |

| step of a delete | state after a crash at this step |
|---|---|
| journal entry synced | a folder without an entry: removed at the next start |
| watchers notified, streams ended, files removed | the topic is deleted |
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from streamkit.broker.catalog import (
    CONSUMER_OFFSET_SPEC,
    CONSUMER_OFFSET_TOPIC,
    SPU_ID,
    Catalog,
    CatalogTopic,
    with_more_partitions,
)
from streamkit.broker.catalog_journal import CatalogJournal
from streamkit.broker.consumer_offsets import ConsumerOffsets
from streamkit.broker.log_writer import LogWriter
from streamkit.broker.partition_log import PartitionLog
from streamkit.broker.topic_validation import check_new_topic
from streamkit.env import Clock, random_bits
from streamkit.limits import PARTITIONS_MAX
from streamkit.protocol.control_plane import StatusResponse
from streamkit.protocol.error_codes import Code, ErrorCode, SystemPayload
from streamkit.protocol.topic_specs import MirrorReplicas, TopicSpec

logger = logging.getLogger("streamkit.broker")

# Stock clients look up a topic in a copy of the metadata that a watch updates; they fail if the
# response arrives before the delta. Source:
# docs/protocol/admin.md, "Keeping a copy of the metadata".
_DELTA_LEAD_S = 0.005
_INCARNATION_BITS = 64


class TopicService:
    """Requests for the same topic run one after another; those for other topics run in parallel."""

    def __init__(
        self,
        catalog: Catalog,
        journal: CatalogJournal,
        writer: LogWriter,
        offsets: ConsumerOffsets,
        clock: Clock,
        *,
        on_removed: Callable[[CatalogTopic], None],
    ) -> None:
        self._catalog = catalog
        self._journal = journal
        self._writer = writer
        self._offsets = offsets
        self._clock = clock
        self._on_removed = on_removed
        self._being_created: set[str] = set()

    async def ensure_offsets_topic(self) -> None:
        """Create the internal topic that clients of stored offsets require."""
        if CONSUMER_OFFSET_TOPIC not in self._catalog.topics:
            await self._create(CONSUMER_OFFSET_TOPIC, CONSUMER_OFFSET_SPEC)

    async def create(self, name: str, spec: TopicSpec, *, dry_run: bool) -> StatusResponse:
        """Create a topic durably, unless a check refuses it."""
        refusal = check_new_topic(
            name,
            spec,
            topics=[*self._catalog.topics, *self._being_created],
            partitions_used=self._catalog.partition_count(),
            spu_id=SPU_ID,
            modules=self._catalog.modules,
        )
        if refusal is not None:
            return StatusResponse(refusal.name, refusal.error, refusal.message)
        if dry_run:
            return StatusResponse(name)
        self._being_created.add(name)
        try:
            await self._create(name, spec)
        except OSError as error:
            return StatusResponse(
                name, ErrorCode(Code.TOPIC_NOT_PROVISIONED), f"error: {error.strerror}"
            )
        finally:
            self._being_created.discard(name)
        await self._clock.sleep(_DELTA_LEAD_S)
        return StatusResponse(name)

    async def add_partitions(self, name: str, count: int) -> StatusResponse:
        """Add ``count`` partitions to a topic."""
        topic = self._catalog.topics.get(name)
        if topic is None:
            return StatusResponse(name, ErrorCode(Code.TOPIC_NOT_FOUND), "not found")
        async with topic.changing:
            if self._catalog.topics.get(name) is not topic:
                return StatusResponse(name, ErrorCode(Code.TOPIC_NOT_FOUND), "not found")
            return await self._grow(topic, count)

    async def add_mirror(self, name: str) -> StatusResponse:
        """Refuse to mirror a topic: no remote cluster can be registered here."""
        if name not in self._catalog.topics:
            return StatusResponse(name, ErrorCode(Code.TOPIC_NOT_FOUND), "not found")
        return StatusResponse(name, ErrorCode(Code.MIRROR_NOT_FOUND), "not found")

    async def _grow(self, topic: CatalogTopic, count: int) -> StatusResponse:
        name = topic.name
        if topic.spec.system:
            return StatusResponse(
                name, ErrorCode(Code.SYSTEM_SPEC_UPDATING_ATTEMPT, SystemPayload("topic", name))
            )
        if isinstance(topic.spec.replicas, MirrorReplicas):
            return StatusResponse(
                name, ErrorCode(Code.TOPIC_INVALID_REPLICA_TYPE), "invalid replica type"
            )
        if self._catalog.partition_count() + count > PARTITIONS_MAX:
            text = f"more than {PARTITIONS_MAX} partitions in total"
            return StatusResponse(name, ErrorCode(Code.TOPIC_ERROR), text)
        if count:
            spec = with_more_partitions(topic.spec, count)
            first = len(topic.logs)
            logs = [self._catalog.new_log(topic, first + more) for more in range(count)]
            try:
                await self._writer.run(lambda: self._create_files(topic, spec, logs))
            except OSError as error:
                return StatusResponse(name, ErrorCode(Code.TOPIC_ERROR), f"error: {error.strerror}")
            self._catalog.grow(topic, spec, logs)
            await self._clock.sleep(_DELTA_LEAD_S)
        return StatusResponse(name)

    async def delete(self, name: str, *, force: bool) -> StatusResponse:
        """Delete a topic, its records and its stored offsets."""
        topic = self._catalog.topics.get(name)
        if topic is None:
            return StatusResponse(name, ErrorCode(Code.TOPIC_NOT_FOUND), "not found")
        if topic.spec.system and not force:
            return StatusResponse(
                name, ErrorCode(Code.SYSTEM_SPEC_DELETION_ATTEMPT, SystemPayload("topic", name))
            )
        async with topic.changing:
            if self._catalog.topics.get(name) is not topic:
                return StatusResponse(name, ErrorCode(Code.TOPIC_NOT_FOUND), "not found")
            return await self._remove(topic)

    async def _remove(self, topic: CatalogTopic) -> StatusResponse:
        name = topic.name
        try:
            await self._writer.run(lambda: self._store_deletion(topic))
        except OSError as error:
            return StatusResponse(name, ErrorCode(Code.TOPIC_ERROR), f"error: {error.strerror}")
        self._catalog.remove(name)
        self._on_removed(topic)
        try:
            await self._writer.run(lambda: self._remove_files(topic))
        except OSError:
            # The topic is deleted anyway: files without an entry are removed at the next start.
            logger.warning("cannot remove the files of topic %r", name, exc_info=True)
        return StatusResponse(name)

    async def _create(self, name: str, spec: TopicSpec) -> None:
        topic = CatalogTopic(name, f"{name}.{random_bits(_INCARNATION_BITS):016x}", spec)
        logs = [
            self._catalog.new_log(topic, partition) for partition in range(spec.partition_count)
        ]
        await self._writer.run(lambda: self._create_files(topic, spec, logs))
        topic.logs = logs
        self._catalog.add(topic)

    # --- on the writer's thread --------------------------------------------------

    def _create_files(self, topic: CatalogTopic, spec: TopicSpec, logs: list[PartitionLog]) -> None:
        for log in logs:
            log.create_first_segment(self._writer.files)
        self._writer.disk.sync_folder(logs[0].folder.parent)
        self._writer.disk.sync_folder(logs[0].folder.parent.parent)
        self._journal.store_topic(topic.name, topic.incarnation, spec)

    def _store_deletion(self, topic: CatalogTopic) -> None:
        self._journal.store_topic_deleted(topic.name)
        for log in topic.logs:
            log.refusal = ErrorCode(Code.NOT_LEADER_FOR_PARTITION)

    def _remove_files(self, topic: CatalogTopic) -> None:
        keys = [key for key in self._offsets.table if key[1] == topic.name]
        self._offsets.drop(keys)
        for log in topic.logs:
            for segment in log.segments:
                self._writer.files.forget(segment.path)
        if topic.logs:
            self._writer.disk.remove_folder(topic.logs[0].folder.parent)
