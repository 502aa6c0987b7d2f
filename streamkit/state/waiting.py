"""Records that wait for others: by key to find them, and by time to end their waiting.

| event | what happens |
|---|---|
| a record is added, marked or removed | the change is remembered |
| the slice is complete | the records that changed are stored with the next commit |
| the slice is undone | the changes are taken back in reverse order |
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort_right
from collections.abc import Iterable
from functools import partial
from operator import attrgetter
from struct import Struct
from typing import Any, Final

import msgspec

from streamkit.state.change_log import MISSING, ChangeLog, StateChange, StateFormat, StateRow

_order_of: Final = attrgetter("time_ms", "id")
_ID: Final = Struct(">Q")
_encode_entry = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(tuple[bytes, int, bool, msgspec.Raw]).decode


class Waiting:
    """One record that waits. ``is_matched``: it has found another record."""

    __slots__ = ("id", "is_matched", "key", "time_ms", "value")

    def __init__(self, id: int, key: bytes, time_ms: int, value: Any) -> None:
        self.id = id
        self.key = key
        self.time_ms = time_ms
        self.value = value
        self.is_matched = False


class WaitingRecords:
    """Records by key, in order of time; of the same time, in order of arrival.

    Args:
        name: The identity of the state.
        form: How values are stored.
        rows: What was committed, in any order.
    """

    def __init__(self, name: str, form: StateFormat, rows: Iterable[StateRow] = ()) -> None:
        self.name = name
        self._form = form
        self._by_id: dict[int, Waiting] = {}
        self._by_key: dict[bytes, list[Waiting]] = {}
        # The records in order of time; those that are removed stay in it until their turn.
        self._by_time: list[tuple[int, int]] = []
        self._next_id = 0
        self._changes: list[tuple[str, Waiting]] = []
        self._stored: set[int] = set()
        self._log = ChangeLog(name, _format_of(form), partial(map, self._value_of), rows)
        for stored, data in sorted(self._log.restored.items()):
            key, time_ms, is_matched, value = _decode_entry(data)
            each = Waiting(_ID.unpack(stored)[0], key, time_ms, form.decode(bytes(value)))
            each.is_matched = is_matched
            self._insert(each)
            self._stored.add(each.id)
            self._next_id = each.id + 1
        self._log.restored = {}

    def __len__(self) -> int:
        return len(self._by_id)

    @staticmethod
    def describe(form: StateFormat) -> str:
        """Describe the type of what is stored."""
        return _format_of(form).description

    def first_ms(self) -> int | None:
        """Return the time of the earliest record."""
        heap = self._by_time
        while heap and heap[0][1] not in self._by_id:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    # --- for operators ---------------------------------------------------------------

    def of_key(self, key: bytes) -> list[Waiting]:
        """Return the records of a key, in order of time; do not change the list."""
        return self._by_key.get(key, [])

    def add(self, key: bytes, time_ms: int, value: Any) -> Waiting:
        """Add a record."""
        each = Waiting(self._next_id, key, time_ms, value)
        self._next_id += 1
        self._insert(each)
        self._changes.append(("added", each))
        return each

    def match(self, each: Waiting) -> None:
        """Mark a record as matched."""
        if not each.is_matched:
            each.is_matched = True
            self._changes.append(("matched", each))

    def remove(self, each: Waiting) -> None:
        """Remove a record."""
        self._remove(each)
        self._changes.append(("removed", each))

    def at(self, key: bytes, time_ms: int) -> Waiting | None:
        """Return the last record of a key that is not later than a time."""
        rows = self._by_key.get(key, [])
        number = bisect_right(rows, (time_ms, self._next_id), key=_order_of)
        return rows[number - 1] if number else None

    def remove_before(self, time_ms: int) -> list[Waiting]:
        """Remove the records with an earlier time, and return them in order of time."""
        removed = []
        heap = self._by_time
        while heap and heap[0][0] < time_ms:
            _, number = heapq.heappop(heap)
            each = self._by_id.get(number)
            if each is not None:
                self._remove(each)
                self._changes.append(("removed", each))
                removed.append(each)
        return removed

    # --- for the task ----------------------------------------------------------------

    def keep_slice(self) -> None:
        """Accept the changes of this slice."""
        if not self._changes:
            return
        new = {each.id for what, each in self._changes if what == "added"}
        gone = {each.id for what, each in self._changes if what == "removed"}
        noted = {each.id for _, each in self._changes} - (gone - self._stored)
        self._log.note(map(_ID.pack, noted), map(_ID.pack, new - gone))
        self._stored |= new - gone
        self._stored -= gone
        self._changes = []
        self._log.encode_some()

    def undo_slice(self) -> None:
        """Take back the changes of this slice."""
        for what, each in reversed(self._changes):
            if what == "added":
                self._remove(each)
            elif what == "removed":
                self._insert(each)
            else:
                each.is_matched = False
        self._changes = []

    # --- for commits -----------------------------------------------------------------

    @property
    def stored_bytes(self) -> int:
        """The size of all keys and encoded values, estimated from those of the last commit."""
        return round(self._log.mean_bytes * len(self))

    def prepare(self) -> StateChange | None:
        """Return what changed since the last call, encoded; None if nothing did."""
        assert not self._changes, "a commit lies between two slices"
        return self._log.prepare(len(self))

    def _value_of(self, stored: bytes) -> Any:
        return self._by_id.get(_ID.unpack(stored)[0], MISSING)

    def _insert(self, each: Waiting) -> None:
        self._by_id[each.id] = each
        rows = self._by_key.setdefault(each.key, [])
        if rows and _order_of(rows[-1]) > _order_of(each):
            insort_right(rows, each, key=_order_of)
        else:
            rows.append(each)
        heapq.heappush(self._by_time, (each.time_ms, each.id))

    def _remove(self, each: Waiting) -> None:
        del self._by_id[each.id]
        rows = self._by_key[each.key]
        rows.remove(each)
        if not rows:
            del self._by_key[each.key]


def _format_of(form: StateFormat) -> StateFormat:
    """Return how a waiting record is stored: its key, its time, its mark and its value."""

    def encode(each: Waiting) -> bytes:
        value = msgspec.Raw(form.encode(each.value))
        return _encode_entry((each.key, each.time_ms, each.is_matched, value))

    def decode(data: bytes) -> Any:
        return form.decode(bytes(_decode_entry(data)[3]))

    described = {"type": "waiting", "of": [msgspec.Raw(form.description.encode())]}
    return StateFormat(encode, decode, False, msgspec.json.encode(described).decode())
