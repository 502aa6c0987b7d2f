"""The work of `streamkit dlq show`."""

from __future__ import annotations

from pathlib import Path

from streamkit.cli.dlq_output import DONE, WAITING, page, without_c1
from streamkit.cli.dlq_positions import load_positions
from streamkit.cli.dlq_reading import Place, TopicLetters, is_file, read_file
from streamkit.cli.output import check_output, print_line
from streamkit.cli.session import run_with_client
from streamkit.dataflow.dead_letters import Letter, decode_letter
from streamkit.errors import DataError, UsageError
from streamkit.record import Chunk

_NOT_FROM_FILES = "no, only topics are replayed: write the file to a topic with `streamkit produce`"
_NOT_READABLE = "no, the value is of a type that cannot be written and read back: it is only shown"
_IS_DONE = "no, it has been replayed or dropped"


def run(source: str, place: str, form: str) -> None:
    """Print one letter.

    Raises:
        UsageError: There is no record at the place.
        DataError: The record is not a letter.
    """
    check_output()
    at = Place.parse(place)
    if is_file(source):
        data = _line_of(source, at)
        letter = _decoded(data, source, str(at.offset))
        _print(data, page(str(at.offset), letter, WAITING, _NOT_FROM_FILES), form)
    else:
        run_with_client(lambda session: _show(TopicLetters(session, source), at, form))


async def _show(letters: TopicLetters, at: Place, form: str) -> None:
    number = at.partition_of(letters.topic, await letters.partitions())
    record = await letters.record_at(number, at.offset)
    if record is None:
        raise await _no_offset(letters, number, at.offset)
    data: bytes = record.values[0]
    place = f"{number}:{at.offset}"
    letter = _decoded(data, letters.topic, place)
    done = await load_positions(letters, letter.app)
    state = DONE if done.is_done(letter.app, number, at.offset) else WAITING
    _print(data, page(place, letter, state, _replay_text(letter, state)), form)


def _print(data: bytes, text: str, form: str) -> None:
    print_line(without_c1(data) if form == "json" else text)


def _replay_text(letter: Letter, state: str) -> str:
    if not letter.is_replayable:
        return _NOT_READABLE
    return _IS_DONE if state == DONE else "yes"


def _decoded(data: bytes, source: str, place: str) -> Letter:
    try:
        return decode_letter(data)
    except DataError as error:
        hint = f"`streamkit consume {source}` shows records of every kind"
        raise DataError(f"{source} {place}: {error}", hint=hint) from None


def _line_of(source: str, at: Place) -> bytes:
    if at.partition is not None or at.offset == 0:
        raise UsageError("in a file, the place is the number of the line, from 1")
    found: list[bytes] = []

    def take(chunk: Chunk) -> bool:
        if at.offset > chunk.offsets[-1]:
            return True
        found.append(chunk.values[at.offset - chunk.offsets[0]])
        return False

    read_file(Path(source), take)
    if not found:
        raise UsageError(f"{source} has no line {at.offset}")
    return found[0]


async def _no_offset(letters: TopicLetters, number: int, offset: int) -> UsageError:
    first, end = await letters.bounds(number)
    has = f"it has {first} to {end - 1}" if end > first else "it is empty"
    return UsageError(f"partition {number} of {letters.topic!r} has no offset {offset}: {has}")
