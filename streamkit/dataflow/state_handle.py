"""What a stage gets to read and change the state of the key of its record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar, overload

from streamkit.record import Value
from streamkit.state.change_log import MISSING
from streamkit.state.keyed import Keyed

T = TypeVar("T")
D = TypeVar("D")
_NO_KEY: Final = b""


class _Closed(dict[bytes, Value]):
    """The values of a state that was kept after its call, which refuse every use."""

    def _refuse(self, *arguments: object) -> Value:
        raise RuntimeError("a State can be used only during the call that got it")

    get = pop = __setitem__ = _refuse


CLOSED: Final = _Closed()


class State(Generic[T]):
    """The state of one key, during one call of a stage.

    A stage gets it by a parameter annotated ``State[Visits]``. The type is the one that the
    value has in every key. It is kept when the job commits, and the next run continues with it.
    """

    __slots__ = ("_before", "_key", "_keyed", "_remember", "_values")

    def __init__(self, keyed: Keyed) -> None:
        self._keyed = keyed
        # Keeps the first of the values that it gets for a key: the one before this slice.
        self._remember = keyed.before.setdefault
        self._values: dict[bytes, Value] = CLOSED
        self._key = _NO_KEY
        self._before: object = MISSING

    @overload
    def get(self) -> T | None: ...
    @overload
    def get(self, default: D) -> T | D: ...
    def get(self, default: Value = None) -> Value:
        """Return the value of this key, or ``default`` if it has none.

        A value that can be changed in place may be changed; `set` is not needed then.
        """
        return self._values.get(self._key, default)

    def set(self, value: T) -> None:
        """Replace the value of this key."""
        key = self._key
        self._values[key] = value
        self._remember(key, self._before)

    def clear(self) -> None:
        """Remove the value of this key."""
        self._values.pop(self._key, None)
        self._remember(self._key, self._before)

    # --- for the operator ------------------------------------------------------------

    def _open(self) -> None:
        self._values = self._keyed.values
        self._remember = self._keyed.before.setdefault

    def _close(self) -> None:
        self._values = CLOSED

    def _begin(self, key: bytes | None, now_ms: int = 0) -> State[T]:
        """Show the state of another key, at an event time."""
        if key is None:
            raise TypeError("the record has no key: group the stream with key_by first")
        self._key = key
        self._before = self._values.get(key, MISSING)
        return self

    def _each(self, keys: Iterable[bytes | None]) -> Iterator[State[T]]:
        """Show the state of each key in turn; as `_begin`, in one loop."""
        get = self._values.get
        for key in keys:
            if key is None:
                self._begin(key)
            self._key = key  # type: ignore[assignment]  # it is not None
            self._before = get(key, MISSING)  # type: ignore[arg-type]
            yield self

    def _take_back(self) -> None:
        """Undo what the last call did with an immutable value."""
        if self._before is MISSING:
            self._keyed.values.pop(self._key, None)
        else:
            self._keyed.values[self._key] = self._before


class ChangeableState(State[T]):
    """A state whose values may be changed in place, so each is encoded before user code gets it."""

    __slots__ = ()

    def get(self, default: Value = None) -> Value:
        value = self._values.get(self._key, default)
        self._keyed.touch(self._key)
        return value

    def set(self, value: T) -> None:
        self._values.get(self._key)  # it refuses if the call is over
        self._keyed.touch(self._key)
        self._values[self._key] = value

    def clear(self) -> None:
        self._values.get(self._key)
        self._keyed.touch(self._key)
        self._values.pop(self._key, None)


class ExpiringState(State[T]):
    """A state whose values are gone some time after they were set.

    Each value is kept with the event time at which it was set.
    """

    __slots__ = ("_inner", "_now_ms", "_ttl_ms", "expirations")

    def __init__(self, inner: State[tuple[int, T]], ttl_ms: int) -> None:
        super().__init__(inner._keyed)
        self._inner = inner
        self._ttl_ms = ttl_ms
        self._now_ms = 0
        # When values that were set are gone, with their keys.
        self.expirations: list[tuple[int, bytes]] = []

    def get(self, default: Value = None) -> Value:
        found = self._inner.get()
        if found is None or found[0] + self._ttl_ms <= self._now_ms:
            return default
        return found[1]

    def set(self, value: T) -> None:
        self._inner.set((self._now_ms, value))
        self.expirations.append((self._now_ms + self._ttl_ms, self._inner._key))

    def clear(self) -> None:
        self._inner.clear()

    def _open(self) -> None:
        self._inner._open()

    def _close(self) -> None:
        self._inner._close()

    def _begin(self, key: bytes | None, now_ms: int = 0) -> State[T]:
        self._inner._begin(key)
        self._now_ms = now_ms
        return self

    def _take_back(self) -> None:
        self._inner._take_back()
