"""Progress of a long command: a live line on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from streamkit.observe.streams import standard_error

_LIVE_S: Final = 0.2
_LOG_S: Final = 5.0


class ProgressLine:
    """Reports progress on standard error; frequent updates are printed at intervals."""

    def __init__(
        self,
        verb: str,
        *,
        is_live: bool | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verb = verb
        self._clock_s = clock_s
        self._out = standard_error()
        self._is_live = self._out.is_terminal if is_live is None else is_live
        self._every_s = _LIVE_S if self._is_live else _LOG_S
        self._started_s = self._reported_s = clock_s()
        self._line_width = 0

    @property
    def elapsed_s(self) -> float:
        return self._clock_s() - self._started_s

    def update(self, count: int, done_bytes: int, total_bytes: int | None) -> None:
        now_s = self._clock_s()
        if now_s - self._reported_s < self._every_s:
            return
        self._reported_s = now_s
        text = f"{count:,} {self._verb}, {rate(count, self.elapsed_s)}"
        if total_bytes:
            text += f", {min(100, done_bytes * 100 // total_bytes)} %"
        if self._is_live:
            self._out.write(f"\r{text:<{self._line_width}}")
            self._line_width = len(text)
        else:
            self._out.line(text)

    def clear(self) -> None:
        """Remove the live line, so that something else can be printed."""
        if self._line_width:
            self._out.write(f"\r{'':<{self._line_width}}\r")
            self._line_width = 0


def rate(count: int, elapsed_s: float) -> str:
    """Return records per second as text, rounded to two or three digits."""
    per_s = count / max(elapsed_s, 1e-3)
    digits = max(0, len(str(int(per_s))) - 2)
    return f"{int(round(per_s, -digits)):,}/s"


def seconds(elapsed_s: float) -> str:
    return f"{elapsed_s:.1f} s" if elapsed_s >= 0.1 else f"{elapsed_s:.3f} s"
