"""`AppSettings`: what `App.settings` returns, to read an app's own settings in a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import msgspec

from streamkit.errors import UsageError
from streamkit.settings.fields import group_of

S = TypeVar("S", bound=msgspec.Struct)


class AppSettings(Generic[S]):
    """Returned by `App.settings`. Its values exist while the job runs, and in `App.test`."""

    def __init__(self, app: str, kind: type[S]) -> None:
        self.app = app
        self.kind = kind
        self.fields = group_of(kind)
        self._uses: dict[object, S | None] = {}
        self._current: S | None = None  # the last of them; other threads read it too

    def get(self) -> S:
        """Return the values.

        Raises:
            UsageError: No job runs, or the test has no values for required settings.
        """
        values = self._current
        if values is not None:
            return values
        if self._uses:
            raise UsageError(
                f"this test of {self.app!r} has no settings: give them with "
                f"app.test(settings={self.kind.__name__}(...))"
            )
        raise UsageError(
            f"the settings of {self.app!r} are known only while the job runs",
            hint="call get() in a stage, a source or a sink, not while the file is imported; "
            f"tests give values with app.test(settings={self.kind.__name__}(...))",
        )

    def begin(self, user: object, values: S | None) -> None:
        """Let `get` return ``values``, until another one begins or this one ends.

        Args:
            user: Identifies the test or the run that uses the values.
            values: None if there are none, because a setting is required.
        """
        self._uses.pop(user, None)
        self._uses[user] = self._current = values

    def end(self, user: object) -> None:
        """Remove the values of a test or a run."""
        self._uses.pop(user, None)
        self._current = next(reversed(self._uses.values()), None)

    @contextmanager
    def used_by_a_run(self, values: S) -> Iterator[None]:
        """Let `get` return the values in a block.

        Raises:
            UsageError: Another run of the app, with other values, has not ended.
        """
        run = _Run()
        if any(isinstance(each, _Run) and self._uses[each] != values for each in self._uses):
            raise UsageError(
                f"another run of {self.app!r} in this process has other settings",
                hint="wait until it ends, or start a process for each run",
            )
        self.begin(run, values)
        try:
            yield
        finally:
            self.end(run)


class _Run:
    """Identifies a run."""
