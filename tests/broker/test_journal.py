"""A journal keeps all synced entries, whatever happens to its end."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.broker.catalog_journal import CatalogJournal
from streamkit.broker.consumer_offsets import ConsumerOffsets, ConsumerPosition
from streamkit.broker.journal import ENTRY_BYTES_MAX, MAGIC, Journal, JournalContent, read_entries
from streamkit.broker.partition_log import LogEnd, PartitionLog
from streamkit.env import Disk
from streamkit.errors import StateError
from streamkit.limits import JOURNAL_BYTES_MAX, PARTITIONS_MAX
from tests.broker.failing_disk import FailingDisk, on_file
from tests.broker.running import topic_spec

ENTRIES = [b"first", b"2", b"third, and longer than the others", b"4"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def written(path: Path, entries: list[bytes]) -> bytes:
    journal = Journal(Disk(), path)
    journal.open()
    for entry in entries:
        journal.append(entry)
    journal.sync()
    end = journal.size_bytes
    journal.close()
    return path.read_bytes()[:end]


def opened(path: Path) -> JournalContent:
    journal = Journal(Disk(), path)
    try:
        return journal.open()
    finally:
        journal.close()


def ends(entries: list[bytes]) -> Iterator[int]:
    at = len(MAGIC)
    for entry in entries:
        at += 8 + len(entry)
        yield at


# --- Reading -----------------------------------------------------------------------


@pytest.mark.parametrize("rest", [b"", b"\0" * 600, b"\xff" * 600], ids=["cut", "zeros", "ones"])
def test_a_truncated_journal_keeps_its_complete_entries(path: Path, rest: bytes) -> None:
    data = written(path, ENTRIES)
    for cut in range(len(MAGIC), len(data)):
        content = read_entries(data[:cut] + rest)
        whole = [entry for entry, end in zip(ENTRIES, ends(ENTRIES), strict=True) if end <= cut]
        assert content.entries == whole
        assert not content.is_damaged


def test_an_incomplete_last_entry_is_removed_and_overwritten(path: Path) -> None:
    data = written(path, ENTRIES)
    path.write_bytes(data[:-1])
    assert opened(path).entries == ENTRIES[:-1]
    assert len(path.read_bytes()) == len(data) - 9
    journal = Journal(Disk(), path)
    journal.open()
    journal.append(b"new")
    journal.sync()
    journal.close()
    assert opened(path).entries == [*ENTRIES[:-1], b"new"]


@given(damaged=st.integers(0, len(ENTRIES) - 2), at=st.integers(0, 8), flip=st.integers(1, 255))
def test_a_damaged_entry_is_skipped_and_reported(
    tmp_path_factory: pytest.TempPathFactory, damaged: int, at: int, flip: int
) -> None:
    data = bytearray(written(tmp_path_factory.mktemp("journal") / "journal", ENTRIES))
    data[[len(MAGIC), *ends(ENTRIES)][damaged] + at] ^= flip
    content = read_entries(bytes(data))
    assert content.is_damaged
    assert content.entries == [entry for row, entry in enumerate(ENTRIES) if row != damaged]


def test_a_file_of_another_format_is_refused(path: Path) -> None:
    for content in (b"", b"streamkit", b"\0" * 20, b"streamkit journal 2\n"):
        path.write_bytes(content)
        with pytest.raises(StateError, match="not a journal of this version"):
            opened(path)
        assert path.read_bytes() == content


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20))
def test_written_entries_are_read(
    tmp_path_factory: pytest.TempPathFactory, entries: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    written(path, entries)
    assert opened(path).entries == entries


def test_an_entry_above_the_size_limit_is_an_assertion_error(path: Path) -> None:
    journal = Journal(Disk(), path)
    journal.open()
    journal.append(bytes(ENTRY_BYTES_MAX))
    with pytest.raises(AssertionError):
        journal.append(bytes(ENTRY_BYTES_MAX + 1))
    journal.close()
    assert opened(path).entries == [bytes(ENTRY_BYTES_MAX)]


# --- Compaction --------------------------------------------------------------------


def test_a_journal_is_replaced_by_a_compacted_one(path: Path) -> None:
    journal = Journal(Disk(), path)
    journal.open()
    for entry in ENTRIES:
        journal.append(entry)
    journal.replace_all([b"sum"])
    journal.append(b"after")
    journal.sync()
    journal.close()
    assert opened(path).entries == [b"sum", b"after"]
    assert not list(path.parent.glob("*.new"))


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_failed_replacement_keeps_the_old_file(path: Path, call: str) -> None:
    disk = FailingDisk()
    journal = Journal(disk, path)
    journal.open()
    journal.append(b"old")
    disk.fault = lambda made, where: errno.ENOSPC * (made == call and where.suffix == ".new")
    with pytest.raises(OSError, match="No space"):
        journal.replace_all([b"sum"])
    journal.append(b"next")
    journal.sync()
    journal.close()
    assert opened(path).entries == [b"old", b"next"]
    assert not list(path.parent.glob("*.new"))


def test_a_compacted_journal_keeps_every_consumer_offset(tmp_path: Path) -> None:
    path = tmp_path / "consumer-offsets"
    offsets = ConsumerOffsets(Disk(), path, is_durable=False)
    offsets.open()
    consumer = "c" * 30_000
    rounds = JOURNAL_BYTES_MAX // 30_000 * 3
    for number in range(rounds):
        offsets.store((consumer, "t", number % 3), ConsumerPosition(number, 1, "t.0"))
    offsets.drop([(consumer, "t", 2)])
    offsets.close()
    assert path.stat().st_size < JOURNAL_BYTES_MAX + (1 << 17)
    again = ConsumerOffsets(Disk(), path, is_durable=False)
    assert again.open()
    again.close()
    assert again.table == offsets.table
    assert sorted(partition for _, _, partition in again.table) == [0, 1]


def test_a_journal_keeps_the_end_offsets_of_the_maximum_number_of_partitions(
    tmp_path: Path, path: Path
) -> None:
    disk = Disk()
    journal = CatalogJournal(disk, path, is_durable=False)
    journal.open()
    incarnation = f"{'t' * 63}.{0:016x}"
    journal.store_topic("t" * 63, incarnation, topic_spec(PARTITIONS_MAX))
    big = 1 << 62
    durable_ends = {
        PartitionLog(
            disk, tmp_path / incarnation / str(number), topic="t", partition=number
        ): LogEnd(big + number, big, big)
        for number in range(PARTITIONS_MAX)
    }
    for _ in range(4):  # enough for a compaction
        journal.store_ends(durable_ends)
    journal.close()
    again = CatalogJournal(disk, path, is_durable=False)
    assert again.open()
    again.close()
    for log, end in durable_ends.items():
        assert again.end_of(incarnation, log.partition) == end


def test_after_a_failed_sync_a_journal_refuses_entries(path: Path) -> None:
    disk = FailingDisk()
    journal = Journal(disk, path)
    journal.open()
    journal.append(b"lost?")
    disk.fault = on_file("journal", "sync", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        journal.sync()
    calls = len(disk.calls)
    for again in (journal.sync, lambda: journal.append(b"x")):
        with pytest.raises(OSError, match="an earlier write or sync of journal failed"):
            again()
    assert len(disk.calls) == calls
    journal.close()
