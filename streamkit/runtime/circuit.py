"""Decides when calls of a stage may begin: the circuit breaker and the limit of the rate. No I/O.

| state of the circuit | event | next |
|---|---|---|
| closed | a call succeeds | closed; failures are counted from 0 again |
| | so many calls in a row fail | open, until the delay is over |
| open | the delay is over | probing: one call may begin |
| probing | the call succeeds | closed |
| | the call fails | open, for twice the delay |
| | the call fails with an error that does not pass | open: another call may begin |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from streamkit.policies import Retry
from streamkit.runtime.failures import error_text

# A limit of the rate allows so many seconds' worth of calls at once.
_BURST_S: Final = 0.1
_SHOWN_MAX: Final = 200


class Circuit:
    """The circuit breaker of one stage.

    Args:
        retry: Its policy; None if it never opens.
    """

    def __init__(self, retry: Retry | None) -> None:
        self._after = None if retry is None else retry.open_circuit_after
        self._retry = retry
        # Called with a sentence when it opens or closes.
        self.on_change: Callable[[str], None] = lambda text: None
        self._failures = 0
        self._openings = 0
        self._until_s = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether the stage pauses."""
        return self._openings > 0

    @property
    def is_probing(self) -> bool:
        """Whether a probe is in progress, whose end decides."""
        return self._is_probing

    def allows(self, now_s: float) -> bool:
        """Return whether a call may begin."""
        return not self._openings or (not self._is_probing and now_s >= self._until_s)

    def began(self) -> bool:
        """Note that a call has begun; return whether it is the probe of an open circuit."""
        self._is_probing = self._openings > 0
        return self._is_probing

    def next_s(self) -> float | None:
        """Return when a call may begin; None if one may begin now, or one is in progress."""
        return self._until_s if self._openings and not self._is_probing else None

    def succeeded(self) -> None:
        """Note a call that succeeded."""
        if self._openings:
            self.on_change("the circuit is closed: a call has succeeded")
        self._failures = self._openings = 0
        self._is_probing = False

    def failed_for_good(self, *, is_probe: bool) -> None:
        """Note a call that failed with an error that does not pass.

        It does not show whether the service is up. Without another probe, the stage would pause
        for ever.
        """
        if is_probe:
            self._is_probing = False

    def failed(
        self,
        now_s: float,
        error: BaseException,
        share: float,
        wanted_s: float | None = None,
        *,
        is_probe: bool,
    ) -> bool:
        """Note a call that failed with an error that may pass.

        Args:
            now_s: The monotonic time.
            error: The error, for the note.
            share: A random number from 0 to 1.
            wanted_s: What the called service asks for; see `Retry.delay_after_s`.
            is_probe: What `began` returned for it. Calls that have begun before the circuit opened
                may end while it probes.

        Returns:
            Whether the call counts as an attempt: not while the circuit is open.
        """
        if self._after is None or self._retry is None:
            return True
        self._failures += 1
        was_open = self._openings > 0
        was_probe = is_probe and self._is_probing
        self._is_probing = self._is_probing and not was_probe
        if self._failures < self._after or (was_open and not was_probe):
            return not was_open
        self._openings += 1
        delay_s = self._retry.delay_after_s(self._openings, share, wanted_s)
        self._until_s = now_s + delay_s
        if not was_open:
            self.on_change(
                f"the circuit is open after {self._failures} failures in a row; the stage pauses "
                f"and calls once in {delay_s:.1f} s, then less often: "
                f"{error_text(error, _SHOWN_MAX).partition(chr(10))[0]}"
            )
        return not was_open


class Rate:
    """Allows a number of calls a second, evenly, with short bursts.

    Args:
        per_s: Calls a second; None for no limit.
    """

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 0.0 if per_s is None else 1.0 / per_s
        self._burst_s = max(0.0, _BURST_S - self._gap_s)
        self._next_s = float("-inf")

    def allows(self, now_s: float) -> bool:
        """Return whether a call may begin."""
        return not self._gap_s or now_s >= self._next_s - self._burst_s

    def began(self, now_s: float) -> None:
        """Note that a call has begun."""
        if self._gap_s:
            self._next_s = max(self._next_s, now_s) + self._gap_s

    def next_s(self) -> float | None:
        """Return when the next call may begin; None if there is no limit."""
        return self._next_s - self._burst_s if self._gap_s else None
