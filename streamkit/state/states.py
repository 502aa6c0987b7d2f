"""The states of all stages of a task, together in each slice and each commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from streamkit.errors import StateMismatch, StateTooLarge
from streamkit.state.change_log import ChangeLog, StateChange, StateFormat, StateRow
from streamkit.state.keyed import Keyed
from streamkit.state.panes import Panes
from streamkit.state.pending import PendingRecords
from streamkit.state.types import type_change
from streamkit.state.waiting import WaitingRecords
from streamkit.units import shown_bytes

# What a dict entry, a key and a value take in addition to their encoded bytes.
_ENTRY_BYTES: Final = 250
_BYTES_PER_ENCODED_BYTE: Final = 3

# The state of watermarks. It has no stage, so its name is not a valid name of one.
TIME_STATE: Final = "(time)"
# What the name of a stage is followed by, for the records that wait in it.
PENDING: Final = "/pending"


class StoredState(Protocol):
    """One state: what a slice, a commit and the limit of memory need of it."""

    name: str

    def __len__(self) -> int: ...

    def keep_slice(self) -> None: ...

    def undo_slice(self) -> None: ...

    def prepare(self) -> StateChange | None: ...

    @property
    def stored_bytes(self) -> int: ...


S = TypeVar("S", bound=Keyed | Panes | WaitingRecords)


class States:
    """Opens the states of a task and prepares what a commit writes of them.

    Args:
        rows_of: Returns what was committed for a name.
        types: The stored description of the type of each name.
        memory_max_bytes: What all states together may take in memory; None for no limit.
    """

    def __init__(
        self,
        rows_of: Callable[[str], Iterable[StateRow]] = lambda name: (),
        types: dict[str, str] | None = None,
        *,
        memory_max_bytes: int | None = None,
    ) -> None:
        self._rows_of = rows_of
        self._types = types or {}
        self._memory_max_bytes = memory_max_bytes
        self.by_name: dict[str, StoredState] = {}
        self._has_sliced = False

    def __bool__(self) -> bool:
        """Return whether any stage keeps a state that belongs to slices."""
        return self._has_sliced

    def open(self, kind: type[S], name: str, form: StateFormat) -> S:
        """Return the state of a stage, with what the last commit kept of it.

        Raises:
            StateMismatch: The stored values have another type.
        """
        found = self.by_name.get(name)
        if found is None:
            problem = self._type_problem(name, kind.describe(form), form)
            if problem is None:
                found = kind(name, form, self._rows_of(name))
            else:
                found = self._migrated(kind, name, form, problem)
            self.by_name[name] = found
            self._has_sliced = True
        assert isinstance(found, kind), "each stage has names of its own"
        return found

    def open_pending(self, name: str, form: StateFormat | None) -> PendingRecords:
        """Return the records that wait in a stage.

        Raises:
            StateMismatch: Records of the last run have another type.
        """
        problem = None
        if self.has_rows(name):
            if form is None:
                problem = "values of the present type cannot be stored"
            elif name in self._types:
                problem = type_change(self._types[name], PendingRecords.describe(form))
        if problem is not None:
            raise StateMismatch(
                f"records wait in {name.removesuffix(PENDING)!r}, and cannot be read: {problem}",
                hint="give new fields a default, or give the records up: "
                f"streamkit state delete APP {name}",
            )
        found = self.by_name[name] = PendingRecords(name, form, self._rows_of(name))
        return found

    def has_rows(self, name: str) -> bool:
        """Return whether the last commit has values of a state."""
        if name not in self._types:
            return False
        form = PendingRecords.format_of(None)
        return bool(ChangeLog(name, form, lambda keys: (), self._rows_of(name)).restored)

    def _type_problem(self, name: str, description: str, form: StateFormat) -> str | None:
        stored = self._types.get(name)
        problem = None if stored is None else type_change(stored, description)
        if problem is None:
            return None
        has_values = bool(ChangeLog(name, form, lambda keys: (), self._rows_of(name)).restored)
        return problem if has_values else None

    def _migrated(self, kind: type[S], name: str, form: StateFormat, problem: str) -> S:
        """Read values of another type with the function that makes present ones of them."""
        if form.migrate is None or not issubclass(kind, Keyed):
            raise StateMismatch(
                f"the stored state of {name!r} cannot be read: {problem}",
                hint="give new fields a default, give the stage migrate= or another name, or "
                f"delete the state: streamkit state delete APP {name}",
            )
        try:
            return kind(name, form, self._rows_of(name), migrates=True)
        except Exception as error:  # raised by a function of the user
            raise StateMismatch(
                f"migrate= of {name!r} failed on a stored value: {type(error).__name__}: {error}",
                hint="it gets values as msgspec decodes them without a type",
            ) from error

    def unused(self) -> list[str]:
        """Return the names of stored states that no stage has opened."""
        names = self._types.keys() - self.by_name - {TIME_STATE}
        return sorted(name for name in names if not name.endswith(PENDING))

    def unused_pending(self) -> list[str]:
        """Return the names of stored records that wait in stages that nobody has opened."""
        names = sorted(self._types.keys() - self.by_name)
        return [name for name in names if name.endswith(PENDING) and self.has_rows(name)]

    def keep_slice(self) -> None:
        """Accept the changes of this slice in every state."""
        for each in self.by_name.values():
            each.keep_slice()

    def undo_slice(self) -> None:
        """Set every state back to where it was before this slice."""
        for each in self.by_name.values():
            each.undo_slice()

    def prepare(self) -> list[StateChange]:
        """Encode what changed since the last commit.

        Raises:
            StateTooLarge: The states take more memory than allowed.
        """
        changes = [each.prepare() for each in self.by_name.values()]
        self._check_memory()
        return [each for each in changes if each is not None]

    def _check_memory(self) -> None:
        if self._memory_max_bytes is None:
            return
        sizes = {name: memory_bytes(each) for name, each in self.by_name.items()}
        total = sum(sizes.values())
        if total <= self._memory_max_bytes:
            return
        name = max(sizes, key=lambda each: sizes[each])
        raise StateTooLarge(
            f"the state takes about {shown_bytes(total)} of memory, more than "
            f"{shown_bytes(self._memory_max_bytes)}; the largest part is that of {name!r}, with "
            f"{len(self.by_name[name]):,} keys",
            hint="raise --state-memory, or clear keys that are no longer needed",
        )


def memory_bytes(state: StoredState) -> int:
    """Estimate the memory that a state takes, from the encoded size of its entries."""
    return len(state) * _ENTRY_BYTES + state.stored_bytes * _BYTES_PER_ENCODED_BYTE


def waits(state: StoredState) -> bool:
    """Return whether what a state keeps is emitted later: windows, and records for a join."""
    if isinstance(state, Panes) or (isinstance(state, Keyed) and state.has_windows):
        return True
    return isinstance(state, WaitingRecords) and not state.name.endswith("/versions")
