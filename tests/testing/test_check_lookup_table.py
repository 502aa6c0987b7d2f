"""`check_lookup_table` accepts a correct table and catches each of these wrong ones."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from streamkit.connectors import ConnectorEnv, LookupTable, RowFinder
from streamkit.errors import ConfigError
from streamkit.testing import RuleBroken, check_lookup_table

TEXTS: dict[int, str] = {number: f"{number}" for number in range(10)} | {99: "x"}
EXPECTED = {number: number for number in range(10)}


class Finder(RowFinder):
    """A correct finder of numbers, which are stored as texts."""

    keys_max = 4

    def __init__(self, texts: dict[int, str] | None) -> None:
        self.texts = texts
        self.is_open = False

    async def open(self) -> None:
        if self.texts is None:
            raise ConfigError("there is no table")
        self.is_open = True

    def encoded(self, key: Any) -> Hashable:
        if type(key) is not int:
            raise ValueError(f"{key!r} is not a number")
        return f"key-{key}"

    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        assert self.is_open
        assert self.texts is not None
        assert len(keys) <= self.keys_max
        await anyio.lowlevel.checkpoint()
        rows = {self.encoded(number): text for number, text in self.texts.items()}
        return {key: rows[key] for key in keys if key in rows}

    def decoded(self, row: Any) -> Any:
        return int(row)

    async def close(self) -> None:
        self.is_open = False


@dataclass(frozen=True, slots=True)
class Table(LookupTable):
    finder_class: type[Finder] = Finder
    exists: bool = True

    def finder(self, env: ConnectorEnv) -> RowFinder:
        return self.finder_class(TEXTS if self.exists else None)


def check(finder: type[Finder], **options: Any) -> None:
    check_lookup_table(
        lambda: Table(finder),
        EXPECTED,
        absent=[100, 101],
        refused=["1", None],
        poison=[99],
        unopenable=lambda: Table(finder, exists=False),
        **options,
    )


def test_a_correct_table_passes_every_rule() -> None:
    check(Finder)


class FindsNothingInBatches(Finder):
    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        return await super().find(keys[:1])


class ReturnsNoneForAbsentKeys(Finder):
    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        return {**dict.fromkeys(keys), **await super().find(keys)}


class ReturnsTheWholeTable(Finder):
    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        found = await super().find(keys)
        return {**found, "key-9": TEXTS[9]}


class MixesUpRows(Finder):
    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        found = await super().find(keys)
        return dict(zip(found, list(found.values())[::-1], strict=True))


class HasOtherKeysInBatches(Finder):
    def encoded_all(self, keys: Sequence[Any]) -> Sequence[Hashable]:
        return [f"key-{key}" if type(key) is int else hash(key) for key in reversed(keys)]


class HasEqualKeys(Finder):
    def encoded(self, key: Any) -> Hashable:
        return f"key-{int(key) // 2}"


class HasListsAsKeys(Finder):
    def encoded(self, key: Any) -> Hashable:
        return [key]  # type: ignore[return-value]


class AcceptsEveryKey(Finder):
    def encoded(self, key: Any) -> Hashable:
        return f"key-{key}"


class DecodesInFind(Finder):
    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        return {key: int(text) for key, text in (await super().find(keys)).items()}


class AcceptsEveryRow(Finder):
    def decoded(self, row: Any) -> Any:
        return int(row) if row.isdigit() else -1


class MixesUpResponses(Finder):
    """A response that nobody has waited for is that of the next call."""

    def __init__(self, texts: dict[int, str] | None) -> None:
        super().__init__(texts)
        self.responses: list[Mapping[Hashable, Any]] = []

    async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
        self.responses.append(await super().find(keys))
        await anyio.lowlevel.checkpoint()
        return self.responses.pop(0)


class CannotBeClosedTwice(Finder):
    async def close(self) -> None:
        if not self.is_open:
            raise ValueError("it is closed")
        self.is_open = False


class OpensAnyTable(Finder):
    async def open(self) -> None:
        self.is_open = True


class TakesNoKeys(Finder):
    keys_max = 0


@pytest.mark.parametrize(
    ("finder", "rule"),
    [
        (FindsNothingInBatches, "finds"),
        (ReturnsNoneForAbsentKeys, "finds"),
        (ReturnsTheWholeTable, "finds"),
        (MixesUpRows, "finds"),
        (HasOtherKeysInBatches, "keys"),
        (HasEqualKeys, "keys"),
        (HasListsAsKeys, "keys"),
        (AcceptsEveryKey, "refused"),
        (DecodesInFind, "decode"),
        (AcceptsEveryRow, "decode"),
        (MixesUpResponses, "cancel"),
        (CannotBeClosedTwice, "close"),
        (OpensAnyTable, "close"),
        (TakesNoKeys, "described"),
    ],
)
def test_a_wrong_table_breaks_a_rule(finder: type[Finder], rule: str) -> None:
    with pytest.raises(RuleBroken) as caught:
        check(finder)
    assert caught.value.rule == rule
    assert "hint: " in str(caught.value)


def test_a_table_that_blocks_the_loop_breaks_a_rule() -> None:
    class BlocksTheLoop(Finder):
        async def find(self, keys: Sequence[Hashable]) -> Mapping[Hashable, Any]:
            time.sleep(0.03)  # noqa: ASYNC251  # this is what it tests
            return await super().find(keys)

    with pytest.raises(RuleBroken) as caught:
        check(BlocksTheLoop, blocked_ms_max=15)
    assert caught.value.rule == "loop"


def test_other_rows_than_expected_are_reported() -> None:
    with pytest.raises(RuleBroken, match=r"^finds: the key 200 has no row, but must have 5"):
        check_lookup_table(Table, {**EXPECTED, 200: 5})
    with pytest.raises(RuleBroken, match=r"^finds: the row of the key 1 is 1, but must be 2"):
        check_lookup_table(Table, {0: 0, 1: 2})
