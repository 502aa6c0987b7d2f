"""Stages that keep a value for each key.

A call that raises leaves nothing: the state of its key is as it was before the call. If values
can be changed in place, this needs the earlier calls for the same key in this slice once more,
because only their effect on the state is known, not the state between them.

| event | what happens |
|---|---|
| a record | the function is called with its value and the state of its key |
| the watermark reaches the time of a timer | the function for timers is called |
| a value was set ``ttl`` before the watermark | it is removed |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from streamkit.dataflow.due_keys import DueKeys
from streamkit.dataflow.emission import EMPTY
from streamkit.dataflow.functions import check_callable
from streamkit.dataflow.operators import contexts, expanded, one_per_row, without_none
from streamkit.dataflow.options import StatefulOptions
from streamkit.dataflow.state_handle import ChangeableState, ExpiringState, State
from streamkit.dataflow.steps import Interrupted, Room, RowFailed, TimedOperator, TimedStep
from streamkit.dataflow.timers import Timer, TimerHook, TimerRequests, Timers
from streamkit.dataflow.window_results import moment
from streamkit.record import Chunk, Kind, Value
from streamkit.state.change_log import MISSING, StateFormat
from streamkit.state.keyed import Keyed
from streamkit.state.types import format_of
from streamkit.windows import duration_ms

T = TypeVar("T")
# A function of the user, with parameters and results of any type.
Call = Callable[..., Value]
_END_MS: Final = 2**62
# When a value was set that had no time before a migration: it stays until it is set again.
_MIGRATED_MS: Final = 2**61


@dataclass(frozen=True, slots=True)
class Stateful(TimedStep):
    """Call ``function`` with each value and the state of its key.

    ``name`` is the identity of the state. ``key_of`` shows keys in a context, for a function
    that gets one. ``expands``: the function is a generator. With ``ttl_ms``, ``form`` is that of
    pairs of an event time and a value.
    """

    function: Call
    name: str
    form: StateFormat
    expands: bool = False
    key_of: Callable[[bytes | None], object] | None = None
    ttl_ms: int | None = None
    hook: TimerHook = field(default_factory=TimerHook)

    can_repeat = True

    @property
    def is_timed(self) -> bool:
        return self.ttl_ms is not None or self.hook.function is not None

    @property
    def hold_ms(self) -> int:
        return 0

    def open(self, room: Room) -> TimedOperator:
        return _Running(self, room)


class _Running:
    """The operator of `Stateful`."""

    def __init__(self, step: Stateful, room: Room) -> None:
        self._step = step
        self._room = room
        self._keyed = room.state(Keyed, step.name, step.form)
        plain: State[Value] = (
            State(self._keyed) if step.form.is_immutable else ChangeableState(self._keyed)
        )
        self._expiry = None if step.ttl_ms is None else _Expiry(self._keyed, plain, step.ttl_ms)
        self._state = plain if self._expiry is None else self._expiry.state
        self._timers = None if step.hook.function is None else Timers(step.name, room)
        self._requests = TimerRequests()
        # The calls of this slice that went well, to repeat those of one key: the times that they
        # had, and how many of the rows they were.
        self._calls: list[tuple[Chunk, Sequence[int], int]] = []
        self._slice_number = self._keyed.slice_number
        self._passed_ms = 0

    def on_chunk(self, chunk: Chunk) -> Chunk:
        marks = self._room.watermarks_ms(chunk) if self._step.is_timed else ()
        times_ms = list(map(max, chunk.timestamps_ms, marks))
        self._state._open()
        try:
            result = self._applied(chunk, times_ms, marks)
        except RowFailed as failed:
            self._requests.undo()
            self._undo_call(chunk, times_ms, failed.row)
            raise
        except Interrupted as interrupted:
            self._note(chunk, times_ms, interrupted.row)
            raise
        finally:
            self._state._close()
            self._settle()
        self._note(chunk, times_ms, len(chunk))
        return result

    def _applied(self, chunk: Chunk, times_ms: Sequence[int], marks: Sequence[int]) -> Chunk:
        states: Iterable[State[Value]]
        if self._step.is_timed:
            states = map(self._begin, chunk.keys, times_ms, marks)
        else:
            states = self._state._each(chunk.keys)
        arguments: list[Iterable[object]] = [states]
        if self._step.key_of is not None:
            arguments.append(self._contexts(chunk, self._sink()))
        call = self._step.function

        def calls(block: Sequence[object]) -> Iterator[Value]:
            return map(call, block, *arguments)

        if self._step.expands:
            return expanded(lambda block: map(list, calls(block)), chunk, self._room)
        values = one_per_row(calls, chunk, self._room, finish=without_none)
        return without_none(chunk.with_values(values))

    def _contexts(self, chunk: Chunk, timers: TimerRequests | None) -> Iterator[Value]:
        key_of = self._step.key_of
        assert key_of is not None, "only a function with a context gets one"
        return contexts(chunk, key_of, self._room.lifespan(), timers)

    def _begin(self, key: bytes | None, time_ms: int, mark_ms: int) -> State[Value]:
        self._requests.begin(key, mark_ms)
        return self._state._begin(key, time_ms)

    def _sink(self) -> TimerRequests | None:
        return None if self._timers is None else self._requests

    def _settle(self) -> None:
        """Keep the timers of the calls that went well, and when their values expire."""
        if self._timers is not None:
            self._timers.apply(self._requests.take())
        if self._expiry is not None:
            self._expiry.note()

    # --- time ------------------------------------------------------------------------

    def due_ms(self) -> int | None:
        known = [] if self._timers is None else [self._timers.due_ms()]
        known += [] if self._expiry is None else [self._expiry.due_ms()]
        return min([each for each in known if each is not None], default=None)

    def on_time(self, watermark_ms: int) -> Chunk:
        due = [] if self._timers is None else self._timers.take(watermark_ms)
        self._passed_ms = watermark_ms
        if not due:
            self._expire()
            return EMPTY
        return Chunk(
            [name for _, _, name in due],
            [key for _, key, _ in due],
            [at_ms for at_ms, _, _ in due],
            [0] * len(due),
        )

    def _expire(self) -> None:
        """Remove the values that are gone; timers of an earlier time have been called by then."""
        # At the end of time, what a later run may still use is kept.
        if self._expiry is not None and self._passed_ms < _END_MS:
            self._expiry.remove(self._passed_ms)

    def on_due(self, chunk: Chunk) -> Chunk:
        """Call the function for the timers whose time has come."""
        values: list[Value] = []
        self._state._open()
        try:
            for row in range(len(chunk)):
                values += self._timer_values(chunk, row, values)
        finally:
            self._state._close()
            self._settle()
        self._expire()
        return without_none(chunk.with_values(values))

    def _timer_values(self, chunk: Chunk, row: int, done: list[Value]) -> list[Value]:
        """Call the function for one timer; if it fails, the state of the key stays as it was."""
        function, key_of = self._step.hook.function, self._step.key_of
        key, at_ms = chunk.keys[row], chunk.timestamps_ms[row]
        assert function is not None, "only then are there timers"
        assert key is not None, "a timer belongs to a key"
        value = self._keyed.values.get(key, MISSING)
        before = value if value is MISSING else self._step.form.copy(value)
        timer = Timer(key if key_of is None else key_of(key), moment(at_ms), chunk.values[row])
        try:
            return one_per_row(
                lambda block: (function(timer, self._begin(key, at_ms, at_ms)) for _ in block),
                chunk.slice(row, row + 1),
                self._room,
            )
        except RowFailed as failed:
            self._requests.undo()
            self._keyed.put(key, before)
            finished = chunk.slice(0, row).with_values(done)
            raise RowFailed(row, without_none(finished)) from failed.__cause__

    # --- calls that failed -----------------------------------------------------------

    def _note(self, chunk: Chunk, times_ms: Sequence[int], rows: int) -> None:
        if self._slice_number != self._keyed.slice_number:
            self._slice_number = self._keyed.slice_number
            self._calls = []
        if rows and not self._step.form.is_immutable:
            self._calls.append((chunk, times_ms, rows))

    def _undo_call(self, chunk: Chunk, times_ms: Sequence[int], row: int) -> None:
        self._note(chunk, times_ms, row)
        key = chunk.keys[row]
        if key is None or not self._keyed.is_touched(key):
            return
        if self._step.form.is_immutable:
            self._state._take_back()
            return
        self._keyed.undo_key(key)
        for earlier, earlier_ms, rows in self._calls:
            chosen = [at for at, each in enumerate(earlier.keys[:rows]) if each == key]
            for at in chosen:
                time_ms = earlier_ms[at] if earlier_ms else 0
                self._repeat(earlier.slice(at, at + 1), time_ms)

    def _repeat(self, one: Chunk, time_ms: int) -> None:
        arguments: list[object] = [self._state._begin(one.keys[0], time_ms)]
        if self._step.key_of is not None:  # timers of the first call were kept then
            arguments += list(self._contexts(one, TimerRequests()))
        result = self._step.function(one.values[0], *arguments)
        if self._step.expands:
            list(result)


class _Expiry:
    """When the values of a state are gone: found by the watermark, in order of time."""

    def __init__(self, keyed: Keyed, plain: State[Value], ttl_ms: int) -> None:
        self.state: ExpiringState[Value] = ExpiringState(plain, ttl_ms)
        self._keyed = keyed
        self._ttl_ms = ttl_ms
        self._undo_number = -1
        self._due = DueKeys()

    def note(self) -> None:
        """Note the values that were set."""
        self._find()
        for at_ms, key in self.state.expirations:
            self._due.add(key, at_ms)
        self.state.expirations = []

    def due_ms(self) -> int | None:
        self._find()
        return self._due.first_ms()

    def remove(self, watermark_ms: int) -> None:
        """Remove the values that are gone at a time."""
        self._find()
        for key in self._due.take(watermark_ms):
            found = self._keyed.values.get(key)
            if found is None:
                continue
            at_ms = found[0] + self._ttl_ms
            if at_ms <= watermark_ms:
                self._keyed.put(key, MISSING)
            else:  # it was set again
                self._due.add(key, at_ms)

    def _find(self) -> None:
        """Find again which values are next, at the start and if a slice was undone."""
        if self._undo_number == self._keyed.undo_number:
            return
        self._undo_number = self._keyed.undo_number
        values = self._keyed.values.items()
        self._due.reset((key, each[0] + self._ttl_ms) for key, each in values)


def stateful_form(
    kind: Kind, name: str, options: StatefulOptions
) -> tuple[StateFormat, int | None]:
    """Return how a state is stored, and after how many ms its values are gone.

    Raises:
        TopologyError: Values of this type cannot be stored.
        UsageError: ``ttl`` is not a duration.
    """
    ttl = options.get("ttl")
    migrate = options.get("migrate")
    form = format_of(kind if ttl is None else _timed_type(kind), name)
    if migrate is not None:
        check_callable(migrate, "migrate=")
        form = replace(form, migrate=migrate if ttl is None else _migrating(migrate))
    return form, None if ttl is None else duration_ms(ttl, "ttl")


def _timed_type(kind: Kind) -> Kind:
    """Return the type of a value with the event time at which it was set."""
    container: Kind = tuple
    return container[int, kind]


def _migrating(migrate: Call) -> Call:
    """Return how a stored value becomes one with its time; it may have been stored without."""

    def migrated(stored: Value) -> tuple[int, Value]:
        has_time = isinstance(stored, list) and len(stored) == 2 and type(stored[0]) is int
        return (stored[0], migrate(stored[1])) if has_time else (_MIGRATED_MS, migrate(stored))

    return migrated


def reducing(function: Call, form: StateFormat) -> Call:
    """Make a stateful function that combines each value with the result of those before.

    A later stage gets a copy, because it may change it in place.
    """

    def reduce(value: T, state: State[T]) -> T:
        before = state.get(MISSING)
        result = value if before is MISSING else function(before, value)
        state.set(result)
        copied: T = form.copy(result)
        return copied

    return reduce


def first_only(value: T, state: State[bool]) -> T | None:
    """Return the first value of each key, and None for all later ones."""
    if state.get():
        return None
    state.set(True)
    return value
