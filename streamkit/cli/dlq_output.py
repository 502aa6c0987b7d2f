"""How `streamkit dlq` prints dead letters. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from streamkit.cli.formats import hex_dump, is_text, time_text
from streamkit.cli.listing import Row
from streamkit.cli.tables import NOT_JSON
from streamkit.dataflow.dead_letters import Letter
from streamkit.runtime.failures import printable

# The states of a letter.
WAITING: Final = "waiting"
DONE: Final = "done"

NAME_CHARACTERS_MAX: Final = 63
_KEY_CHARACTERS_MAX: Final = 24
_ERROR_CHARACTERS_MAX: Final = 60


def table_row(place: str, letter: Letter, state: str) -> Row:
    """Return the cells of a letter in a table, with long texts cut."""
    return {
        "place": place,
        "state": state,
        "failed_at": time_text(letter.failed_at_ms),
        "app": cut(letter.app, NAME_CHARACTERS_MAX),
        "stage": cut(letter.stage, NAME_CHARACTERS_MAX),
        "key": cut(_key_text(letter), _KEY_CHARACTERS_MAX),
        "attempts": letter.attempts,
        "error_type": cut(letter.error_type, NAME_CHARACTERS_MAX),
        "error": cut(_message(letter), _ERROR_CHARACTERS_MAX),
    }


def full_row(place: str, letter: Letter, state: str) -> Row:
    """Return what a list for programs has of a letter: all but its value and the stack."""
    return {
        "place": place,
        "state": state,
        "failed_at": time_text(letter.failed_at_ms),
        "app": letter.app,
        "version": letter.version,
        "stage": letter.stage,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": letter.key,
        "key_base64": letter.key_base64,
        "attempts": letter.attempts,
        "error_type": letter.error_type,
        "error": letter.error,
        "is_replayable": letter.is_replayable,
    }


def page(place: str, letter: Letter, state: str, replay: str) -> str:
    """Return everything about a letter, as text for people.

    Args:
        place: Where the letter is.
        letter: The letter.
        state: WAITING or DONE.
        replay: Whether it can be replayed, and why not.
    """
    version = f" (version {letter.version})" if letter.version else ""
    facts = {
        "place": place,
        "state": state,
        "can be replayed": replay,
        "failed at": time_text(letter.failed_at_ms) or "-",
        "app": f"{letter.app}{version}",
        "stage": letter.stage,
        "attempts": str(letter.attempts),
        "error": letter.error or letter.error_type,
        "record": _origin(letter),
        "record time": time_text(letter.timestamp_ms) or "-",
        "key": "-" if letter.key_bytes is None else _key_text(letter),
    }
    width = max(map(len, facts)) + 2
    indent = "\n" + " " * width
    lines = [
        f"{name + ':':<{width}}{safe(text)}".replace("\n", indent) for name, text in facts.items()
    ]
    lines += ["value:", _indented(_value_text(letter))]
    if letter.stack:
        lines += ["stack:", _indented(letter.stack)]
    return "\n".join(lines)


def safe(text: str) -> str:
    """Return a text without characters that change what a terminal shows."""
    return printable(text, len(text))


def cut(text: str, characters_max: int) -> str:
    """Return a text up to a length, with an ellipsis if it is longer, safe for a terminal."""
    return safe(text if len(text) <= characters_max else f"{text[: characters_max - 3]}...")


def without_c1(data: bytes) -> str:
    """Return JSON with escapes for the control characters that JSON does not have to escape."""
    return data.decode().translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)})


def _origin(letter: Letter) -> str:
    if not letter.topic:
        return f"number {letter.offset} of a source without a topic"
    return f"{letter.topic}-{letter.partition} offset {letter.offset}"


def _key_text(letter: Letter) -> str:
    if letter.key_base64 is not None:
        return f"base64:{letter.key_base64}"
    return letter.key or ""


def _message(letter: Letter) -> str:
    """Return the text of the error without its type, which has a column of its own."""
    return letter.error.removeprefix(f"{letter.error_type}: ")


def _value_text(letter: Letter) -> str:
    value = letter.value_bytes
    if not value:
        return "(empty)"
    if not is_text(value):
        return hex_dump(value).decode()
    try:
        return msgspec.json.format(value, indent=2).decode()
    except NOT_JSON:
        return value.decode()


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in safe(text).splitlines())
