"""Times on the command line: RFC 3339, dates, and ages such as ``2h``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from streamkit.cli.options import DURATION

_NUMBER: Final = re.compile(r"[\d.]+")


class Time(click.ParamType[datetime]):
    """``2024-05-01T12:00:00Z``, ``2024-05-01``, or an age: ``90s``, ``1h 30m``, ``2days``.

    A time without a zone is UTC, like all times that commands print.
    """

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        text = value.strip()
        if _NUMBER.fullmatch(text) is None or len(text) == len("20240501"):
            found = _absolute(text) or self._ago(text)
            if found is not None and found.timestamp() >= 0:
                return found
        self.fail(
            f"{value!r} is not a valid time (examples: 2024-05-01, 2024-05-01T12:00:00Z, 2h)",
            param,
            ctx,
        )

    @staticmethod
    def _ago(text: str) -> datetime | None:
        try:
            seconds = DURATION.convert(text, None, None)
            return datetime.now(UTC) - timedelta(seconds=seconds)
        except (click.BadParameter, OverflowError):
            return None


def _absolute(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


TIME: Final = Time()
