"""Retry policies: how many retries, and the pause before each. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from streamkit.client import checks
from streamkit.units import seconds_of

_STEPS_MAX = 64
# Called before a retry with the error and the number of the attempt that failed.
OnRetry = Callable[[Exception, int], None]
Strategy = Literal["exponential", "fibonacci", "fixed"]


def _fibonacci(step: int) -> int:
    this, following = 1, 1
    for _ in range(step):
        this, following = following, this + following
    return this


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How transient errors are retried.

    Args:
        initial_delay: The pause before the first retry, in seconds or as a timedelta.
        max_delay: The longest pause; not used by ``fixed``.
        strategy: ``exponential`` doubles the pause each time, ``fibonacci`` adds the last two
            pauses, ``fixed`` keeps the same pause.
        max_retries: Attempts after the first; None means that only time limits them.

    Raises:
        UsageError: A value is not valid.
    """

    initial_delay: float | timedelta = 0.05
    max_delay: float | timedelta = 2.0
    strategy: Strategy = "exponential"
    max_retries: int | None = None

    def __post_init__(self) -> None:
        names = ("exponential", "fibonacci", "fixed")
        checks.choice("strategy", self.strategy, dict.fromkeys(names))
        checks.seconds("initial_delay", self.initial_delay)
        checks.seconds("max_delay", self.max_delay)
        checks.optional(checks.whole, "max_retries", self.max_retries, 0, checks.I64_MAX)

    def delay_s(self, retry: int) -> float:
        """Return the pause before a retry; the first retry has number 0."""
        first_s = seconds_of(self.initial_delay)
        if self.strategy == "fixed":
            return first_s
        # After many retries 2.0**n would overflow a float.
        steps = min(retry, _STEPS_MAX)
        factor = 2.0**steps if self.strategy == "exponential" else _fibonacci(steps)
        return min(first_s * factor, seconds_of(self.max_delay))


DEFAULT_POLICY = RetryPolicy()


@dataclass(slots=True)
class Backoff:
    """The pauses of one series of failures, as a policy sets them."""

    policy: RetryPolicy = DEFAULT_POLICY
    attempt: int = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether the policy allows no further attempt."""
        return self.policy.max_retries is not None and self.attempt >= self.policy.max_retries

    def next_s(self) -> float:
        """Return the pause before the next attempt."""
        pause_s = self.policy.delay_s(self.attempt)
        self.attempt += 1
        return pause_s

    def reset(self) -> None:
        """Start again with the shortest pause, after a success."""
        self.attempt = 0
