"""How long to wait between attempts. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_DOUBLINGS_MAX = 64


@dataclass(slots=True)
class Backoff:
    """Doubling pauses from ``first_s`` up to ``most_s``."""

    first_s: float = 0.05
    most_s: float = 2.0
    attempt: int = 0

    def next_s(self) -> float:
        """Return the pause before the next attempt."""
        # Of a broker that is away for an hour the power would leave what a float can hold.
        doublings = min(self.attempt, _DOUBLINGS_MAX)
        pause_s = min(self.first_s * 2.0**doublings, self.most_s)
        self.attempt += 1
        return pause_s

    def reset(self) -> None:
        """Learn that an attempt has succeeded."""
        self.attempt = 0
