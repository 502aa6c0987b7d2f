"""The newest time that a source with ``delay=`` reads: now, by the clock of the database, less the
delay, in the form of the values of its column.

Rows that are younger may still get company: of a transaction that commits late, or with the same
coarse time. The next look reads them.
"""

from __future__ import annotations

import datetime as dt

from streamkit.connectors.sql.session import Result
from streamkit.errors import ConfigError, shown
from streamkit.record import Value


def newest(value: Value, now: Result, delay_s: float, *, is_instant: bool = False) -> Value:
    """Return the newest time to read.

    Args:
        value: A value of the column.
        now: The result of `Dialect.now`: the time in UTC, and in the zone of the database.
        delay_s: The delay, in seconds.
        is_instant: Whether times without a zone are in UTC, and not in the zone of the database.

    Raises:
        ConfigError: The column does not hold times.
    """
    utc, local = map(_time, now.rows[0])
    delay = dt.timedelta(seconds=delay_s)
    utc = utc.replace(tzinfo=dt.UTC) if utc.tzinfo is None else utc.astimezone(dt.UTC)
    local = local.replace(tzinfo=None)
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            return utc - delay
        return (utc.replace(tzinfo=None) if is_instant else local) - delay
    if isinstance(value, dt.date):
        return (local - delay).date()
    if isinstance(value, str):
        return _as_text(value, utc - delay)
    raise _no_time(value)


def _time(value: Value) -> dt.datetime:
    return value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))


def _as_text(value: str, time: dt.datetime) -> str:
    """Return a time as text that compares with texts like ``value``: a text with more digits, or
    with a zone, is higher, so the rows of its second are read a second later."""
    try:
        like = dt.datetime.fromisoformat(value)
    except ValueError:
        raise _no_time(value) from None
    # A text without a zone is in UTC.
    text = time.astimezone(like.tzinfo or dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    return text[:10] if len(value) == 10 else text.replace(" ", value[10])


def _no_time(value: Value) -> ConfigError:
    return ConfigError(
        f"delay= needs an incremental column with times, but {shown(value)} is not one",
        hint="use a column with the time of the change, or leave delay= out",
    )
