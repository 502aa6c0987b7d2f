"""The work of `streamkit dlq list` and `count`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from streamkit.cli.dlq_output import (
    DONE,
    NAME_CHARACTERS_MAX,
    WAITING,
    cut,
    full_row,
    table_row,
)
from streamkit.cli.dlq_positions import DonePositions, load_positions
from streamkit.cli.dlq_reading import TopicLetters, is_file, letters_of, read_file
from streamkit.cli.listing import ListWriter, Row
from streamkit.cli.output import check_output, print_line
from streamkit.cli.session import Session, note, run_with_client
from streamkit.dataflow.dead_letters import Letter
from streamkit.record import Chunk

_PLACES_MAX: Final = 3
_KEY_OF: Final[dict[str, Callable[[Letter], str]]] = {
    "stage": lambda letter: letter.stage,
    "error": lambda letter: letter.error_type,
    "app": lambda letter: letter.app,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are wanted."""

    app: str | None = None
    stage: str | None = None
    error_type: str | None = None
    with_done: bool = False

    def has(self, letter: Letter) -> bool:
        """Return whether a letter is wanted, if it is waiting."""
        return (
            self.app in (None, letter.app)
            and self.stage in (None, letter.stage)
            and self.error_type in (None, letter.error_type)
        )


class LetterStates:
    """The place and the state of the letters of a topic, or of a file, where all are waiting."""

    def __init__(self, done: DonePositions | None = None) -> None:
        self._done = done

    def place(self, partition: int, offset: int) -> str:
        """Return a place as the user types it."""
        return str(offset) if self._done is None else f"{partition}:{offset}"

    def of(self, letter: Letter, partition: int, offset: int) -> str:
        """Return WAITING or DONE."""
        is_done = self._done is not None and self._done.is_done(letter.app, partition, offset)
        return DONE if is_done else WAITING


class Report(Protocol):
    """Gets every wanted letter, and prints."""

    def begin(self, source: LetterStates) -> None:
        """Learn the states of the letters, before the first chunk."""

    def take(self, chunk: Chunk) -> bool:
        """Read a chunk; return whether more are wanted."""

    def end(self) -> None:
        """Print what belongs after the last letter."""


def read(source: str, selection: Selection, report: Report) -> None:
    """Read a topic or a file up to its current end, and print a report."""
    check_output()
    if is_file(source):
        report.begin(LetterStates())
        read_file(Path(source), report.take)
        report.end()
        return

    async def work(session: Session) -> None:
        letters = TopicLetters(session, source)
        partitions = await letters.partitions()
        done = await load_positions(letters, selection.app)
        report.begin(LetterStates(done))
        # Without the done letters of a single app, the reading can start after them.
        starts = {}
        if selection.app is not None and not selection.with_done:
            starts = dict(done.of(selection.app).next_offsets)
        for number in range(partitions):
            if not await letters.read(number, starts.get(number, 0), report.take):
                break
        report.end()

    run_with_client(work)


class Found:
    """Goes through records: which are wanted letters, how many are done or are not letters."""

    def __init__(self, source: str, selection: Selection) -> None:
        self.source = source
        self.states = LetterStates()
        self.done = 0
        self._selection = selection
        self._others = 0
        self._other_places: list[str] = []

    def wanted(self, chunk: Chunk) -> list[tuple[str, Letter, str]]:
        """Return place, letter and state of each wanted letter."""
        number, found = chunk.partition, []
        for offset, letter in zip(chunk.offsets, letters_of(chunk), strict=True):
            if letter is None:
                self._note_other(self.states.place(number, offset))
            elif self._selection.has(letter):
                state = self.states.of(letter, number, offset)
                self.done += state == DONE
                if state == WAITING or self._selection.with_done:
                    found.append((self.states.place(number, offset), letter, state))
        return found

    def empty_text(self) -> str:
        """Return what is said if no letter is wanted."""
        is_filtered = self._selection != Selection(with_done=self._selection.with_done)
        what = "no matching dead letters" if is_filtered else "no dead letters"
        if self._selection.with_done:
            return f"{what} in {self.source}"
        done = f"; done: {self.done}, --all lists them" if self.done else ""
        return f"{what} are waiting in {self.source}{done}"

    @property
    def others(self) -> int:
        """How many records are not letters."""
        return self._others

    def note_others(self) -> None:
        """Say on standard error which records are not letters."""
        if self._others:
            places = ", ".join(self._other_places)
            more = ", ..." if self._others > len(self._other_places) else ""
            what = "records are not dead letters"
            if self._others == 1:
                what = "record is not a dead letter"
            note(f"{self._others} {what}: {places}{more}")

    def _note_other(self, place: str) -> None:
        self._others += 1
        if len(self._other_places) < _PLACES_MAX:
            self._other_places.append(place)


class Listing:
    """Prints a row for each letter."""

    def __init__(self, source: str, selection: Selection, form: str, count: int | None) -> None:
        self._found = Found(source, selection)
        self._row = table_row if form == "table" else full_row
        self._left = count
        columns = ["place", "state", "failed_at", "app", "stage", "key", "attempts"]
        columns += ["error_type", "error"]
        if not selection.with_done:
            columns.remove("state")
        self._out = ListWriter("letters", form, columns)

    def begin(self, states: LetterStates) -> None:
        self._found.states = states

    def take(self, chunk: Chunk) -> bool:
        wanted = self._found.wanted(chunk)[: self._left]
        rows: Sequence[Row] = [self._row(*each) for each in wanted]
        self._out.write(rows)
        if self._left is not None:
            self._left -= len(rows)
        return self._left != 0

    def end(self) -> None:
        self._out.end(self._found.empty_text())
        self._found.note_others()


class Counting:
    """Prints how many letters there are."""

    def __init__(self, source: str, selection: Selection, form: str, by: str | None) -> None:
        self._found = Found(source, selection)
        self._with_done = selection.with_done
        self._form = form
        self._by = by
        self._count = 0
        self._counts: Counter[str] = Counter()

    def begin(self, states: LetterStates) -> None:
        self._found.states = states

    def take(self, chunk: Chunk) -> bool:
        wanted = self._found.wanted(chunk)
        self._count += len(wanted)
        if self._by is not None:
            key_of = _KEY_OF[self._by]
            self._counts.update(key_of(letter) for _, letter, _ in wanted)
        return True

    def end(self) -> None:
        if self._form == "json":
            found = {"count": self._count, "done": self._found.done, "others": self._found.others}
            print_line(json.dumps({**found, "by": dict(self._counts)} if self._by else found))
            return
        noun = "dead letter" if self._count == 1 else "dead letters"
        what = noun if self._with_done else f"{noun} waiting"
        print_line(f"{self._count} {what} in {self._found.source}")
        for name, count in self._counts.most_common():
            print_line(f"{count:>{len(str(self._count))}} {cut(name, NAME_CHARACTERS_MAX)}")
        self._found.note_others()
