"""Stages that keep a value for each key.

A call that raises leaves nothing: the state of its key is as it was before the call. If values
can be changed in place, this needs the earlier calls for the same key in this slice once more,
because only their effect on the state is known, not the state between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, overload

from streamkit.dataflow.operators import contexts, expanded, one_per_row, without_none
from streamkit.dataflow.steps import Interrupted, Operator, Room, RowFailed
from streamkit.record import Chunk
from streamkit.state.change_log import MISSING, StateFormat
from streamkit.state.keyed import Keyed

T = TypeVar("T")
D = TypeVar("D")
_NO_KEY: Final = b""
# A function of the user, with parameters and results of any type.
Call = Callable[..., Any]


class State(Generic[T]):
    """The state of one key, during one call of a stage.

    A stage gets it by a parameter annotated ``State[Visits]``. The type is the one that the
    value has in every key. It is kept when the job commits, and the next run continues with it.
    """

    __slots__ = ("_before", "_is_open", "_key", "_keyed")

    def __init__(self, keyed: Keyed) -> None:
        self._keyed = keyed
        self._key = _NO_KEY
        self._before: object = MISSING
        self._is_open = False

    @overload
    def get(self) -> T | None: ...
    @overload
    def get(self, default: D) -> T | D: ...
    def get(self, default: Any = None) -> Any:
        """Return the value of this key, or ``default`` if it has none.

        A value that can be changed in place may be changed; `set` is not needed then.
        """
        self._check()
        self._keyed.touch(self._key)
        return self._keyed.values.get(self._key, default)

    def set(self, value: T) -> None:
        """Replace the value of this key."""
        self._check()
        self._keyed.touch(self._key)
        self._keyed.values[self._key] = value

    def clear(self) -> None:
        """Remove the value of this key."""
        self._check()
        self._keyed.touch(self._key)
        self._keyed.values.pop(self._key, None)

    def _check(self) -> None:
        if not self._is_open:
            raise RuntimeError("a State can be used only during the call that got it")

    def _begin(self, key: bytes | None) -> State[T]:
        """Show the state of another key."""
        if key is None:
            raise TypeError("the record has no key: group the stream with key_by first")
        self._key = key
        self._before = self._keyed.values.get(key, MISSING)
        return self

    def _take_back(self) -> None:
        """Undo what the last call did with an immutable value."""
        if self._before is MISSING:
            self._keyed.values.pop(self._key, None)
        else:
            self._keyed.values[self._key] = self._before


@dataclass(frozen=True, slots=True)
class Stateful:
    """Call ``function`` with each value and the state of its key.

    ``name`` is the identity of the state. ``key_of`` shows keys in a context, for a function
    that gets one. ``expands``: the function is a generator.
    """

    function: Call
    name: str
    form: StateFormat
    expands: bool = False
    key_of: Callable[[bytes | None], object] | None = None

    def open(self, room: Room) -> Operator:
        return _Running(self, room)


class _Running:
    """The operator of `Stateful`."""

    def __init__(self, step: Stateful, room: Room) -> None:
        self._step = step
        self._room = room
        self._keyed = room.state(Keyed, step.name, step.form)
        self._state: State[object] = State(self._keyed)
        # The calls of this slice that went well, to repeat those of one key.
        self._calls: list[tuple[Chunk, int]] = []
        self._slice_number = self._keyed.slice_number

    def on_chunk(self, chunk: Chunk) -> Chunk:
        self._state._is_open = True
        try:
            result = self._applied(chunk)
        except RowFailed as failed:
            self._undo_call(chunk, failed.row)
            raise
        except Interrupted as interrupted:
            self._note(chunk, interrupted.row)
            raise
        finally:
            self._state._is_open = False
        self._note(chunk, len(chunk))
        return result

    def _applied(self, chunk: Chunk) -> Chunk:
        states = map(self._state._begin, chunk.keys)
        arguments: list[Iterable[object]] = [states]
        if self._step.key_of is not None:
            arguments.append(contexts(chunk, self._step.key_of))
        call = self._step.function

        def calls(block: Sequence[object]) -> Iterator[Any]:
            return map(call, block, *arguments)

        if self._step.expands:
            return expanded(lambda block: map(list, calls(block)), chunk, self._room)
        values = one_per_row(calls, chunk, self._room, finish=without_none)
        return without_none(chunk.with_values(values))

    def _note(self, chunk: Chunk, rows: int) -> None:
        if self._slice_number != self._keyed.slice_number:
            self._slice_number = self._keyed.slice_number
            self._calls = []
        if rows and not self._step.form.is_immutable:
            self._calls.append((chunk, rows))

    def _undo_call(self, chunk: Chunk, row: int) -> None:
        self._note(chunk, row)
        key = chunk.keys[row]
        if key is None or not self._keyed.is_touched(key):
            return
        if self._step.form.is_immutable:
            self._state._take_back()
            return
        self._keyed.undo_key(key)
        for earlier, rows in self._calls:
            chosen = [at for at, each in enumerate(earlier.keys[:rows]) if each == key]
            for at in chosen:
                self._repeat(earlier.slice(at, at + 1))

    def _repeat(self, one: Chunk) -> None:
        arguments: list[object] = [self._state._begin(one.keys[0])]
        if self._step.key_of is not None:
            arguments += list(contexts(one, self._step.key_of))
        result = self._step.function(one.values[0], *arguments)
        if self._step.expands:
            list(result)


def reducing(function: Call) -> Call:
    """Make a stateful function that combines each value with the result of those before."""

    def reduce(value: T, state: State[T]) -> T:
        before = state.get(MISSING)
        result = value if before is MISSING else function(before, value)
        state.set(result)
        return result

    return reduce


def first_only(value: T, state: State[bool]) -> T | None:
    """Return the first value of each key, and None for all later ones."""
    if state.get():
        return None
    state.set(True)
    return value
