"""Serves a StreamFetch: sends records of a log, one unacknowledged response at a time."""

from __future__ import annotations

import asyncio
import logging

from streamkit.broker.catalog import CatalogTopic
from streamkit.broker.connection import Connection
from streamkit.broker.files import OpenFiles
from streamkit.broker.flow import StreamFlow
from streamkit.broker.partition_log import PartitionLog
from streamkit.errors import CorruptBatch
from streamkit.protocol.connection import IncomingRequest
from streamkit.protocol.data_plane import (
    FetchablePartition,
    StreamFetchResponse,
)
from streamkit.protocol.error_codes import Code, ErrorCode

logger = logging.getLogger("streamkit.broker")


class Streams:
    """The open streams of all connections, grouped by log."""

    def __init__(self) -> None:
        self._by_log: dict[PartitionLog, set[FetchStream]] = {}

    def add(self, stream: FetchStream) -> None:
        self._by_log.setdefault(stream.log, set()).add(stream)

    def discard(self, stream: FetchStream) -> None:
        readers = self._by_log.get(stream.log)
        if readers is not None:
            readers.discard(stream)
            if not readers:
                del self._by_log[stream.log]

    def end_moved(self, log: PartitionLog) -> None:
        """Notify the streams of a log that it has more records."""
        for stream in list(self._by_log.get(log, ())):
            stream.end_moved()

    def topic_removed(self, topic: CatalogTopic) -> None:
        """End the streams of a topic, including those that wait for an acknowledgement."""
        for log in topic.logs:
            for stream in list(self._by_log.get(log, ())):
                stream.fail(ErrorCode(Code.TOPIC_DELETED))


class FetchStream:
    """One StreamFetch: sends records of its log, one unacknowledged response at a time."""

    def __init__(
        self,
        connection: Connection,
        request: IncomingRequest,
        log: PartitionLog,
        number: int,
        reads: OpenFiles,
        streams: Streams,
    ) -> None:
        self._connection = connection
        self._request = request
        self._number = number
        self._reads = reads
        self._streams = streams
        self._flow = StreamFlow.starting_at(request.body.fetch_offset)
        self._acknowledged: int | None = None
        self._is_over = False
        self.log = log
        self.consumer_id: str | None = request.body.consumer_id

    def send_from(self, offset: int) -> None:
        """Send records, starting at ``offset``, if there are any."""
        response, is_empty = read_partition(
            self.log, offset, self._request.body.max_bytes, self._reads
        )
        if response.error:
            self._end(response)
        elif is_empty:
            self._flow.found_nothing(offset)
        else:
            self._flow.sent(self.log.durable_end)
            self._push(response)

    def acknowledge_soon(self, offset: int) -> None:
        """Handle an acknowledgement; if several arrive together, only the last one counts."""
        first_of_turn = self._acknowledged is None
        self._acknowledged = offset
        if first_of_turn:
            asyncio.get_running_loop().call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        offset, self._acknowledged = self._acknowledged, None
        if self._is_over or offset is None:
            return
        offset_to_send = self._flow.acknowledge(offset, self.log.durable_end)
        if offset_to_send is not None:
            self.send_from(offset_to_send)

    def end_moved(self) -> None:
        """Handle new records in the log."""
        offset = self._flow.end_moved(self.log.durable_end)
        if offset is not None:
            self.send_from(offset)

    def fail(self, error: ErrorCode) -> None:
        """Send an error and end."""
        self._end(FetchablePartition(self.log.partition, error))

    def _end(self, response: FetchablePartition) -> None:
        if not self._is_over:
            self._is_over = True
            self._streams.discard(self)
            self._push(response)

    def _push(self, response: FetchablePartition) -> None:
        body = StreamFetchResponse(self.log.topic, self._number, response)
        self._connection.push(self._request, body)


def read_partition(
    log: PartitionLog, offset: int, max_bytes: int, files: OpenFiles
) -> tuple[FetchablePartition, bool]:
    """Read records for a fetch; return the response and whether it has no records."""
    try:
        found = log.read(offset, max_bytes, files)
    except (CorruptBatch, OSError) as error:
        logger.error("%s-%d: %s", log.topic, log.partition, error)
        return FetchablePartition(log.partition, ErrorCode(Code.STORAGE_ERROR)), True
    if isinstance(found, ErrorCode):
        return FetchablePartition(log.partition, found), True
    response = FetchablePartition(
        log.partition,
        high_watermark=log.durable_end,
        log_start_offset=log.start_offset,
        records=found.records,
    )
    return response, not found.records
