"""The rules of the contract of connectors that can be checked, and the error if one is broken."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio

from streamkit.errors import StreamKitError, shown

# A connector that needs longer for one call is taken to hang.
CALL_S_MAX: Final = 10.0
_SHOWN_ITEMS: Final = 6


class RuleBroken(AssertionError):
    """A connector breaks a rule of its contract; ``rule`` is the name of the rule."""

    def __init__(self, rule: Rule, what: str) -> None:
        super().__init__(f"{rule.name}: {what}\n  rule: {rule.text}\n  hint: {rule.hint}")
        self.rule = rule.name


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name, what it demands, and what to do if a connector breaks it."""

    name: str
    text: str
    hint: str

    def require(self, holds: object, what: str) -> None:
        """Raise `RuleBroken` with ``what`` has happened, unless the rule holds."""
        if not holds:
            raise RuleBroken(self, what)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Do something with the connector; an error or a hanging call breaks the rule."""
        try:
            with anyio.fail_after(CALL_S_MAX):
                yield
        except RuleBroken:
            raise
        except TimeoutError as error:
            raise RuleBroken(self, f"{what} did not return within {CALL_S_MAX:g} s") from error
        except Exception as error:
            raise RuleBroken(self, f"{what} raised {type(error).__name__}: {error}") from error


class Closable(Protocol):
    """A reader, writer or finder."""

    async def close(self) -> None: ...


async def check_failed_open(
    rule: Rule, what: object, opened: Closable, opening: Awaitable[object]
) -> None:
    """Check that something cannot be opened, and can be closed twice afterwards."""
    error: BaseException | None = None
    try:
        await opening
    except StreamKitError as found:
        error = found
    except Exception as found:
        rule.require(False, f"open() failed with {found!r}, which is not a StreamKitError")
    rule.require(error, f"open() of {what!r} must fail, but did not")
    with rule.during("close() after a failed open()"):
        await opened.close()
        await opened.close()


def listed(values: list[Any]) -> str:
    """Return a short text for values in an error."""
    texts = [shown(each) for each in values[:_SHOWN_ITEMS]]
    more = len(values) - len(texts)
    return f"[{', '.join(texts)}{f', and {more} more' if more > 0 else ''}]"


def without(values: list[Any], others: list[Any]) -> list[Any]:
    """Return the values that are left once each of ``others`` has removed one that is equal."""
    left = list(values)
    for each in others:
        try:
            left.remove(each)
        except ValueError:
            pass  # it is not there, so it removes nothing
    return left


SOURCE_RULES: Final = (
    DESCRIBED := Rule(
        "described",
        "name has only a-z, 0-9 and -, reader() opens nothing, and open() describes the source",
        "make the source a frozen dataclass, and connect in open()",
    ),
    READS := Rule(
        "reads",
        "a run without positions reads every row, in the order of its partition, then ends",
        "return None from next() only after the last row; with until_end, do not wait for more",
    ),
    CHUNKS := Rule(
        "chunks",
        "a chunk has 1 to 4,096 rows and about 1 MiB, columns of equal length, rising offsets",
        "cut what the place returns into several chunks; offsets rise from row to row",
    ),
    POSITIONS := Rule(
        "positions",
        "keys and positions are plain text that can be stored as UTF-8",
        "return str from position_after(), for example JSON; never an object that may change",
    ),
    RESUME := Rule(
        "resume",
        "with the position of a row, open() continues with the next row, also within a chunk",
        "compute the position from the last row of the given chunk, not from what was read",
    ),
    CRASH := Rule(
        "crash",
        "a run after a crash begins at the committed positions, however far the last one has read",
        "keep no position anywhere except in what position_after() returns",
    ),
    CANCEL := Rule(
        "cancel",
        "a cancelled next() neither loses nor doubles rows of later calls",
        "keep what a cancelled call has fetched, and let the next call return it",
    ),
    STOP := Rule(
        "stop",
        "after stop(), nothing is lost: next() returns what was read, or the next run reads it",
        "return True from stop() only if next() then returns the rest and None",
    ),
    CLOSE := Rule(
        "close",
        "close() works before and after open(), after a failed open(), twice, and during next()",
        "let close() do nothing if there is nothing to close, and never wait for data",
    ),
    EMPTY := Rule(
        "empty",
        "an empty place has no rows, and can be opened again with its positions",
        "return None from next() without a chunk; a chunk never has 0 rows",
    ),
    DECODE := Rule(
        "decode",
        "a row that cannot be decoded fails alone, and its error names its place",
        "raise in Decoder.one for that row only; let place() name the file and line, or similar",
    ),
    BACK_PRESSURE := Rule(
        "back-pressure",
        "without calls of next(), a reader takes only a bounded number of rows from the place",
        "read ahead into a queue with a limit, or only in next()",
    ),
    LOOP := Rule(
        "loop",
        "open() and next() do not block the event loop",
        "call blocking libraries in a thread, and decode large data there, too",
    ),
)

SINK_RULES: Final = (
    SINK_DESCRIBED := Rule(
        "described",
        "writer() opens nothing, and an opened writer has a description",
        "make the sink a frozen dataclass, and connect in open()",
    ),
    RESOURCE := Rule(
        "resource",
        "resource() is the same text for equal sinks, or None",
        "derive it from the address of the place, not from the object",
    ),
    WRITES := Rule(
        "writes",
        "after the last commit, everything that was written is visible, once and unchanged",
        "write or flush what is buffered in wait(), and show it at the latest in publish()",
    ),
    UNACKNOWLEDGED := Rule(
        "unacknowledged",
        "unacknowledged is 0 once wait() has returned and nothing else was written",
        "count rows in write(), and subtract them when the place has confirmed them",
    ),
    SINK_POSITIONS := Rule(
        "positions",
        "keys and positions are plain text that can be stored as UTF-8",
        "return str in Prepared.positions, for example JSON",
    ),
    LOST := Rule(
        "lost",
        "after a crash at any step, no row is missing that the commit before it contains",
        "return from wait() only when everything written before prepare_commit() is safe",
    ),
    DOUBLED := Rule(
        "doubled",
        "with exactly_once=True, no row is visible twice after a crash at any step",
        "show rows only in publish(); in open(), remove rows after the committed position",
    ),
    OVERLAP := Rule(
        "overlap",
        "rows written while wait() runs belong to the next commit",
        "decide in prepare_commit() what belongs to the commit, not in wait() or publish()",
    ),
    SINK_EMPTY := Rule(
        "empty",
        "commits without rows succeed, also two in a row and directly after open()",
        "return a Prepared with a wait() that returns at once if nothing was written",
    ),
    POISON := Rule(
        "poison",
        "a row that can never be written is refused before any row is written",
        "raise RowFailed(row, chunk.slice(0, row)) in on_chunk(), or in the encoder",
    ),
    SINK_CLOSE := Rule(
        "close",
        "close() works before and after open(), after a failed open(), and twice",
        "let close() do nothing if there is nothing to close",
    ),
    SINK_LOOP := Rule(
        "loop",
        "open(), write() and wait() do not block the event loop",
        "call blocking libraries in a thread",
    ),
)

LOOKUP_RULES: Final = (
    TABLE_DESCRIBED := Rule(
        "described",
        "finder() opens nothing, str() of equal tables is the same text, keys_max is at least 1",
        "make the table a frozen dataclass, and connect in open()",
    ),
    KEYS := Rule(
        "keys",
        "encoded() and encoded_all() give the same keys, which can be hashed, for the same keys",
        "derive the key only from what is given, and let different keys stay different",
    ),
    FINDS := Rule(
        "finds",
        "find() returns the row of each given key that has one, and no other rows",
        "use the keys as they were given in the result; leave out what was not found",
    ),
    REFUSED := Rule(
        "refused",
        "a key that cannot be one of the table is refused alone, before find()",
        "raise ValueError in encoded()",
    ),
    FIND_DECODE := Rule(
        "decode",
        "a row that is not of the type is found, and fails alone",
        "raise in decoded(), not in find()",
    ),
    FIND_CANCEL := Rule(
        "cancel",
        "after a cancelled find(), later calls return their own rows",
        "do not let a response that nobody waits for reach the next call",
    ),
    FIND_CLOSE := Rule(
        "close",
        "close() works before and after open(), after a failed open(), and twice",
        "let close() do nothing if there is nothing to close",
    ),
    FIND_LOOP := Rule(
        "loop",
        "open() and find() do not block the event loop",
        "call blocking libraries in a thread",
    ),
)
