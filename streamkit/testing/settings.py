"""The settings that a test gives to an app."""

from __future__ import annotations

from typing import Any

import msgspec

from streamkit.errors import UsageError
from streamkit.settings import AppSettings


class TestSettings:
    """The values for one test job. ``own`` is None if the app declares no settings.

    Raises:
        UsageError: The values do not belong to the class of the app.
    """

    __test__ = False  # pytest would collect the class because of its name

    def __init__(self, own: AppSettings[Any] | None, given: msgspec.Struct | None) -> None:
        self._own = own
        self._values = given
        if own is None:
            if given is not None:
                raise UsageError(
                    "app.test(settings=...): this app has no settings",
                    hint="declare them with app.settings(MySettings)",
                )
        elif given is None:
            self._values = _defaults(own.kind)
        elif not isinstance(given, own.kind):
            raise UsageError(
                f"app.test(settings=...) is of the type {type(given).__name__}, "
                f"not {own.kind.__name__}",
                hint=f"give an object: app.test(settings={own.kind.__name__}(...))",
            )

    def begin(self) -> None:
        """Let the app read these values from now on."""
        if self._own is not None:
            self._own.begin(self, self._values)

    def end(self) -> None:
        """Remove these values."""
        if self._own is not None:
            self._own.end(self)


def _defaults(kind: type[msgspec.Struct]) -> msgspec.Struct | None:
    """Return an object with defaults only; None if a field has no default."""
    return None if any(each.required for each in msgspec.structs.fields(kind)) else kind()
