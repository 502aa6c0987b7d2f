"""Storing and deleting SmartModules: checks, disk, journal, then the watchers.

The broker stores SmartModules but does not run them. Each is a file with a journal entry.

| step of a create | state after a crash at this step |
|---|---|
| file synced | a file without an entry: removed at the next start |
| journal entry synced | the module is complete |
| watchers notified, response sent, replaced file removed | the module is complete |
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import google_crc32c

from streamkit.broker.catalog import Catalog
from streamkit.broker.catalog_journal import CatalogJournal, SmartModuleCreated
from streamkit.broker.log_writer import LogWriter
from streamkit.broker.module_names import key_of
from streamkit.env import Disk, random_bits
from streamkit.errors import RemoteProtocolError
from streamkit.limits import SMARTMODULES_BYTES_MAX, SMARTMODULES_MAX
from streamkit.protocol import specs
from streamkit.protocol.apis import ADMIN_VERSION
from streamkit.protocol.control_plane import StatusResponse
from streamkit.protocol.error_codes import Code, ErrorCode, TextPayload
from streamkit.protocol.schema import decode, encode
from streamkit.protocol.specs import SmartModuleSpec

logger = logging.getLogger("streamkit.broker")

NOT_RUN: Final = "the embedded broker does not run SmartModules yet"
_WASM_MAGIC: Final = b"\0asm"
_GZIP_MAGIC: Final = b"\x1f\x8b"
_FILE_BITS: Final = 64


class SmartModuleService:
    """Stores modules. If two requests create the same name, the later one replaces the earlier."""

    def __init__(
        self,
        catalog: Catalog,
        journal: CatalogJournal,
        writer: LogWriter,
        folder: Path,
    ) -> None:
        self._catalog = catalog
        self._journal = journal
        self._writer = writer
        self._folder = folder
        self._sizes = {name: len(_encoded(spec)) for name, spec in catalog.modules.items()}
        # Serializes all changes.
        self._changing = asyncio.Lock()

    async def create(self, name: str, spec: SmartModuleSpec, *, dry_run: bool) -> StatusResponse:
        """Store a module durably; it replaces one of the same name.

        A dry run only checks, unlike in a stock SC, which stores the module.
        """
        if spec.meta is not None and not (spec.meta.package.name and spec.meta.package.group):
            return _refused(name, "invalid SmartModule package")
        key = key_of(name, spec)
        if not is_module(spec.payload):
            # A stock SC accepts it, and then every use of it fails.
            return _refused(key, "the payload is neither wasm nor gzip-compressed wasm")
        data = _encoded(spec)
        async with self._changing:
            if wrong := self._no_room_for(key, len(data)):
                return _refused(key, wrong)
            if dry_run:
                return StatusResponse(key)
            try:
                await self._writer.run(lambda: self._store(key, data))
            except OSError as error:
                return _refused(key, f"error: {error.strerror}")
            self._sizes[key] = len(data)
            self._catalog.put_module(key, spec)
        return StatusResponse(key)

    async def delete(self, name: str) -> StatusResponse:
        """Delete a module by the name it is stored under, or by ``group/name@version``."""
        async with self._changing:
            key = self._catalog.find_module(name)
            if key is None:
                return StatusResponse(
                    name, ErrorCode(Code.SMARTMODULE_NOT_FOUND, TextPayload(name)), "not found"
                )
            try:
                await self._writer.run(lambda: self._remove(key))
            except OSError as error:
                return _refused(name, f"error: {error.strerror}")
            del self._sizes[key]
            self._catalog.remove_module(key)
        return StatusResponse(name)

    def _no_room_for(self, key: str, size_bytes: int) -> str | None:
        sizes = self._sizes | {key: size_bytes}
        if len(sizes) > SMARTMODULES_MAX:
            return f"{SMARTMODULES_MAX} SmartModules already exist"
        if sum(sizes.values()) > SMARTMODULES_BYTES_MAX:
            return (
                f"with these {size_bytes} bytes, all SmartModules have {sum(sizes.values())} "
                f"bytes, {SMARTMODULES_BYTES_MAX} allowed"
            )
        return None

    # --- on the writer's thread --------------------------------------------------

    def _store(self, key: str, data: bytes) -> None:
        created = SmartModuleCreated(
            key, f"{random_bits(_FILE_BITS):016x}", len(data), google_crc32c.value(data)
        )
        path = self._folder / created.file
        disk = self._writer.disk
        try:
            _write(disk, path, data)
            before = self._journal.store_module(created)
        except OSError:
            if self._journal.failure is None:
                disk.unlink(path)  # not after a failure: the entry may be on disk
            raise
        if before is not None:
            self._unlink(before)

    def _remove(self, key: str) -> None:
        self._unlink(self._journal.store_module_deleted(key))

    def _unlink(self, created: SmartModuleCreated) -> None:
        try:
            self._writer.disk.unlink(self._folder / created.file)
        except OSError:
            # It no longer has an entry, so the next start removes it.
            logger.warning("cannot remove the file of module %r", created.name, exc_info=True)


def read_modules(
    disk: Disk, folder: Path, entries: Iterable[SmartModuleCreated]
) -> dict[str, SmartModuleSpec]:
    """Read the modules in the journal. Damaged modules are left out and logged."""
    found = {}
    for created in entries:
        try:
            found[created.name] = _read(disk, folder / created.file, created)
        except (OSError, RemoteProtocolError) as error:
            logger.error("SmartModule %r is not served: %s: %s", created.name, created.file, error)
    return found


def is_module(payload: bytes) -> bool:
    """Return whether a payload begins like wasm, directly or after decompression with gzip."""
    if not payload.startswith(_GZIP_MAGIC):
        return payload.startswith(_WASM_MAGIC)
    try:
        start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(payload, len(_WASM_MAGIC))
    except zlib.error:
        return False
    return start == _WASM_MAGIC


def _encoded(spec: SmartModuleSpec) -> bytes:
    return encode(specs.SMARTMODULE.spec, spec, ADMIN_VERSION)


def _refused(name: str, text: str) -> StatusResponse:
    return StatusResponse(name, ErrorCode(Code.SMARTMODULE_ERROR), text)


def _write(disk: Disk, path: Path, data: bytes) -> None:
    fd = disk.open_append(path)
    try:
        disk.write_at(fd, data, 0)
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.sync_folder(path.parent)


def _read(disk: Disk, path: Path, created: SmartModuleCreated) -> SmartModuleSpec:
    fd = disk.open_read(path)
    try:
        data = disk.read_at(fd, created.size_bytes, 0)
    finally:
        disk.close(fd)
    if len(data) != created.size_bytes or google_crc32c.value(data) != created.crc32c:
        raise RemoteProtocolError("the file is damaged", at=0)
    spec: SmartModuleSpec = decode(specs.SMARTMODULE.spec, data, ADMIN_VERSION)
    return spec
