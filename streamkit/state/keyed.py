"""The state of one stage: a value for each key, in memory, and what changed since the last commit.

| event | what happens |
|---|---|
| the first use of a key in a slice | its value before the slice is remembered |
| the slice is complete | its keys count as changed; some changed keys are encoded |
| the slice is undone | every value is as before the slice |
| a commit is prepared | the other changed keys are encoded; the next commit starts with none |

A commit writes a *delta*, which has the changed keys, and *bases*, each of which has all keys of
one shard. A base replaces the deltas before it. Both are encoded in small pieces after each slice,
so that no commit stops the job for long. A key that is set and cleared between two commits is
never written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec
from siphash24 import siphash24

from streamkit.errors import StateError, shown

SHARDS: Final = 256
# A delta holds keys of all shards.
DELTA: Final = -1
# So many changed keys are left to the commit; of more, some are encoded after each slice.
_CHANGED_KEYS_MAX: Final = 16_384
_PIECE_KEYS: Final = 1_024

_Entries = list[tuple[bytes, bytes | None]]
_encode_entries = msgspec.msgpack.Encoder().encode
_decode_entries = msgspec.msgpack.Decoder(_Entries).decode

# What msgspec raises for a value of another type than the declared one.
_NOT_STORABLE: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class StateFormat:
    """How values of one type are stored.

    ``is_immutable``: a value can be kept as it is, to return to it later. Other values are
    encoded before user code gets them, because it may change them in place.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    is_immutable: bool
    description: str


@dataclass(frozen=True, slots=True)
class StateRow:
    """One stored blob: the base of a shard, or a delta (``shard`` is `DELTA`)."""

    shard: int
    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    """What one commit writes for one stage. Deltas up to ``drop_to`` are no longer needed."""

    name: str
    type: str
    rows: list[StateRow] = field(default_factory=list)
    drop_to: int = 0


class Keyed:
    """Values by key.

    Args:
        name: The identity of the state: the name of its stage.
        form: How values are stored.
        rows: What was committed, in any order.
    """

    def __init__(self, name: str, form: StateFormat, rows: Iterable[StateRow] = ()) -> None:
        self.name = name
        self.values: dict[bytes, Any] = {}
        self._form = form
        # Of the slice that is processed; another number means that earlier calls are settled.
        self.slice_number = 0
        self._before: dict[bytes, Any] = {}
        self._changed: set[bytes] = set()
        self._encoded: dict[bytes, bytes | None] = {}
        # Bases have about as many keys as deltas: so many more are still to be encoded.
        self._owed_keys = 0
        self._new: set[bytes] = set()
        self._keys: list[list[bytes]] = [[] for _ in range(SHARDS)]
        self._base_seq = [0] * SHARDS
        self._seq = 0
        # The base that is being encoded, and those that are complete.
        self._turn = 0
        self._base_begun = 0
        self._base_keys: Iterator[bytes] | None = None
        self._base_entries: _Entries = []
        self._bases: dict[int, StateRow] = {}
        self._mean_bytes = 0.0
        self._restore(rows)

    # --- for operators ---------------------------------------------------------------

    def touch(self, key: bytes) -> None:
        """Remember the value of a key before user code may change it, once in a slice."""
        if key in self._before:
            return
        value = self.values.get(key, MISSING)
        if value is not MISSING and not self._form.is_immutable:
            value = self._form.encode(value)
        self._before[key] = value

    def is_touched(self, key: bytes) -> bool:
        """Return whether a key was used in this slice."""
        return key in self._before

    def undo_key(self, key: bytes) -> None:
        """Set a key back to its value before this slice."""
        self._set_back(key, self._before[key])

    # --- for the task ----------------------------------------------------------------

    def keep_slice(self) -> None:
        """Accept the changes of this slice."""
        self.slice_number += 1
        before = self._before
        if not before:
            return
        values = self.values
        self._changed.update(before)
        self._new.update(key for key, value in before.items() if value is MISSING and key in values)
        self._before = {}
        if len(self._changed) > _CHANGED_KEYS_MAX:
            self._encode_changed(_PIECE_KEYS)
        if self._owed_keys:
            self._encode_owed()

    def undo_slice(self) -> None:
        """Set every key back to its value before this slice."""
        self.slice_number += 1
        for key, value in self._before.items():
            self._set_back(key, value)
        self._before = {}

    # --- for commits -----------------------------------------------------------------

    @property
    def stored_bytes(self) -> int:
        """The size of all keys and encoded values, estimated from those of the last commit."""
        return round(self._mean_bytes * len(self.values))

    def prepare(self) -> StateChange | None:
        """Return what changed since the last call, encoded; None if nothing did."""
        assert not self._before, "a commit lies between two slices"
        self._encode_changed(len(self._changed))
        if not self._encoded:
            return None
        entries = list(self._encoded.items())
        self._encoded = {}
        self._measure(entries)
        self._owed_keys = min(self._owed_keys + len(entries), len(self.values) + SHARDS)
        self._encode_owed()
        bases, self._bases = list(self._bases.values()), {}
        for row in bases:
            self._base_seq[row.shard] = row.seq
        self._seq += 1
        delta = StateRow(DELTA, self._seq, _encode_entries(entries))
        rows = [delta, *bases]
        return StateChange(self.name, self._form.description, rows, min(self._base_seq))

    def _encode_changed(self, keys_max: int) -> None:
        """Encode some of the changed keys; one that changes again is encoded again.

        Raises:
            StateError: A value is not of the declared type, so the next run could not read it.
        """
        changed, values = self._changed, self.values
        for _ in range(min(keys_max, len(changed))):
            key = changed.pop()
            self._encoded[key] = self._checked(key) if key in values else None
            if key in self._new:
                self._new.discard(key)
                self._keys[shard_of(key)].append(key)

    def _checked(self, key: bytes) -> bytes:
        try:
            data = self._form.encode(self.values[key])
            self._form.decode(data)
        except (
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
            msgspec.MsgspecError,
        ) as error:
            raise StateError(
                f"the value of the key {shown(key)} in the state {self.name!r} cannot be stored: "
                f"{error}",
                hint="set only values of the type that the stage declares: State[...]",
            ) from error
        return data

    def _encode_owed(self) -> None:
        keys = min(self._owed_keys, _PIECE_KEYS)
        self._owed_keys -= keys
        self._encode_base(keys)

    def _encode_base(self, keys_max: int) -> None:
        """Continue with the base of the shard whose turn it is.

        A base is as of the last commit before it was begun: later changes of its keys are in
        later deltas, which are applied after it.
        """
        visited = 0
        while keys_max > 0 and visited < SHARDS:
            if self._base_keys is None:
                self._base_begun = self._seq
                keys = self._keys[self._turn] = list(
                    dict.fromkeys(key for key in self._keys[self._turn] if key in self.values)
                )
                self._base_keys = iter(keys)
                self._base_entries = []
            piece = list(islice(self._base_keys, keys_max))
            self._base_entries += [
                (key, self._form.encode(self.values[key])) for key in piece if key in self.values
            ]
            is_complete = len(piece) < keys_max
            keys_max -= len(piece)
            if is_complete:
                data = _encode_entries(self._base_entries)
                self._bases[self._turn] = StateRow(self._turn, self._base_begun, data)
                self._base_keys = None
                self._turn = (self._turn + 1) % SHARDS
                visited += 1

    def _measure(self, entries: _Entries) -> None:
        sizes = [len(key) + len(data) for key, data in entries if data is not None]
        if sizes:
            self._mean_bytes = sum(sizes) / len(sizes)

    def _set_back(self, key: bytes, value: Any) -> None:
        if value is MISSING:
            self.values.pop(key, None)
        else:
            self.values[key] = value if self._form.is_immutable else self._form.decode(value)

    def _restore(self, rows: Iterable[StateRow]) -> None:
        """Apply the rows in order; of one number, the bases come before the delta."""
        stored: dict[bytes, bytes] = {}
        for row in sorted(rows, key=lambda row: (row.seq, row.shard == DELTA)):
            self._seq = row.seq
            if row.shard != DELTA:
                self._base_seq[row.shard] = row.seq
            for key, data in _decode_entries(row.data):
                if data is None:
                    stored.pop(key, None)
                else:
                    stored[key] = data
        decode = self._form.decode
        self.values = {key: decode(data) for key, data in stored.items()}
        self._measure(list(stored.items()))
        for key in stored:
            self._keys[shard_of(key)].append(key)


def shard_of(key: bytes) -> int:
    """Return the shard of a key. It never changes: stored rows are found by it."""
    digest: bytes = siphash24(key, key=bytes(16)).digest()
    return digest[0]
