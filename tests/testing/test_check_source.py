"""`check_source` accepts a correct source and catches each of these wrong ones."""

from __future__ import annotations

import json
import time
from typing import Any

import anyio
import pytest

from streamkit.connectors import Chunk, ConnectorEnv, Positions, SourceFacts
from streamkit.testing import RuleBroken, check_source
from tests.testing.toy_source import ListReader, Lists

VALUES = list(range(20))
LISTS = (tuple(b"%d" % each for each in VALUES[:13]), tuple(b"%d" % each for each in VALUES[13:]))


def source(reader: type[ListReader] | None = None, lists: Any = LISTS) -> Lists:
    return Lists(lists, reader_class=reader)


def broken_rule(reader: type[ListReader], **options: Any) -> str:
    with pytest.raises(RuleBroken) as caught:
        check_source(lambda: source(reader), VALUES, kind=int, **options)
    assert "rule: " in str(caught.value)
    assert "hint: " in str(caught.value)
    return caught.value.rule


def test_a_correct_source_passes_every_rule() -> None:
    bad = ((LISTS[0][0], b"x", *LISTS[0][1:], b"{"), LISTS[1])
    check_source(
        source,
        VALUES,
        kind=int,
        poison=(lambda: source(lists=bad), 2),
        empty=lambda: source(lists=((),)),
        unopenable=lambda: source(lists=()),
        taken=lambda: 0,
    )


def test_a_source_that_skips_what_is_no_row_passes() -> None:
    check_source(lambda: source(SkipsNothing), VALUES, kind=int)


def test_other_values_than_expected_are_reported() -> None:
    with pytest.raises(RuleBroken, match=r"^reads: 1 of 21 are missing: \[20\]"):
        check_source(source, [*VALUES, 20], kind=int)
    with pytest.raises(RuleBroken, match=r"^reads: 1 too many: \[0\]"):
        check_source(source, VALUES[1:], kind=int)
    with pytest.raises(RuleBroken, match="in another order"):
        check_source(source, VALUES[::-1], kind=int)


class SkipsNothing(ListReader):
    """After the last row, its position is that of a row that does not exist."""

    def __init__(self, source: Lists, env: ConnectorEnv) -> None:
        super().__init__(source, env)
        self.processed = 0

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        key, position = super().position_after(chunk)
        if chunk.partition == 0:
            self.processed = int(position)
        return key, position

    def skipped_positions(self) -> Positions:
        return {"0": "1000"} if self.processed == len(LISTS[0]) else {}


class LosesARow(ListReader):
    async def open(self, committed: Positions) -> SourceFacts:
        facts = await super().open(committed)
        if committed and self.next_item[0] > 0:
            self.next_item[0] += 1
        return facts


class RepeatsARow(ListReader):
    async def open(self, committed: Positions) -> SourceFacts:
        facts = await super().open(committed)
        self.next_item[0] = max(0, self.next_item[0] - 1)
        return facts


class CommitsWhatItHasRead(ListReader):
    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return str(chunk.partition), json.dumps(self.next_item[chunk.partition])


class CommitsOneTooFar(ListReader):
    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return str(chunk.partition), json.dumps(chunk.offsets[-1] + 2)


class SkipsRowsOfOthers(ListReader):
    def skipped_positions(self) -> Positions:
        return {str(number): json.dumps(item) for number, item in enumerate(self.next_item)}


class SkipsBeforeTheLastRow(ListReader):
    def skipped_positions(self) -> Positions:
        return {"0": "1"}


class SkipsToWhatIsNoText(ListReader):
    def skipped_positions(self) -> Any:
        return {"0": 1}


class ForgetsTheOtherPartitions(ListReader):
    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return "0", json.dumps(chunk.offsets[-1] + 1)


class HasMutablePositions(ListReader):
    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return str(chunk.partition), self.next_item  # type: ignore[return-value]


class HasNumbersAsPositions(ListReader):
    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return str(chunk.partition), chunk.offsets[-1] + 1  # type: ignore[return-value]


class HasTextThatIsNotUtf8(ListReader):
    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        return str(chunk.partition), "\udc80"


class LosesRowsIfCancelled(ListReader):
    async def part(self, number: int) -> Chunk | None:
        chunk = await super().part(number)
        await anyio.lowlevel.checkpoint()
        return chunk


class KeepsPositionsInItself(ListReader):
    """Keeps them in a file of its own, so the commit does not count."""

    async def open(self, committed: Positions) -> SourceFacts:
        facts = await super().open(committed)
        path = self.env.folder / "read.json"
        if path.exists():
            self.next_item = json.loads(path.read_text())
        return facts

    async def next(self) -> Chunk | None:
        chunk = await super().next()
        self.env.folder.mkdir(parents=True, exist_ok=True)
        (self.env.folder / "read.json").write_text(json.dumps(self.next_item))
        return chunk


class BlocksTheLoop(ListReader):
    async def next(self) -> Chunk | None:
        if self.turn == 0:
            time.sleep(0.03)  # noqa: ASYNC251  # this is what must be found
        return await super().next()


class DropsRowsAtAStop(ListReader):
    def stop(self) -> bool:
        self.next_item[0] += 1
        return True


class ReturnsTooManyRows(ListReader):
    async def part(self, number: int) -> Chunk | None:
        chunk = await super().part(number)
        if chunk is None:
            return None
        values = [b"0"] * 5000
        return Chunk(values, [None] * 5000, [0] * 5000, range(5000), "list", number)


class HasOffsetsThatFall(ListReader):
    async def part(self, number: int) -> Chunk | None:
        chunk = await super().part(number)
        if chunk is None:
            return None
        offsets = list(chunk.offsets)[::-1]
        return Chunk(chunk.values, chunk.keys, chunk.timestamps_ms, offsets, "list", number)


class HasShortColumns(ListReader):
    async def part(self, number: int) -> Chunk | None:
        chunk = await super().part(number)
        if chunk is None:
            return None
        return Chunk(chunk.values, [], chunk.timestamps_ms, chunk.offsets, "list", number)


class CannotBeClosedTwice(ListReader):
    async def close(self) -> None:
        if not self.is_open:
            raise ValueError("it is closed")
        self.is_open = False


class CannotBeClosedBeforeOpen(ListReader):
    async def close(self) -> None:
        del self.next_item[0]
        self.next_item.append(0)


class RaisesOtherErrors(ListReader):
    async def next(self) -> Chunk | None:
        raise OSError("the disk is away")


@pytest.mark.parametrize(
    ("reader", "rule"),
    [
        (LosesARow, "resume"),
        (RepeatsARow, "resume"),
        (CommitsWhatItHasRead, "resume"),
        (CommitsOneTooFar, "resume"),
        (ForgetsTheOtherPartitions, "resume"),
        (SkipsRowsOfOthers, "resume"),
        (SkipsBeforeTheLastRow, "resume"),
        (SkipsToWhatIsNoText, "positions"),
        (HasMutablePositions, "positions"),
        (HasNumbersAsPositions, "positions"),
        (HasTextThatIsNotUtf8, "positions"),
        (LosesRowsIfCancelled, "cancel"),
        (KeepsPositionsInItself, "crash"),
        (DropsRowsAtAStop, "stop"),
        (ReturnsTooManyRows, "chunks"),
        (HasOffsetsThatFall, "chunks"),
        (HasShortColumns, "chunks"),
        (CannotBeClosedTwice, "close"),
        (CannotBeClosedBeforeOpen, "close"),
        (RaisesOtherErrors, "reads"),
    ],
)
def test_a_wrong_source_breaks_a_rule(reader: type[ListReader], rule: str) -> None:
    if rule == "close":
        with pytest.raises(RuleBroken, match=r"close\(\) raised"):
            check_source(lambda: source(reader), VALUES, kind=int)
    else:
        assert broken_rule(reader) == rule


def test_a_source_that_blocks_the_loop_breaks_a_rule() -> None:
    assert broken_rule(BlocksTheLoop, blocked_ms_max=15) == "loop"


def test_a_source_that_reads_without_limit_breaks_a_rule() -> None:
    class ReadsAhead(ListReader):
        taken = 0

        async def open(self, committed: Positions) -> SourceFacts:
            ReadsAhead.taken += 1_000
            return await super().open(committed)

    options = {"taken": lambda: ReadsAhead.taken, "ahead_rows_max": 100}
    assert broken_rule(ReadsAhead, **options) == "back-pressure"


def test_a_count_of_bad_rows_that_is_wrong_breaks_a_rule() -> None:
    bad = ((*LISTS[0], b"x"), LISTS[1])
    assert broken_rule(ListReader, poison=(lambda: source(lists=bad), 2)) == "decode"


def test_bad_rows_with_the_same_place_break_a_rule() -> None:
    class SamePlace(Lists):
        def place(self, topic: str, partition: int, offset: int) -> str:
            return "somewhere"

    bad = ((*LISTS[0], b"x", b"y"), LISTS[1])
    with pytest.raises(RuleBroken, match="bad rows have the same place"):
        check_source(source, VALUES, kind=int, poison=(lambda: SamePlace(bad), 2))


def test_an_empty_place_with_rows_breaks_a_rule() -> None:
    assert broken_rule(ListReader, empty=source) == "empty"


def test_a_source_that_opens_what_is_missing_breaks_a_rule() -> None:
    assert broken_rule(ListReader, unopenable=source) == "close"


def test_it_can_be_called_while_a_loop_runs() -> None:
    async def main() -> None:
        check_source(source, VALUES, kind=int)

    anyio.run(main)
