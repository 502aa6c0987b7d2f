"""The rules of tables that are looked up: which rows are found, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio

from streamkit.dataflow.contracts import ConnectorEnv
from streamkit.dataflow.lookup_tables import LookupTable, RowFinder
from streamkit.env import SystemClock
from streamkit.record import Kind
from streamkit.testing.conformance.loop_delay import require_free_loop
from streamkit.testing.conformance.rules import (
    FIND_CANCEL,
    FIND_CLOSE,
    FIND_DECODE,
    FIND_LOOP,
    FINDS,
    KEYS,
    REFUSED,
    TABLE_DESCRIBED,
    Rule,
    check_failed_open,
    listed,
)

_CANCEL_TURNS: Final = (0, 1, 2, 3, 5, 8)
_CANCEL_PAUSES: Final = 4
_CANCEL_S_MAX: Final = 0.004
_MIXED_CALLS: Final = 20


@dataclass(frozen=True, slots=True)
class LookupCase:
    """The table to check: how it is made, the type of its rows, and what is in it."""

    make: Callable[[], LookupTable]
    kind: Kind
    expected: Mapping[Any, Any]
    absent: Sequence[Any]
    random: Random
    folder: Path
    _numbers: Any = field(default_factory=count)

    def finder(self, table: LookupTable) -> RowFinder:
        """Create the finder of a new run."""
        folder = self.folder / str(next(self._numbers))
        env = ConnectorEnv("check", "check", folder, SystemClock(), kind=self.kind)
        return table.finder(env)

    @asynccontextmanager
    async def opened(self, rule: Rule) -> AsyncIterator[RowFinder]:
        """Open a finder, and close it at the end of the block."""
        table = self.make()
        table.check(self.kind)
        finder = self.finder(table)
        try:
            with rule.during("open()"):
                await finder.open()
            yield finder
        finally:
            with rule.during("close()"):
                await finder.close()


async def check_described(case: LookupCase) -> None:
    """Check the text for the table, and the number of keys of a call."""
    table = case.make()
    TABLE_DESCRIBED.require(str(table), "str() of the table is empty")
    TABLE_DESCRIBED.require(str(table) == str(case.make()), "two equal tables have different texts")
    keys_max = case.finder(table).keys_max
    is_number = type(keys_max) is int and keys_max >= 1
    TABLE_DESCRIBED.require(is_number, f"keys_max is {keys_max!r}")


async def check_finds(case: LookupCase) -> None:
    """Find each key alone, and all keys in random parts, among keys without a row."""
    keys = [*case.expected, *case.absent]
    async with case.opened(FINDS) as finder:
        _encoded(finder, keys)
        for key in keys:
            await _check_find(case, finder, [key])
        for _ in range(_MIXED_CALLS):
            size = case.random.randint(1, min(len(keys), finder.keys_max))
            await _check_find(case, finder, case.random.sample(keys, size))
        most = case.random.sample(keys, min(len(keys), finder.keys_max))
        await _check_find(case, finder, most)


async def _check_find(
    case: LookupCase, finder: RowFinder, keys: Sequence[Any], rule: Rule = FINDS
) -> None:
    encoded = _encoded(finder, keys)
    with rule.during("find()"):
        found = await finder.find(list(encoded))
    foreign = [key for key in found if key not in set(encoded)]
    rule.require(not foreign, f"find() returned rows of keys that it was not given: {foreign}")
    for key, text in zip(keys, encoded, strict=True):
        wanted = case.expected.get(key)
        if text not in found:
            rule.require(wanted is None, f"the key {key!r} has no row, but must have {wanted!r}")
            continue
        with rule.during("decoded()"):
            row = finder.decoded(found[text])
        rule.require(
            key in case.expected and row == wanted,
            f"the row of the key {key!r} is {row!r}, but must be {wanted!r}",
        )


def _encoded(finder: RowFinder, keys: Sequence[Any]) -> list[Hashable]:
    """Return the keys for find; all at once and each alone must be the same."""
    with KEYS.during("encoded() or encoded_all()"):
        alone = [finder.encoded(key) for key in keys]
        together = list(finder.encoded_all(keys))
        again = [finder.encoded(key) for key in keys]
        for each in (alone, together, again):
            hash(tuple(each))
    KEYS.require(alone == together, f"alone {listed(alone)}, together {listed(together)}")
    KEYS.require(alone == again, f"first {listed(alone)}, then {listed(again)}")
    KEYS.require(
        len(set(alone)) == len(set(keys)), f"different keys are equal once encoded: {listed(alone)}"
    )
    return alone


async def check_refused(case: LookupCase, refused: Sequence[Any]) -> None:
    """Check that each of these keys is refused, alone and among others."""
    async with case.opened(REFUSED) as finder:
        for key in refused:
            with _must_raise(REFUSED, f"encoded({key!r})"):
                hash(finder.encoded(key))
            with _must_raise(REFUSED, f"encoded_all() with {key!r}"):
                hash(tuple(finder.encoded_all([*case.expected, key])))
        await _check_find(case, finder, list(case.expected)[: finder.keys_max])


async def check_decode(case: LookupCase, poison: Sequence[Any]) -> None:
    """Check that rows that are not of the type are found, and refused when they are decoded."""
    async with case.opened(FIND_DECODE) as finder:
        for key in poison:
            encoded = finder.encoded(key)
            with FIND_DECODE.during("find()"):
                found = await finder.find([encoded])
            FIND_DECODE.require(encoded in found, f"find() returned no row for the key {key!r}")
            with _must_raise(FIND_DECODE, f"decoded() of the row of {key!r}"):
                finder.decoded(found[encoded])
        await _check_find(case, finder, list(case.expected)[: finder.keys_max])


@contextmanager
def _must_raise(rule: Rule, what: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        return
    rule.require(False, f"{what} did not raise")


async def check_cancel(case: LookupCase) -> None:
    """Cancel calls of find; a later call must find its own rows."""
    keys = list(case.expected)
    async with case.opened(FIND_CANCEL) as finder:
        for turns in (*_CANCEL_TURNS, *[None] * _CANCEL_PAUSES):
            await _cancelled_find(case, finder, _encoded(finder, keys[:1]), turns)
            await _check_find(case, finder, keys[-1:], FIND_CANCEL)


async def _cancelled_find(
    case: LookupCase, finder: RowFinder, keys: Sequence[Hashable], turns: int | None
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finder.find, keys)
        if turns is None:  # a thread may be at work
            await anyio.sleep(case.random.random() * _CANCEL_S_MAX)
        else:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def check_close(case: LookupCase, unopenable: Callable[[], LookupTable] | None) -> None:
    """Close finders in every state, each of them twice."""
    never_opened = case.finder(case.make())
    with FIND_CLOSE.during("close() before open()"):
        await never_opened.close()
        await never_opened.close()
    async with case.opened(FIND_CLOSE) as finder:
        with FIND_CLOSE.during("close()"):
            await finder.close()
    if unopenable is None:
        return
    table = unopenable()
    finder = case.finder(table)
    await check_failed_open(FIND_CLOSE, table, finder, finder.open())


async def check_loop(case: LookupCase, blocked_ms_max: int) -> None:
    """Find rows while another task measures for how long it cannot run."""

    async def find() -> None:
        async with case.opened(FIND_LOOP) as finder:
            await finder.find(_encoded(finder, list(case.expected)[: finder.keys_max]))

    await require_free_loop(FIND_LOOP, lambda: find, blocked_ms_max)
