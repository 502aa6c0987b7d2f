"""Deliberate bugs of a line or two: the checks of this folder notice every one of them.

Each patches the client as it runs, and names the check that fails then. What it replaces must be
there exactly once, so that none goes stale unseen; and the same check must pass without it.
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
    """What is wrong, and the check that notices."""

    edits: tuple[Edit, ...]
    check: Check


def write(delivery: Any, steps: list[Step], *writes: Write) -> Check:
    return lambda: test_model_producer.scenario(delivery, steps, list(writes))


def read(mode: Any, steps: list[Step], *reads: Read) -> Check:
    return lambda: test_model_consumer.scenario(mode, steps, list(reads))


async def a_flipped_offset() -> None:
    test_positions.test_a_flipped_bit_of_an_offset_moves_and_loses_nothing(0, 61)


SEND: Final[list[Step]] = [("send", 0, 1)] * 3
SEND_BAD: Final[list[Step]] = [*SEND, *SEND, ("send", 0, 0), *SEND, *SEND]
LINGER: Final[list[Step]] = [("yield", 9, 0)] * 30
SEEK: Final[list[Step]] = [("pull", 1, 0), *LINGER, ("seek", 0, 0), ("seek", 1, 0)]
COMMIT: Final[list[Step]] = [("pull", 2, 0), ("commit", 0, 0), ("pull", 1, 0), ("commit", 0, 0)]
# No end of a connection, so that what is left of the old stream still comes.
NO_CANCEL: Final = Edit(PartitionReader, "seek", "self._scope.cancel()", "pass")
ANY_STREAM: Final = Edit(
    PartitionReader, "_read", "if self.position is not position or await", "if await"
)
ANY_OFFSETS: Final = Edit(
    Position, "look", "batches = self._following(batches)", "pass  # they follow"
)

ZOO: Final[dict[str, Bug]] = {
    "what a lost connection took is not sent again": Bug(
        (
            Edit(
                PartitionSender,
                "_answer_that_stands",
                "if not error.retryable:\n                raise",
                "if error.retryable:\n                return ErrorCode(Code.SUCCESS), 0",
            ),
        ),
        write("at-least-once", SEND, LOST_BEFORE),
    ),
    "an answer nobody can trust is not asked for again": Bug(
        (
            Edit(
                PartitionSender,
                "_is_worth_a_try",
                "code.code in _SEND_AGAIN_CODES",
                "code.code in {6, 2001, 3001}",
            ),
        ),
        write("at-least-once", SEND, *[Write(56, stores=False)] * 8),
    ),
    "at most once sends again": Bug(
        (Edit(PartitionSender, "_run", 'delivery == "at-least-once"', 'delivery != ""'),),
        write("at-most-once", SEND, LOST_BEHIND),
    ),
    "a refused batch takes its neighbours along": Bug(
        (Edit(PartitionSender, "_deliver", "elif len(batches) == 1:", "elif batches:"),),
        write("at-least-once", SEND_BAD),
    ),
    "batches of one entry are all told its first offset": Bug(
        (Edit(PartitionSender, "_settle", "base_offset += batch.record_count", "pass"),),
        write("at-least-once", [*SEND, *SEND, *SEND]),
    ),
    "flush raises a refusal again": Bug(
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
    "a closed producer goes on sending": Bug(
        (
            Edit(ProduceRequests, "post", "if self.is_stopped:", "if False:"),
            Edit(PartitionSender, "_answer_that_stands", "if self._is_stopped or", "if"),
        ),
        test_faults_scripted.test_a_closed_producer_sends_nothing_more,
    ),
    "a handle names the first row of its batch": Bug(
        (Edit(RecordHandle, "result", "base_offset + self._row if", "base_offset if"),),
        write("at-least-once", SEND),
    ),
    "the handle of a row of many forgets what was there before": Bug(
        (Edit(RecordsHandle, "record", "place.first_row + at", "at"),),
        write("at-least-once", [*SEND, ("send", 1, 1), ("many", 40, 3)]),
    ),
    "the last record of a batch that is closed is lost": Bug(
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
                "take",
                "columns = self._decoded(data, at, header)",
                "self.next_offset = header.end_offset\n"
                "        columns = self._decoded(data, at, header)",
            ),
        ),
        read("chunks", COMMIT, Read("flipped", 70)),
    ),
    "a checksum is not looked at": Bug(
        (Edit(batch, "check_crc", "if crc != header.crc:", "if False:"),),
        # The last byte of the first response's first batch, a value or what compresses it.
        read("chunks", COMMIT, Read("flipped", 50)),
    ),
    "a batch may be anywhere": Bug((ANY_OFFSETS,), a_flipped_offset),
    "what was cut is acknowledged too": Bug(
        (
            Edit(
                Position,
                "look",
                "max(wanted, answer.next_filter_offset), cut > 0)",
                "wanted + (cut > 0), cut > 0)",
            ),
        ),
        read("chunks", COMMIT, Read("cut", 150), Read("cut", 150)),
    ),
    "a seek keeps what was prefetched": Bug(
        (Edit(Consumer, "seek", "self._inbox.drop(partition)", "pass"),), read("chunks", SEEK)
    ),
    "a loop over records goes on in its chunk behind a seek": Bug(
        (Edit(Consumer, "_records", "if chunk.partition in self._sought:", "if False:"),),
        test_faults_scripted.test_no_record_from_before_a_seek_comes_behind_it,
    ),
    "a stream from before a seek is read on": Bug(
        (NO_CANCEL, ANY_STREAM, ANY_OFFSETS),
        read("chunks", [*SEEK, *COMMIT, ("append", 0, 2), ("append", 1, 2)]),
    ),
    "a commit stores what is in hand": Bug(
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
    "growth during growth is not seen": Bug(
        (Edit(Consumer, "_follow_growth", "if not added:", "if True:"),),
        test_faults_scripted.test_partitions_added_while_others_are_added_are_read_too,
    ),
    "a lost stream is opened where reading began": Bug(
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


@pytest.mark.parametrize("name", ZOO)
def test_a_bug_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = ZOO[name]
    anyio.run(bug.check)
    for module in (test_faults_scripted, test_model_consumer, test_model_producer):
        monkeypatch.setattr(module, "SOON_S", SOON_S)
    for edit in bug.edits:
        edit.apply(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError)):
        anyio.run(bug.check)
