"""The broker: one node that speaks the Fluvio protocol on an SC port and an SPU port."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from streamkit.broker.catalog import Catalog, CatalogTopic
from streamkit.broker.catalog_journal import CatalogJournal
from streamkit.broker.connection import Connection, Port, Usage
from streamkit.broker.consumer_offsets import ConsumerOffsets
from streamkit.broker.data_folder import DataFolder
from streamkit.broker.fetch_stream import Streams
from streamkit.broker.files import OpenFiles, make_folders
from streamkit.broker.log_writer import LogWriter
from streamkit.broker.partition_log import PartitionLog
from streamkit.broker.recovery import open_partition
from streamkit.broker.sc import ScSession
from streamkit.broker.smartmodules import SmartModuleService, read_modules
from streamkit.broker.spu import SpuParts, SpuSession
from streamkit.broker.topics import TopicService
from streamkit.env import Clock, Disk, SystemClock, open_files_limit
from streamkit.errors import ConfigError
from streamkit.limits import CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, REFUSALS_MAX
from streamkit.protocol.apis import SC_APIS, SPU_APIS

logger = logging.getLogger("streamkit.broker")

HOST = "127.0.0.1"
SC_PORT_DEFAULT = 9103
SPU_PORT_DEFAULT = 9110
_REPORT_S = 0.4
_CLOSE_S_MAX = 5.0
# The listen backlog: many programs may connect at the same time.
_BACKLOG = 1_024
# File descriptors of the journal, the lock, the ports and the attachments.
_OTHER_FILES = 16


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Where a broker stores its data and listens; port 0 selects a free port.

    ``spu_public_address`` is the ``host:port`` of the SPU that clients get; clients that use local
    addresses get the port it listens on. ``connections_max`` limits all connections together; the
    limit is lower if the system allows this process few open files.
    """

    data_dir: Path
    sc_port: int = 0
    spu_port: int = 0
    is_durable: bool = True
    spu_public_address: str | None = None
    connections_max: int = CONNECTIONS_MAX
    connections_per_address_max: int = CONNECTIONS_PER_ADDRESS_MAX


class Broker:
    """A broker to open and close. It runs on one event loop and one writer thread."""

    def __init__(
        self,
        options: BrokerOptions,
        *,
        disk: Disk | None = None,
        clock: Clock | None = None,
        lock_fd: int | None = None,
    ) -> None:
        self._options = options
        self._disk = disk or Disk()
        self._clock = clock or SystemClock()
        self._lock_fd = lock_fd
        self.folder = DataFolder(options.data_dir, self._disk)
        self._journal = CatalogJournal(
            self._disk, self.folder.journal, is_durable=options.is_durable
        )
        self._offsets = ConsumerOffsets(
            self._disk, self.folder.consumer_offsets, is_durable=options.is_durable
        )
        self._catalog = Catalog(self._disk, self.folder.root)
        self._reads = OpenFiles(self._disk, is_writer=False)
        self._streams = Streams()
        self._logs_with_new_end: set[PartitionLog] = set()
        self._writer: LogWriter | None = None
        self._topics: TopicService | None = None
        self._modules: SmartModuleService | None = None
        self._servers: list[asyncio.Server] = []
        self._ports: list[Port] = []
        self._housekeeping: asyncio.Task[None] | None = None
        self.failed = asyncio.Event()
        self.failure: BaseException | None = None
        self.sc_address = ""
        self.spu_address = ""

    async def open(self) -> None:
        """Lock the data folder, recover its content, and listen on both ports.

        Raises:
            DataFolderInUse: Another broker uses the folder.
            StateError: The folder has another format version.
            ConfigError: A port is in use, or the folder cannot be created.
        """
        self.folder.make()
        if self._lock_fd is None:
            self._lock_fd = self.folder.lock()
        try:
            self.folder.check_format()
            self._recover()
            await self._start_services()
            await self._listen()
        except BaseException:
            await self.close()
            raise
        self._housekeeping = asyncio.get_running_loop().create_task(self._run_housekeeping())

    async def close(self) -> None:
        """Stop listening, finish accepted requests, close the files and unlock the folder."""
        for server in self._servers:
            server.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        if self._writer is not None:
            await self._writer.close()
            # The loop now has the acknowledgements of the last group; let it send them.
            await asyncio.sleep(0)
        for port in self._ports:
            port.close()
        deadline_s = self._clock.monotonic_s() + _CLOSE_S_MAX
        while any(port.connections for port in self._ports):
            if self._clock.monotonic_s() > deadline_s:
                break
            await asyncio.sleep(0.001)
        self._journal.close()
        self._offsets.close()
        self._reads.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # --- opening -------------------------------------------------------------------

    def _recover(self) -> None:
        is_valid = self._journal.open()
        if not is_valid:
            logger.error("the journal has a damaged entry; the end offsets are read from the logs")
        if not self._offsets.open():
            logger.error("the journal of consumer offsets has a damaged entry")
        make_folders(self._disk, self.folder.logs)
        make_folders(self._disk, self.folder.smartmodules)
        # An earlier start may have been killed before the folder's name was on disk.
        self._disk.sync_folder(self.folder.root)
        files = OpenFiles(self._disk, is_writer=True)
        for name, incarnation, spec in self._journal.topics():
            topic = CatalogTopic(name, incarnation, spec)
            for partition in range(spec.partition_count):
                log = self._catalog.new_log(topic, partition)
                self._recover_partition(log, incarnation, files)
                topic.logs.append(log)
            self._catalog.topics[name] = topic
        files.close()
        self._catalog.modules = read_modules(
            self._disk, self.folder.smartmodules, self._journal.modules()
        )
        if is_valid:
            self._remove_files_without_entry()

    def _recover_partition(self, log: PartitionLog, incarnation: str, files: OpenFiles) -> None:
        known_end = self._journal.end_of(incarnation, log.partition)
        found = open_partition(self._disk, log, known_end, files)
        if found.torn_bytes:
            logger.warning(
                "%s-%d: removed %d bytes of an incomplete write after offset %d",
                log.topic,
                log.partition,
                found.torn_bytes,
                found.end.offset,
            )
        if found.damage:
            logger.error(
                "%s-%d: acknowledged records are damaged: %s; the partition serves its valid "
                "records and refuses new ones",
                log.topic,
                log.partition,
                found.damage,
            )

    def _remove_files_without_entry(self) -> None:
        """Remove files without a journal entry, left by an interrupted create or delete.

        Not called if the journal is damaged, because the entry of a valid file may be lost.
        """
        incarnations = {topic.incarnation for topic in self._catalog.topics.values()}
        for folder in self.folder.logs.iterdir():
            if folder.name not in incarnations:
                self._disk.remove_folder(folder)
        files = {created.file for created in self._journal.modules()}
        for file in self.folder.smartmodules.iterdir():
            if file.name not in files:
                self._disk.unlink(file)

    async def _start_services(self) -> None:
        self._writer = LogWriter(
            self._disk,
            self._journal,
            is_durable=self._options.is_durable,
            on_end=self._on_end,
            on_failure=self._fail,
        )
        self._writer.start()
        self._topics = TopicService(
            self._catalog,
            self._journal,
            self._writer,
            self._offsets,
            self._clock,
            on_removed=self._on_topic_removed,
        )
        self._modules = SmartModuleService(
            self._catalog, self._journal, self._writer, self.folder.smartmodules
        )
        await self._topics.ensure_offsets_topic()

    async def _listen(self) -> None:
        writer, topics, modules = self._writer, self._topics, self._modules
        assert writer is not None
        assert topics is not None
        assert modules is not None
        usage = _usage(self._options)
        parts = SpuParts(
            self._catalog, writer, self._offsets, self._reads, self._clock, self._streams
        )
        spu = Port(
            "SPU", SPU_APIS, self._clock, usage, lambda connection: SpuSession(connection, parts)
        )
        sc = Port(
            "SC",
            SC_APIS,
            self._clock,
            usage,
            lambda connection: ScSession(connection, self._catalog, topics, modules),
        )
        self._ports = [sc, spu]
        spu_port = await self._bind(spu, self._options.spu_port, "--spu-port")
        self._catalog.describe_spu(HOST, spu_port, public=self._options.spu_public_address)
        sc_port = await self._bind(sc, self._options.sc_port, "--sc-port")
        self.sc_address, self.spu_address = f"{HOST}:{sc_port}", f"{HOST}:{spu_port}"

    async def _bind(self, port: Port, number: int, option: str) -> int:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Connection(port), HOST, number, backlog=_BACKLOG
            )
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {HOST}:{number} ({port.name}): {error.strerror}",
                hint=f"choose another port with {option} (0 selects a free port)",
            ) from error
        self._servers.append(server)
        bound_port: int = server.sockets[0].getsockname()[1]
        return bound_port

    # --- running ---------------------------------------------------------------------

    def _on_end(self, log: PartitionLog) -> None:
        self._streams.end_moved(log)
        self._logs_with_new_end.add(log)

    def _on_topic_removed(self, topic: CatalogTopic) -> None:
        self._streams.topic_removed(topic)
        for log in topic.logs:
            for segment in log.segments:
                self._reads.forget(segment.path)

    def _fail(self, failure: BaseException) -> None:
        logger.critical("cannot write the journal; the broker stops", exc_info=failure)
        self.failure = failure
        self.failed.set()

    async def _run_housekeeping(self) -> None:
        while True:
            await self._clock.sleep(_REPORT_S)
            for port in self._ports:
                port.sweep()
            if self._logs_with_new_end:
                moved, self._logs_with_new_end = self._logs_with_new_end, set()
                if self._catalog.is_watched:
                    self._catalog.report(moved)


def _usage(options: BrokerOptions) -> Usage:
    """Limit the connections by the options and by the number of files that may be open.

    A quarter of the files is for reading logs, a quarter for writing, the rest for connections.
    """
    files = open_files_limit()
    refusals = max(1, min(REFUSALS_MAX, files // 16))
    connections_max = max(1, min(options.connections_max, files // 2 - refusals - _OTHER_FILES))
    return Usage(connections_max, options.connections_per_address_max, refusals)


class PortTaken(ConfigError):
    """A port to listen on is in use."""

    exit_code = 1
