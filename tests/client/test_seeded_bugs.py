"""Seeded bugs: each breaks the client on purpose, and a named check must fail.

A `Bug` has edits and a check. An edit replaces a line or two of one function while the test runs.
The text that it replaces must occur exactly once there, so an edit that is out of date fails. The
check is a scenario from another file of this folder. It runs twice: it must pass without the
edits, and raise AssertionError or TimeoutError with them.

Example: "failed records count as stored" replaces ``if error is not None:`` with ``if False:`` in
`PartitionSender._count`. Its check sends a record that the server refuses, and compares the
producer's metrics with what the server has stored.

To add one, break the code by hand and see which test fails. If none does, write that test first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio
import pytest

from streamkit.client.consume.consumer import Consumer
from streamkit.client.consume.partition_reader import PartitionReader
from streamkit.client.consume.positions import Position
from streamkit.client.produce.accumulator import Accumulator
from streamkit.client.produce.handles import RecordHandle, RecordsHandle
from streamkit.client.produce.partition_sender import PartitionSender
from streamkit.client.produce.produce_requests import ProduceRequests
from streamkit.protocol import batch
from tests.client import (
    test_faults_scripted,
    test_model_consumer,
    test_model_producer,
    test_positions,
)
from tests.client.scripted import Read, Write
from tests.client.test_model_consumer import Step
from tests.seeded import Edit

SOON_S: Final = 2.0
LOST_BEFORE: Final = Write(stores=False, answers=False)
LOST_BEHIND: Final = Write(answers=False)
Check = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Bug:
    """What is broken, and the check that must fail."""

    edits: tuple[Edit, ...]
    check: Check


def write(delivery: Any, steps: list[Step], *writes: Write) -> Check:
    return lambda: test_model_producer.scenario(delivery, steps, list(writes))


def read(mode: Any, steps: list[Step], *reads: Read) -> Check:
    return lambda: test_model_consumer.scenario(mode, steps, list(reads))


async def a_flipped_offset() -> None:
    test_positions.test_a_flipped_bit_in_an_offset_moves_or_loses_no_record(0, 61)


SEND: Final[list[Step]] = [("send", 0, 1)] * 3
SEND_BAD: Final[list[Step]] = [*SEND, *SEND, ("send", 0, 0), *SEND, *SEND]
LINGER: Final[list[Step]] = [("yield", 9, 0)] * 30
SEEK: Final[list[Step]] = [("pull", 1, 0), *LINGER, ("seek", 0, 0), ("seek", 1, 0)]
COMMIT: Final[list[Step]] = [("pull", 2, 0), ("commit", 0, 0), ("pull", 1, 0), ("commit", 0, 0)]
# The connection stays open, so responses of the old stream still arrive.
NO_CANCEL: Final = Edit(PartitionReader, "seek", "self._scope.cancel()", "pass")
ANY_STREAM: Final = Edit(
    PartitionReader, "_read", "if self.position is not position or await", "if await"
)
ANY_OFFSETS: Final = Edit(
    Position, "inspect", "batches = self._following(batches)", "pass  # they follow"
)

BUGS: Final[dict[str, Bug]] = {
    "records lost with a connection are not sent again": Bug(
        (
            Edit(
                PartitionSender,
                "_final_response",
                "if not error.retryable:\n                raise",
                "if error.retryable:\n                return ErrorCode(Code.SUCCESS), 0",
            ),
        ),
        write("at-least-once", SEND, LOST_BEFORE),
    ),
    "a response that leaves the outcome unknown is not retried": Bug(
        (
            Edit(
                PartitionSender,
                "_should_retry",
                "code.code in _SEND_AGAIN_CODES",
                "code.code in {6, 2001, 3001}",
            ),
        ),
        write("at-least-once", SEND, *[Write(56, stores=False)] * 8),
    ),
    "at-most-once delivery sends again": Bug(
        (Edit(PartitionSender, "_run", 'delivery == "at-least-once"', 'delivery != ""'),),
        write("at-most-once", SEND, LOST_BEHIND),
    ),
    "a refused batch makes its neighbours fail": Bug(
        (Edit(PartitionSender, "_deliver", "elif len(batches) == 1:", "elif batches:"),),
        write("at-least-once", SEND_BAD),
    ),
    "all batches of one entry get its first offset": Bug(
        (Edit(PartitionSender, "_settle", "base_offset += batch.record_count", "pass"),),
        write("at-least-once", [*SEND, *SEND, *SEND]),
    ),
    "flush raises the same refusal twice": Bug(
        (
            Edit(
                PartitionSender,
                "take_refusal",
                "refusal, self._refusal = self._refusal, None",
                "refusal = self._refusal",
            ),
        ),
        write("at-least-once", SEND_BAD),
    ),
    "failed records count as stored": Bug(
        (Edit(PartitionSender, "_count", "if error is not None:", "if False:"),),
        write("at-least-once", SEND_BAD),
    ),
    "a closed producer continues to send": Bug(
        (
            Edit(ProduceRequests, "post", "if self.is_stopped:", "if False:"),
            Edit(PartitionSender, "_final_response", "if self._is_stopped or", "if"),
        ),
        test_faults_scripted.test_a_closed_producer_sends_nothing_more,
    ),
    "a handle returns the offset of the first row of its batch": Bug(
        (Edit(RecordHandle, "result", "base_offset + self._row if", "base_offset if"),),
        write("at-least-once", SEND),
    ),
    "a handle from send_many ignores earlier rows of its batch": Bug(
        (Edit(RecordsHandle, "record", "row_range.first_row + at", "at"),),
        write("at-least-once", [*SEND, ("send", 1, 1), ("many", 40, 3)]),
    ),
    "closing a batch loses its last record": Bug(
        (
            Edit(
                Accumulator,
                "close_batch",
                "if batch is not None:",
                "if batch is not None and len(batch.values) > 1:\n"
                "        for column in (batch.values, batch.keys, batch.timestamps_ms):\n"
                "            column.pop()\n"
                "    if batch is not None:",
            ),
        ),
        write("at-least-once", [("send", 0, 1)] * 2),
    ),
    "the position moves before a batch is checked": Bug(
        (
            Edit(
                Position,
                "decode",
                "columns = self._decoded(data, at, header)",
                "self.next_offset = header.end_offset\n"
                "        columns = self._decoded(data, at, header)",
            ),
        ),
        read("chunks", COMMIT, Read("flipped", 70)),
    ),
    "the checksum is not compared": Bug(
        (Edit(batch, "check_crc", "if crc != header.crc:", "if False:"),),
        # The last byte of the first batch: part of a value, compressed or not.
        read("chunks", COMMIT, Read("flipped", 50)),
    ),
    "the offsets of a batch are not checked": Bug((ANY_OFFSETS,), a_flipped_offset),
    "a batch that was cut is acknowledged": Bug(
        (
            Edit(
                Position,
                "inspect",
                "max(wanted, response.next_filter_offset), cut > 0",
                "wanted + (cut > 0), cut > 0",
            ),
        ),
        read("chunks", COMMIT, Read("cut", 150), Read("cut", 150)),
    ),
    "a seek keeps prefetched records": Bug(
        (Edit(Consumer, "seek", "self._fetch_buffer.drop(partition)", "pass"),),
        read("chunks", SEEK),
    ),
    "a loop over records continues its chunk after a seek": Bug(
        (Edit(Consumer, "_records", "if chunk.partition in self._seeked:", "if False:"),),
        test_faults_scripted.test_a_seek_discards_the_records_requested_before_it,
    ),
    "a stream opened before a seek is still read": Bug(
        (NO_CANCEL, ANY_STREAM, ANY_OFFSETS),
        read("chunks", [*SEEK, *COMMIT, ("append", 0, 2), ("append", 1, 2)]),
    ),
    "a commit includes the record that is being processed": Bug(
        (
            Edit(
                Consumer,
                "_chunks",
                "self._yielded[chunk.partition] = last",
                "self._yielded[chunk.partition] = self._processed[chunk.partition] = last",
            ),
        ),
        read("chunks", COMMIT),
    ),
    "new partitions are read from their end": Bug(
        (
            Edit(
                Consumer,
                "_follow_growth",
                "self._new_reader(number, None, BEGINNING)",
                "self._new_reader(number, None, Offset.end())",
            ),
        ),
        read("chunks", [("grow", 1, 0)]),
    ),
    "partitions added while others are added are missed": Bug(
        (Edit(Consumer, "_follow_growth", "if not added:", "if True:"),),
        test_faults_scripted.test_partitions_added_while_others_are_added_are_read,
    ),
    "a lost stream restarts at the first offset": Bug(
        (
            Edit(
                PartitionReader,
                "_read",
                "position = self.position\n",
                "position = self.position = self._position_at(self.started_at)\n",
            ),
        ),
        read("chunks", COMMIT, Read(), Read(), Read("lost")),
    ),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_makes_its_check_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    anyio.run(bug.check)
    for module in (test_faults_scripted, test_model_consumer, test_model_producer):
        monkeypatch.setattr(module, "SOON_S", SOON_S)
    for edit in bug.edits:
        edit.apply(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError)):
        anyio.run(bug.check)
