"""The state of one stage: a value for each key, in memory, and what changed since the last commit.

| event | what happens |
|---|---|
| the first use of a key in a slice | its value before the slice is remembered |
| the slice is complete | its keys count as changed; some changed keys are encoded |
| the slice is undone | every value is as before the slice |
| a commit is prepared | the other changed keys are encoded; the next commit starts with none |
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import msgspec

from streamkit.state.change_log import MISSING, ChangeLog, StateChange, StateFormat, StateRow


class Keyed:
    """Values by key.

    Args:
        name: The identity of the state: the name of its stage.
        form: How values are stored.
        rows: What was committed, in any order.
        migrates: The rows have another type; the format makes present values of them.
    """

    def __init__(
        self,
        name: str,
        form: StateFormat,
        rows: Iterable[StateRow] = (),
        *,
        migrates: bool = False,
    ) -> None:
        self.name = name
        self.values: dict[bytes, Any] = {}
        self._form = form
        # Of the slice that is processed; another number means that earlier calls are settled.
        self.slice_number = 0
        # How many slices were undone: what an operator derives from the values is then outdated.
        self.undo_number = 0
        # The value of each key before its first use in this slice.
        self.before: dict[bytes, Any] = {}
        self._log = ChangeLog(name, form, self._values_of, rows)
        decode = form.decode
        if migrates:
            migrate = form.migrate
            assert migrate is not None, "only then are values of another type read"

            def decode(data: bytes) -> Any:
                value = migrate(msgspec.msgpack.decode(data))
                return form.decode(form.encode(value))  # it must be of the present type

            self._log.note(self._log.restored, ())
        self.values = {key: decode(data) for key, data in self._log.restored.items()}
        self._log.restored = {}

    def __len__(self) -> int:
        return len(self.values)

    @property
    def has_windows(self) -> bool:
        """Whether the values are windows, which are emitted when they are complete."""
        return '"type":"windows"' in self._form.description

    @staticmethod
    def describe(form: StateFormat) -> str:
        """Describe the type of what is stored."""
        return form.description

    # --- for operators ---------------------------------------------------------------

    def touch(self, key: bytes) -> None:
        """Remember the value of a key before user code may change it, once in a slice."""
        if key in self.before:
            return
        value = self.values.get(key, MISSING)
        if value is not MISSING and not self._form.is_immutable:
            value = self._form.encode(value)
        self.before[key] = value

    def put(self, key: bytes, value: Any) -> None:
        """Replace the value of a key, or remove it if ``value`` is `MISSING`."""
        self.touch(key)
        if value is MISSING:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def is_touched(self, key: bytes) -> bool:
        """Return whether a key was used in this slice."""
        return key in self.before

    def undo_key(self, key: bytes) -> None:
        """Set a key back to its value before this slice."""
        self._set_back(key, self.before[key])

    # --- for the task ----------------------------------------------------------------

    def keep_slice(self) -> None:
        """Accept the changes of this slice."""
        self.slice_number += 1
        before = self.before
        if not before:
            return
        values = self.values
        self._log.note(
            before, [key for key, value in before.items() if value is MISSING and key in values]
        )
        self.before = {}
        self._log.encode_some()

    def undo_slice(self) -> None:
        """Set every key back to its value before this slice."""
        self.slice_number += 1
        self.undo_number += 1
        for key, value in self.before.items():
            self._set_back(key, value)
        self.before = {}

    # --- for commits -----------------------------------------------------------------

    @property
    def stored_bytes(self) -> int:
        """The size of all keys and encoded values, estimated from those of the last commit."""
        return round(self._log.mean_bytes * len(self.values))

    def prepare(self) -> StateChange | None:
        """Return what changed since the last call, encoded; None if nothing did."""
        assert not self.before, "a commit lies between two slices"
        return self._log.prepare(len(self.values))

    def _values_of(self, keys: Iterable[bytes]) -> Iterable[Any]:
        return map(self.values.get, keys, repeat(MISSING))

    def _set_back(self, key: bytes, value: Any) -> None:
        if value is MISSING:
            self.values.pop(key, None)
        else:
            self.values[key] = value if self._form.is_immutable else self._form.decode(value)


class Unstored(Keyed):
    """Values by key that no commit stores, because each run reads them again."""

    def __init__(self, name: str, form: StateFormat, rows: Iterable[StateRow] = ()) -> None:
        super().__init__(name, form)

    def keep_slice(self) -> None:
        self.slice_number += 1
        self.before = {}

    def prepare(self) -> StateChange | None:
        return None
