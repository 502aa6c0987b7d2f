"""A file of small entries, each with its length and checksum; the last valid ones win.

Layout: a line that names the format, then per entry a u32 length, a u32 CRC-32C of the
payload, the payload. Appends are not durable before `sync`.
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
# How much room is taken at once for entries to come.
_ROOM_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class JournalContent:
    """What a journal held. ``is_damaged``: an entry is bad although valid ones follow it."""

    entries: list[bytes]
    valid_bytes: int
    is_damaged: bool


class Journal:
    """One open journal. Used from one thread at a time.

    A full disk refuses an entry and leaves the journal as it was. After any other failure of
    a write or a sync nobody knows what is on disk: ``failure`` says so, and nothing more is
    written.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._fd = -1
        self._end = 0
        self._room_end = 0
        self.is_dirty = False
        self.failure: OSError | None = None

    @property
    def size_bytes(self) -> int:
        return self._end

    @property
    def wants_compaction(self) -> bool:
        return self._end > JOURNAL_BYTES_MAX

    def open(self) -> JournalContent:
        """Open the file, cut a torn tail, and return what it holds. A missing one is made.

        Raises:
            StateError: The file is of another format.
        """
        if not self._path.exists():
            # A file is there whole or not at all: half a first line would look like another
            # format's.
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

    def make_room(self, size_bytes: int) -> None:
        """Take room for entries, so that a disk that fills up meanwhile does not matter.

        Raises:
            OSError: There is not so much.
        """
        if self._end + size_bytes > self._room_end:
            size_bytes = max(size_bytes, _ROOM_BYTES)
            self._disk.allocate(self._fd, self._end, size_bytes)
            self._room_end = self._end + size_bytes

    def append(self, payload: bytes) -> None:
        """Add an entry.

        Raises:
            OSError: It does not count; ``failure`` tells whether others still may.
        """
        assert len(payload) <= ENTRY_BYTES_MAX, "an entry that nobody would read again"
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
            OSError: Some are not, for good.
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
            raise OSError(self.failure.errno, f"{self._path.name} failed before") from self.failure

    def replace_all(self, payloads: Iterable[bytes]) -> None:
        """Put a new file with just these entries in the place of the old one.

        Raises:
            OSError: It cannot be made; the old one goes on.
        """
        data = bytearray(MAGIC)
        for payload in payloads:
            data += _HEAD.pack(len(payload), google_crc32c.value(payload))
            data += payload
        aside = self._path.with_suffix(".new")
        self._disk.unlink(aside)
        fd = self._disk.open_append(aside)
        try:
            self._disk.write_at(fd, data, 0)
            self._disk.allocate(fd, len(data), _ROOM_BYTES)
            self._disk.sync(fd)
        except OSError:
            self._disk.close(fd)
            self._disk.unlink(aside)
            raise
        try:
            self._disk.replace(aside, self._path)
        except OSError:
            self._disk.close(fd)
            raise
        self.close()
        self._fd, self._end, self.is_dirty = fd, len(data), False
        self._room_end = len(data) + _ROOM_BYTES
        try:
            self._disk.sync_folder(self._path.parent)
        except OSError as error:
            self.failure = error  # which of the two a crash would leave nobody can tell
            raise

    def close(self) -> None:
        """Close the file; what is not synced is not durable."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


def read_entries(data: bytes) -> JournalContent:
    """Read the entries of a whole file up to the torn tail.

    A bad entry with valid ones behind it is damage, not a torn tail: it is stepped over and
    reported, since what follows is newer and counts.
    """
    entries: list[bytes] = []
    at = valid = len(MAGIC)
    is_damaged = False
    while at < len(data):
        payload = _entry_at(data, at)
        if payload is None:
            if not data[at:].strip(b"\0"):
                break  # room for entries that never came
            behind = next(_valid_entry_positions(data, at + 1), None)
            if behind is None:
                break
            at, is_damaged = behind, True
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
