"""What the options of sources and sinks have in common: URLs, names and durations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from streamkit.connectors.sql.dialects import table_parts
from streamkit.connectors.sql.url import Database, database_of
from streamkit.errors import UsageError, shown
from streamkit.record import Value
from streamkit.settings.secret import Secret
from streamkit.units import seconds_of

# A function is called when the job starts, so it may read the settings of the job.
Url = str | Secret | Callable[[], str | Secret]

NAME_CHARACTERS_MAX: Final = 60


def node_name(table: str) -> str:
    """Return the name of a node for a table: a-z, 0-9 and ``-``."""
    plain = re.sub(r"[^a-z0-9]+", "-", table_parts(table)[-1].lower()).strip("-")
    return plain[:NAME_CHARACTERS_MAX].rstrip("-") or "table"


def names_of(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return names of columns that were given as one name or several.

    Raises:
        UsageError: They are not names.
    """
    found = (names,) if isinstance(names, str) else tuple(names or ())
    for each in found:
        if not isinstance(each, str) or not each:
            raise UsageError(f"{shown(each)} is not the name of a column")
    if len(set(found)) != len(found):
        raise UsageError(f"a column is named twice: {', '.join(found)}")
    return found


def duration_s(value: Value, name: str, *, zero: bool) -> float:
    """Return a duration in seconds.

    Raises:
        UsageError: It is not a valid duration.
    """
    seconds = seconds_of(value) if isinstance(value, int | float | timedelta) else math.nan
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"{name}={shown(value)} must be a number of seconds or a timedelta")
    if seconds == 0 and not zero:
        raise UsageError(f"{name}= must be more than 0 seconds")
    return float(seconds)


def checked_url(url: Url) -> Url:
    """Return a URL that does not show its password.

    Raises:
        UsageError: It is not a valid URL.
    """
    return url if callable(url) else database_of(url).url


def database_at(url: Url) -> Database:
    return database_of(url() if callable(url) else url)


def place_of(url: Url) -> str:
    return "a database of the settings" if callable(url) else str(database_of(url))
