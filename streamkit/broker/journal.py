"""A file of small entries, each with its length and checksum; later entries replace earlier ones.

Layout: a line that names the format, then for each entry a u32 length, a u32 CRC-32C of the
payload, and the payload. Appended entries are durable only after `sync`.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from streamkit.env import Disk
from streamkit.errors import StateError
from streamkit.limits import JOURNAL_BYTES_MAX

_HEAD = struct.Struct(">II")
MAGIC = b"streamkit journal 1\n"
ENTRY_BYTES_MAX = 1 << 20
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# Disk space is reserved for future entries in steps of this size.
_RESERVED_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class JournalContent:
    """The content of a journal. ``is_damaged``: an invalid entry is followed by valid ones."""

    entries: list[bytes]
    valid_bytes: int
    is_damaged: bool


class Journal:
    """One open journal. Used from one thread at a time.

    If the disk is full, an entry is refused and the journal is unchanged. After any other failed
    write or sync the content on disk is unknown: ``failure`` is set, and no more is written.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._fd = -1
        self._end = 0
        self._reserved_end = 0
        self.is_dirty = False
        self.failure: OSError | None = None

    @property
    def size_bytes(self) -> int:
        return self._end

    @property
    def needs_compaction(self) -> bool:
        return self._end > JOURNAL_BYTES_MAX

    def open(self) -> JournalContent:
        """Open the file, remove an incomplete last entry, and return the content.

        Creates the file if it is missing.

        Raises:
            StateError: The file has another format.
        """
        if not self._path.exists():
            # Created atomically, because a part of the first line would look like another format.
            self.replace_all([])
            return JournalContent([], self._end, is_damaged=False)
        self._fd = self._disk.open_append(self._path)
        size = self._disk.size_bytes(self._fd)
        data = self._disk.read_at(self._fd, size, 0)
        if not data.startswith(MAGIC):
            raise StateError(
                f"{self._path} begins with {data[:20]!r}: not a journal of this version",
                hint="use the streamkit version that wrote this folder, or another folder",
            )
        content = read_entries(data)
        self._end = content.valid_bytes
        if content.valid_bytes < size:
            self._disk.truncate(self._fd, content.valid_bytes)
            self.sync()
        return content

    def reserve_space(self, size_bytes: int) -> None:
        """Reserve disk space for entries, so that they succeed even if the disk fills up.

        Raises:
            OSError: The disk does not have this much space.
        """
        if self._end + size_bytes > self._reserved_end:
            size_bytes = max(size_bytes, _RESERVED_BYTES)
            self._disk.allocate(self._fd, self._end, size_bytes)
            self._reserved_end = self._end + size_bytes

    def append(self, payload: bytes) -> None:
        """Add an entry.

        Raises:
            OSError: The entry is not added. If ``failure`` is set, no later entry can be added.
        """
        assert len(payload) <= ENTRY_BYTES_MAX, "a larger entry could not be read again"
        self._refuse_after_failure()
        entry = _HEAD.pack(len(payload), google_crc32c.value(payload)) + payload
        try:
            self._disk.write_at(self._fd, entry, self._end)
        except OSError as error:
            if error.errno not in FULL_DISK:
                self.failure = error
            raise
        self._end += len(entry)
        self.is_dirty = True

    def sync(self) -> None:
        """Return when every entry is on disk.

        Raises:
            OSError: Some entries are not on disk and never will be.
        """
        self._refuse_after_failure()
        self.is_dirty = False
        try:
            self._disk.sync(self._fd)
        except OSError as error:
            self.failure = error
            raise

    def _refuse_after_failure(self) -> None:
        if self.failure is not None:
            text = f"an earlier write or sync of {self._path.name} failed"
            raise OSError(self.failure.errno, text) from self.failure

    def replace_all(self, payloads: Iterable[bytes]) -> None:
        """Replace the file with a new one that has only these entries.

        Raises:
            OSError: The new file cannot be created; the old one stays in use.
        """
        data = bytearray(MAGIC)
        for payload in payloads:
            data += _HEAD.pack(len(payload), google_crc32c.value(payload))
            data += payload
        temporary = self._path.with_suffix(".new")
        self._disk.unlink(temporary)
        fd = self._disk.open_append(temporary)
        try:
            self._disk.write_at(fd, data, 0)
            self._disk.allocate(fd, len(data), _RESERVED_BYTES)
            self._disk.sync(fd)
        except OSError:
            self._disk.close(fd)
            self._disk.unlink(temporary)
            raise
        try:
            self._disk.replace(temporary, self._path)
        except OSError:
            self._disk.close(fd)
            raise
        self.close()
        self._fd, self._end, self.is_dirty = fd, len(data), False
        self._reserved_end = len(data) + _RESERVED_BYTES
        try:
            self._disk.sync_folder(self._path.parent)
        except OSError as error:
            self.failure = error  # after a crash, either of the two files could remain
            raise

    def close(self) -> None:
        """Close the file without a sync."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


def read_entries(data: bytes) -> JournalContent:
    """Read the entries of a file, up to an incomplete last entry.

    An invalid entry before valid ones is damage, not an incomplete write. It is skipped and
    reported, because the entries after it are newer and still apply.
    """
    entries: list[bytes] = []
    at = valid = len(MAGIC)
    is_damaged = False
    while at < len(data):
        payload = _entry_at(data, at)
        if payload is None:
            if not data[at:].strip(b"\0"):
                break  # reserved space without entries
            following = next(_valid_entry_positions(data, at + 1), None)
            if following is None:
                break
            at, is_damaged = following, True
            continue
        entries.append(payload)
        at = valid = at + _HEAD.size + len(payload)
    return JournalContent(entries, valid, is_damaged)


def _entry_at(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _HEAD.size:
        return None
    length, crc = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    if not 0 < length <= min(ENTRY_BYTES_MAX, len(data) - start):
        return None
    payload = data[start : start + length]
    return payload if google_crc32c.value(payload) == crc else None


def _valid_entry_positions(data: bytes, at: int) -> Iterator[int]:
    return (position for position in range(at, len(data)) if _entry_at(data, position) is not None)
