"""`check_sink` accepts correct sinks and catches each of these wrong ones."""

from __future__ import annotations

import json
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streamkit.connectors import Chunk, Positions, Prepared
from streamkit.connectors.files import JsonLines
from streamkit.testing import RuleBroken, check_sink
from tests.testing.toy_sink import AtLeastOnce, AtOnce, ExactlyOnce, Memory, MemorySink

VALUES = [f"value {number}" for number in range(12)]


def check(writer: type[Any], **options: Any) -> None:
    memory = Memory()
    check_sink(
        lambda: MemorySink(memory, writer),
        lambda: memory.shown,
        VALUES,
        clear=memory.clear,
        **options,
    )


def broken_rule(writer: type[Any], **options: Any) -> str:
    with pytest.raises(RuleBroken) as caught:
        check(writer, **options)
    return caught.value.rule


@pytest.mark.parametrize("writer", [AtLeastOnce, ExactlyOnce, AtOnce])
def test_correct_sinks_pass_every_rule(writer: type[Any]) -> None:
    poison = [] if writer is AtOnce else ["poison"]
    check(writer, ordered=True, poison=poison, exactly_once=writer is ExactlyOnce)


def test_a_sink_that_cannot_be_opened_passes() -> None:
    check(AtLeastOnce, unopenable=lambda: MemorySink(None, AtLeastOnce))


def test_a_file_of_json_lines_passes(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    def read() -> list[Any]:
        return (
            [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        )

    check_sink(
        lambda: JsonLines(path),
        read,
        [{"number": number} for number in range(20)],
        kind=dict,
        ordered=True,
        poison=[{"number": float("nan")}],
        unopenable=lambda: JsonLines(tmp_path / "missing" / "out.jsonl"),
    )


class LosesTheLastRow(AtLeastOnce):
    async def write(self, chunk: Chunk) -> None:
        self.buffer += chunk.values[: max(1, len(chunk) - 1)]


class NeverFlushes(AtLeastOnce):
    def prepare_commit(self, *, is_last: bool) -> Prepared:
        async def wait() -> None:
            if is_last:
                self.shown.extend(self.buffer)
            self.buffer = []

        return Prepared(wait, {})


class CommitsBeforeItIsSafe(AtLeastOnce):
    """Writes in `publish`, which a crash can prevent, and keeps nothing for the next run."""

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        rows, self.buffer = self.buffer, []

        async def wait() -> None:
            pass

        async def publish() -> None:
            self.shown.extend(rows)

        return Prepared(wait, {}, publish)


class ShowsBeforeTheCommit(ExactlyOnce):
    async def write(self, chunk: Chunk) -> None:
        self.shown.extend(chunk.values)


class ShowsInWait(ExactlyOnce):
    def prepare_commit(self, *, is_last: bool) -> Prepared:
        prepared = super().prepare_commit(is_last=is_last)

        async def wait() -> None:
            await prepared.wait()
            await self.show()

        return Prepared(wait, prepared.positions)


class ForgetsToPublish(ExactlyOnce):
    """Does not complete the commit of a run that crashed before `publish`."""

    async def open(self, committed: Positions) -> None:
        assert self.memory is not None
        self.memory.safe.clear()
        self.number = json.loads(committed.get("commit", "0"))


class PublishesWhatIsNotStored(ExactlyOnce):
    """Shows in `open` also what no stored commit contains."""

    async def open(self, committed: Positions) -> None:
        assert self.memory is not None
        self.number = max([json.loads(committed.get("commit", "0")), *self.memory.safe])
        await self.show()


class TakesRowsIntoTheCommitBefore(ExactlyOnce):
    """Decides only in `wait` what belongs to the commit."""

    def prepare_commit(self, *, is_last: bool) -> Prepared:
        self.number += 1
        number = self.number

        async def wait() -> None:
            import anyio

            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert self.memory is not None
            self.memory.safe[number], self.buffer = self.buffer, []

        return Prepared(wait, {"commit": json.dumps(number)}, self.show)


class CountsNothingAsAcknowledged(AtLeastOnce):
    written = 0

    @property
    def unacknowledged(self) -> int:
        return self.written

    async def write(self, chunk: Chunk) -> None:
        self.written += len(chunk)
        await super().write(chunk)


class HasMutablePositions(ExactlyOnce):
    def prepare_commit(self, *, is_last: bool) -> Prepared:
        prepared = super().prepare_commit(is_last=is_last)
        return Prepared(prepared.wait, {"commit": [self.number]}, prepared.publish)  # type: ignore[dict-item]


class AcceptsPoison(AtLeastOnce):
    def on_chunk(self, chunk: Chunk) -> Chunk:
        return chunk


class RefusesTheWholeChunk(AtLeastOnce):
    def on_chunk(self, chunk: Chunk) -> Chunk:
        if "poison" in chunk.values:
            raise ValueError("poison")
        return chunk


class FailsWithoutRows(AtLeastOnce):
    def prepare_commit(self, *, is_last: bool) -> Prepared:
        prepared = super().prepare_commit(is_last=is_last)
        is_empty = not self.buffer

        async def wait() -> None:
            if is_empty:
                raise ValueError("nothing to write")
            await prepared.wait()

        return Prepared(wait, {})


class CannotBeClosedTwice(AtLeastOnce):
    async def close(self) -> None:
        del self.memory


class BlocksTheLoop(AtLeastOnce):
    async def write(self, chunk: Chunk) -> None:
        time.sleep(0.03)  # noqa: ASYNC251  # this is what must be found
        await super().write(chunk)


class HasNoDescription(AtLeastOnce):
    description = ""


@pytest.mark.parametrize(
    ("writer", "rule"),
    [
        (LosesTheLastRow, "writes"),
        (NeverFlushes, "writes"),
        (CommitsBeforeItIsSafe, "lost"),
        (ForgetsToPublish, "lost"),
        (CountsNothingAsAcknowledged, "unacknowledged"),
        (HasMutablePositions, "positions"),
        (AcceptsPoison, "poison"),
        (RefusesTheWholeChunk, "poison"),
        (FailsWithoutRows, "writes"),
        (CannotBeClosedTwice, "close"),
        (HasNoDescription, "described"),
    ],
)
def test_a_wrong_sink_breaks_a_rule(writer: type[Any], rule: str) -> None:
    assert broken_rule(writer, poison=["poison"]) == rule


@pytest.mark.parametrize(
    ("writer", "rule"),
    [
        (AtLeastOnce, "doubled"),
        (ShowsBeforeTheCommit, "doubled"),
        (ShowsInWait, "doubled"),
        (PublishesWhatIsNotStored, "doubled"),
        (TakesRowsIntoTheCommitBefore, "overlap"),
    ],
)
def test_a_sink_that_is_not_exactly_once_breaks_a_rule(writer: type[Any], rule: str) -> None:
    assert broken_rule(writer, exactly_once=True) == rule


def test_a_sink_that_blocks_the_loop_breaks_a_rule() -> None:
    assert broken_rule(BlocksTheLoop, blocked_ms_max=15) == "loop"


def test_how_long_clear_and_read_take_is_not_measured() -> None:
    memory = Memory()

    def clear() -> None:
        time.sleep(0.03)
        memory.clear()

    def read() -> list[Any]:
        time.sleep(0.03)
        return memory.shown

    check_sink(
        lambda: MemorySink(memory, AtLeastOnce), read, VALUES, clear=clear, blocked_ms_max=25
    )


def test_another_order_breaks_a_rule() -> None:
    memory = Memory()
    with pytest.raises(RuleBroken, match="the order is"):
        check_sink(
            lambda: MemorySink(memory, AtLeastOnce),
            lambda: memory.shown[::-1],
            VALUES,
            clear=memory.clear,
            ordered=True,
        )


def test_a_resource_that_changes_breaks_a_rule() -> None:
    numbers = count()

    class Changing(MemorySink):
        def resource(self) -> str:
            return f"list {next(numbers)}"

    with pytest.raises(RuleBroken, match=r"^resource: "):
        check_sink(lambda: Changing(Memory(), AtLeastOnce), list, VALUES)


def test_rows_of_earlier_runs_are_left_out_if_the_place_is_not_cleared() -> None:
    memory = Memory()
    check_sink(lambda: MemorySink(memory, AtLeastOnce), lambda: memory.shown, VALUES)
