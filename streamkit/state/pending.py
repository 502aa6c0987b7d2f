"""Records that a stage has taken and not finished: waiting for a call, in a call, or for a retry.

Unlike other states, they do not belong to slices: a record is added and removed exactly where the
position of its source moves on. So a commit has both, and the next run begins with these records.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from struct import Struct
from typing import Any, Final, Literal, Protocol

import msgspec

from streamkit.errors import shown
from streamkit.state.change_log import MISSING, ChangeLog, StateChange, StateFormat, StateRow

_NUMBER: Final = Struct(">Q")
_pack: Final = _NUMBER.pack
_encode: Final = msgspec.msgpack.Encoder().encode
_Stored = tuple[msgspec.Raw, bytes | None, int, int, str, int, int, int | None]
_decode: Final = msgspec.msgpack.Decoder(_Stored).decode

Stage = Literal["queued", "held", "running", "parked", "done", "given"]


class Columns(Protocol):
    """Values that are made when they are asked for."""

    def values(self) -> list[Any]:
        """Return all of them."""


class PendingRecord:
    """One input of a stage, from the moment the stage takes it until its result is delivered.

    ``mark_ms`` is the watermark by which later stages judge it; None if none waits for one.
    ``attempts`` counts the failed calls before it: not the last one, if that is not retried.
    ``group`` is what its order is kept by: the key, or the
    partition of a record without one. ``columns``: the value is made only when it is
    asked for; it is a row of them, and what the record is created with is the number of the row.
    ``result`` and ``error`` are set when ``stage`` is "done" or
    "given"; ``stage`` is explained in
    `streamkit.runtime.call_queue` and `streamkit.runtime.retry_queue`.
    """

    __slots__ = (
        "_value",
        "attempts",
        "columns",
        "data",
        "due_s",
        "error",
        "group",
        "is_alone",
        "is_retried",
        "is_stored",
        "key",
        "mark_ms",
        "number",
        "offset",
        "partition",
        "result",
        "since_s",
        "stage",
        "timestamp_ms",
        "topic",
    )

    def __init__(
        self,
        value: Any,
        key: bytes | None,
        timestamp_ms: int,
        offset: int,
        topic: str,
        partition: int,
    ) -> None:
        self._value = value
        self.columns: Columns | None = None
        self.key = key
        self.timestamp_ms = timestamp_ms
        self.offset = offset
        self.topic = topic
        self.partition = partition
        self.group: Hashable = (topic, partition) if key is None else key
        self.number = -1
        self.mark_ms: int | None = None
        self.attempts = 0
        self.stage: Stage = "queued"
        self.result: Any = None
        self.error: BaseException | None = None
        self.since_s = 0.0
        self.due_s = 0.0
        # Whether a call has failed and is to be made again; the attempt may not have counted.
        self.is_retried = False
        # Whether it is called alone, because a batch with it has failed.
        self.is_alone = False
        # Whether a commit has it.
        self.is_stored = False
        self.data: bytes | None = None

    @property
    def value(self) -> Any:
        """What the stage has taken."""
        columns = self.columns
        return self._value if columns is None else columns.values()[self._value]

    @property
    def row(self) -> int:
        """Which row of ``columns`` the value is."""
        assert self.columns is not None, "asked only then"
        number: int = self._value
        return number


class PendingRecords:
    """The pending records of one stage, in order of arrival.

    Args:
        name: The identity of the state.
        form: How values are stored; None if values of this type cannot be stored.
        rows: What was committed, in any order.
    """

    def __init__(self, name: str, form: StateFormat | None, rows: Iterable[StateRow] = ()) -> None:
        self.name = name
        self._form = form
        self._next_number = 0
        self._fresh: dict[int, PendingRecord] = {}
        self.by_number: dict[int, PendingRecord] = {}
        self._log = ChangeLog(name, self.format_of(form), partial(map, self._value_of), rows)
        for stored, data in sorted(self._log.restored.items()):
            value, key, time_ms, offset, topic, partition, attempts, mark_ms = _decode(data)
            assert form is not None, "values of this type were stored"
            decoded = form.decode(bytes(value))
            record = PendingRecord(decoded, key, time_ms, offset, topic, partition)
            record.attempts, record.mark_ms, record.data = attempts, mark_ms, data
            record.number, record.is_stored = _NUMBER.unpack(stored)[0], True
            self.by_number[record.number] = record
            self._next_number = record.number + 1
        self._log.restored = {}
        # How many records have ever been here in this run, with those of the last one.
        self.added = len(self.by_number)

    def __len__(self) -> int:
        return len(self.by_number)

    @staticmethod
    def describe(form: StateFormat | None) -> str:
        """Describe the type of what is stored."""
        return PendingRecords.format_of(form).description

    @staticmethod
    def format_of(form: StateFormat | None) -> StateFormat:
        """Return how a pending record is stored: it is encoded already."""
        of = [] if form is None else [msgspec.Raw(form.description.encode())]
        described = msgspec.json.encode({"type": "pending", "of": of}).decode()
        return StateFormat(_encoded, lambda data: data, False, described)

    def add(self, records: Iterable[PendingRecord]) -> None:
        """Add records, and give them their numbers."""
        first = number = self._next_number
        by_number = self.by_number
        fresh = self._fresh
        for record in records:
            record.number = number
            by_number[number] = fresh[number] = record
            number += 1
        self._next_number = number
        self.added += number - first

    def change(self, record: PendingRecord) -> None:
        """Note that the attempts of a record have changed."""
        record.data = None
        self._fresh[record.number] = record

    def remove(self, records: Iterable[PendingRecord]) -> None:
        """Remove records that are finished; those of no commit yet leave no trace."""
        by_number, fresh = self.by_number, self._fresh
        gone = []
        for record in records:
            number = record.number
            del by_number[number]
            if record.is_stored:
                gone.append(_pack(number))
                record.is_stored = False
            fresh.pop(number, None)
        if gone:
            self._log.note(gone, ())

    # --- for commits -----------------------------------------------------------------

    def keep_slice(self) -> None:
        pass  # it does not follow slices

    def undo_slice(self) -> None:
        pass  # it does not follow slices

    @property
    def stored_bytes(self) -> int:
        """The size of all records, estimated from those of the last commit."""
        return round(self._log.mean_bytes * len(self))

    def problem(self) -> str | None:
        """Encode what the next commit stores; return why that is not possible, or None."""
        for record in self._fresh.values():
            if record.data is None:
                problem = self._encode(record)
                if problem is not None:
                    return problem
        return None

    def prepare(self) -> StateChange | None:
        """Return what changed since the last call, encoded; None if nothing did.

        `problem` must have returned None.
        """
        fresh, self._fresh = self._fresh, {}
        new = [_pack(each.number) for each in fresh.values() if not each.is_stored]
        self._log.note(map(_pack, fresh), new)
        for record in fresh.values():
            record.is_stored = True
        return self._log.prepare(len(self))

    def _encode(self, record: PendingRecord) -> str | None:
        if self._form is None:
            return f"values of type {type(record.value).__name__} cannot be stored"
        try:
            value = self._form.encode(record.value)
            read = self._form.decode(value)
            # A value with NaN is not equal to itself, but has the same bytes.
            if read != record.value and (self._form.is_untyped or self._form.encode(read) != value):
                return f"{shown(record.value)} would be read back as another value"
        except Exception as error:  # of msgspec, or of a class of the user
            return f"{shown(record.value)} cannot be stored: {type(error).__name__}: {error}"
        record.data = _encode(
            (
                msgspec.Raw(value),
                record.key,
                record.timestamp_ms,
                record.offset,
                record.topic,
                record.partition,
                record.attempts,
                record.mark_ms,
            )
        )
        return None

    def _value_of(self, stored: bytes) -> Any:
        return self.by_number.get(_NUMBER.unpack(stored)[0], MISSING)


def _encoded(record: PendingRecord) -> bytes:
    assert record.data is not None, "problem() has encoded it"
    return record.data
