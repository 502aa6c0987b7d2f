"""What one state has stored: the changes since the last commit, and old changes put together.

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
from zlib import crc32

import msgspec

from streamkit.errors import StateError, shown

SHARDS: Final = 256
# The number of the first shard in the store. Lower ones are of an earlier way to divide keys; they
# are deleted like deltas.
FIRST_SHARD: Final = 256
# A delta holds keys of all shards.
DELTA: Final = -1
# So many changed keys are left to the commit; of more, some are encoded after each slice.
_CHANGED_KEYS_MAX: Final = 16_384
_PIECE_KEYS: Final = 1_024
_SAMPLES: Final = 1_024

_Entries = list[tuple[bytes, bytes | None]]
_encode_entries = msgspec.msgpack.Encoder().encode
_decode_entries = msgspec.msgpack.Decoder(_Entries).decode


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
    migrate: Callable[[Any], Any] | None = None
    # Whether a part of the type is not known, so that a value may be read back as another one.
    is_untyped: bool = False

    def copy(self, value: Any) -> Any:
        """Return a value that does not change when ``value`` is changed in place."""
        return value if self.is_immutable else self.decode(self.encode(value))


@dataclass(frozen=True, slots=True)
class StateRow:
    """One stored blob: the base of a shard, or a delta (``shard`` is `DELTA`)."""

    shard: int
    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    """What one commit writes for one state.

    Rows up to ``drop_to`` other than bases are no longer needed.
    """

    name: str
    type: str
    rows: list[StateRow] = field(default_factory=list)
    drop_to: int = 0


class ChangeLog:
    """The stored form of one state.

    Args:
        name: The name of the state.
        form: How values are stored.
        values_of: Returns the present values of keys; `MISSING` for one that has none.
        rows: What was committed, in any order.
    """

    def __init__(
        self,
        name: str,
        form: StateFormat,
        values_of: Callable[[Iterable[bytes]], Iterable[Any]],
        rows: Iterable[StateRow] = (),
    ) -> None:
        self._name = name
        self._form = form
        self._values_of = values_of
        self._changed: set[bytes] = set()
        self._encoded: dict[bytes, bytes | None] = {}
        # Bases have about as many keys as deltas: so many more are still to be encoded.
        self._owed_keys = 0
        self._new: set[bytes] = set()
        self._keys: list[list[bytes]] = [[] for _ in range(SHARDS)]
        # The latest new keys have no shard yet: many are gone before it is needed.
        self._unsorted: list[bytes] = []
        self._base_seq = [0] * SHARDS
        self._seq = 0
        # The base that is being encoded, and those that are complete.
        self._turn = 0
        self._base_begun = 0
        self._base_keys: Iterator[bytes] | None = None
        self._base_entries: _Entries = []
        self._bases: dict[int, StateRow] = {}
        self._mean_bytes = 0.0
        self.restored: dict[bytes, bytes] = self._restore(rows)

    @property
    def mean_bytes(self) -> float:
        """The mean size of a key with its encoded value, in the last commit."""
        return self._mean_bytes

    def note(self, keys: Iterable[bytes], new: Iterable[bytes]) -> None:
        """Note changed keys; ``new`` are those among them that were not stored before."""
        self._changed.update(keys)
        self._new.update(new)

    def encode_some(self) -> None:
        """Encode a part of what the next commit writes; call it after each slice."""
        excess = len(self._changed) - _CHANGED_KEYS_MAX
        if excess > 0:
            self._encode_changed(max(excess, _PIECE_KEYS))
        if len(self._unsorted) > _CHANGED_KEYS_MAX:
            self._sort(len(self._unsorted) - _CHANGED_KEYS_MAX)
        if self._owed_keys:
            self._encode_owed()

    def prepare(self, count: int) -> StateChange | None:
        """Return what changed since the last call, encoded; None if nothing did.

        Args:
            count: How many keys the state has.
        """
        self._encode_changed(len(self._changed))
        if not self._encoded:
            return None
        entries = list(self._encoded.items())
        self._encoded = {}
        self._measure(entries)
        self._owed_keys = min(self._owed_keys + len(entries), count + SHARDS)
        self._encode_owed()
        bases, self._bases = list(self._bases.values()), {}
        for row in bases:
            self._base_seq[row.shard - FIRST_SHARD] = row.seq
        self._seq += 1
        delta = StateRow(DELTA, self._seq, _encode_entries(entries))
        rows = [delta, *bases]
        return StateChange(self._name, self._form.description, rows, min(self._base_seq))

    def _encode_changed(self, keys_max: int) -> None:
        """Encode some of the changed keys; one that changes again is encoded again.

        Raises:
            StateError: A value is not of the declared type, so the next run could not read it.
        """
        changed, encoded = self._changed, self._encoded
        encode, decode = self._form.encode, self._form.decode
        is_untyped = self._form.is_untyped
        if keys_max >= len(changed):
            keys = list(changed)
            changed.clear()
        else:
            keys = [changed.pop() for _ in range(keys_max)]
        key = b""
        try:
            for key, value in zip(keys, self._values_of(keys), strict=True):
                if value is MISSING:
                    encoded[key] = None
                else:
                    encoded[key] = data = encode(value)
                    if decode(data) != value and is_untyped:
                        raise TypeError(
                            f"{shown(value)} would be read back as {shown(decode(data))}, "
                            "because its type is not declared"
                        )
        except (
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
            msgspec.MsgspecError,
        ) as error:
            raise StateError(
                f"the value of the key {shown(key)} in the state {self._name!r} cannot be stored: "
                f"{error}",
                hint="keep only values of the declared type; that of an aggregate is the type of "
                "its field in the result class",
            ) from error
        new = self._new.intersection(keys)
        self._new -= new
        self._unsorted += new

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
                self._begin_base()
            assert self._base_keys is not None, "it was begun"
            piece = list(islice(self._base_keys, keys_max))
            values = self._values_of(piece)
            self._base_entries += [
                (key, self._form.encode(value))
                for key, value in zip(piece, values, strict=True)
                if value is not MISSING
            ]
            is_complete = len(piece) < keys_max
            keys_max -= len(piece)
            if is_complete:
                data = _encode_entries(self._base_entries)
                number = FIRST_SHARD + self._turn
                self._bases[self._turn] = StateRow(number, self._base_begun, data)
                self._base_keys = None
                self._turn = (self._turn + 1) % SHARDS
                visited += 1

    def _begin_base(self) -> None:
        self._base_begun = self._seq
        self._sort(len(self._unsorted))
        keys = self._keys[self._turn] = self._present(list(dict.fromkeys(self._keys[self._turn])))
        self._base_keys = iter(tuple(keys))
        self._base_entries = []

    def _sort(self, count: int) -> None:
        """Give the oldest of the new keys their shards."""
        oldest, self._unsorted = self._unsorted[:count], self._unsorted[count:]
        for key in self._present(oldest):
            self._keys[shard_of(key)].append(key)

    def _present(self, keys: list[bytes]) -> list[bytes]:
        values = self._values_of(keys)
        return [key for key, value in zip(keys, values, strict=True) if value is not MISSING]

    def _measure(self, entries: _Entries) -> None:
        sample = entries[:: len(entries) // _SAMPLES + 1]
        sizes = [len(key) + len(data) for key, data in sample if data is not None]
        if sizes:
            self._mean_bytes = sum(sizes) / len(sizes)

    def _restore(self, rows: Iterable[StateRow]) -> dict[bytes, bytes]:
        """Apply the rows in order; of one number, the bases come before the delta."""
        stored: dict[bytes, bytes] = {}
        for row in sorted(rows, key=lambda row: (row.seq, row.shard == DELTA)):
            self._seq = row.seq
            if row.shard >= FIRST_SHARD:
                self._base_seq[row.shard - FIRST_SHARD] = row.seq
            for key, data in _decode_entries(row.data):
                if data is None:
                    stored.pop(key, None)
                else:
                    stored[key] = data
        self._measure(list(stored.items()))
        self._unsorted += stored
        return stored


def shard_of(key: bytes) -> int:
    """Return the shard of a key, below `SHARDS`. It never changes: stored rows are found by it."""
    return crc32(key) % SHARDS
