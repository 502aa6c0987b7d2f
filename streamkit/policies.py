"""What happens to a record that fails: retries, and where it is put aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

from streamkit.errors import UsageError
from streamkit.windows import duration_ms

_DELAY_MS_MAX: Final = 24 * 60 * 60 * 1_000
_DOUBLINGS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Writes the record with its error to another place, and continues. See `dead_letter`."""

    target: Any

    def __str__(self) -> str:
        return f"dead letters to {self.target}"


Last = Literal["fail", "skip"] | DeadLetter


@dataclass(frozen=True, slots=True)
class Retry:
    """Tries again after a delay. See `retry`."""

    attempts: int
    delay_s: float
    max_delay_s: float
    on: tuple[type[BaseException], ...]
    open_circuit_after: int | None = None
    open_circuit_on: tuple[type[BaseException], ...] | None = None
    last: Last = "fail"

    def then(self, policy: Last) -> Retry:
        """Return the same retries, with another policy for a record that still fails.

        Args:
            policy: ``"fail"``, ``"skip"`` or `dead_letter`.

        Raises:
            UsageError: It is none of these.
        """
        return replace(self, last=_checked_last(policy))

    def is_for(self, error: BaseException) -> bool:
        """Return whether an error is one that may pass."""
        return isinstance(error, self.on)

    def may_open_circuit(self, error: BaseException) -> bool:
        """Return whether an error that may pass says that the called service is down."""
        return self.open_circuit_on is None or isinstance(error, self.open_circuit_on)

    def delay_after_s(self, attempts: int, share: float, wanted_s: float | None = None) -> float:
        """Return how long to wait after some failed attempts.

        The delay doubles with each attempt up to the maximum. Half of it is random, so that many
        records do not come back at the same moment.

        Args:
            attempts: How many attempts have failed; at least 1.
            share: A random number from 0 to 1.
            wanted_s: What the called service asks for, such as Retry-After of HTTP. It is never
                longer than the maximum.
        """
        doubled_s = self.delay_s * 2.0 ** min(attempts - 1, _DOUBLINGS_MAX)
        delay_s = min(doubled_s, self.max_delay_s) * (0.5 + 0.5 * share)
        return max(delay_s, min(wanted_s or 0.0, self.max_delay_s))

    def __str__(self) -> str:
        last = "" if self.last == "fail" else f", then {_shown(self.last)}"
        after = self.open_circuit_after
        pause = "" if after is None else f", pauses after {after} failures in a row"
        return f"up to {self.attempts} attempts{pause}{last}"


OnError = Literal["fail", "skip"] | Retry | DeadLetter


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of a stage: how it retries, and what happens to a record that still fails."""

    retry: Retry | None = None
    last: Last = "fail"

    @property
    def dead_letter(self) -> DeadLetter | None:
        """Where records are put aside, if they are."""
        return self.last if isinstance(self.last, DeadLetter) else None

    def __str__(self) -> str:
        return _shown(self.last) if self.retry is None else str(self.retry)


FAIL: Final = Policy()


def retry(
    attempts: int = 3,
    delay: float | timedelta = 0.2,
    max_delay: float | timedelta = 30.0,
    on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,),
    open_circuit_after: int | None = None,
    open_circuit_on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
) -> Retry:
    """Call a function again for a record that failed, after a delay.

    Records of the same key wait meanwhile, so the order of each key is kept; records without a
    key wait for the others of their partition. Other records continue. What waits is part of each
    commit, so it survives a crash. If an error has an attribute ``retry_after`` (seconds), or a
    response with the header Retry-After, the delay is at least that long.

    Args:
        attempts: How often the function is called for a record at most, with the first call.
        delay: How long to wait after the first failure, in seconds or as a timedelta. The delay
            doubles each time; half of it is random.
        max_delay: The longest delay.
        on: The errors that may pass. Other errors are not retried.
        open_circuit_after: After so many failures in a row, the stage pauses: it calls the
            function only once per delay until a call succeeds. These calls do not count as
            attempts, so a service that is down does not use up the attempts of every record.
        open_circuit_on: The errors that count for this, such as those of a connection: by default
            all that are retried. Name them if a record alone can cause errors that are retried.
            Otherwise so many of such records in a row pause the stage until one succeeds.

    Raises:
        UsageError: A number is not valid, or ``on`` is not a class of errors.
    """
    errors = _classes("on", on)
    down = None if open_circuit_on is None else _classes("open_circuit_on", open_circuit_on)
    if down is not None and open_circuit_after is None:
        raise UsageError("open_circuit_on= has no effect without open_circuit_after=")
    for name, number in (("attempts", attempts), ("open_circuit_after", open_circuit_after)):
        if number is not None and (type(number) is not int or number < 1):
            raise UsageError(f"{name}={number!r} must be a whole number of at least 1")
    delay_ms = duration_ms(delay, "delay", least=0)
    max_ms = duration_ms(max_delay, "max_delay", least=0)
    if max_ms > _DELAY_MS_MAX:
        raise UsageError(f"max_delay={max_delay!r} is longer than a day")
    first_s, max_s = min(delay_ms, max_ms) / 1_000, max_ms / 1_000
    return Retry(attempts, first_s, max_s, errors, open_circuit_after, down)


def _classes(
    option: str, given: type[BaseException] | tuple[type[BaseException], ...]
) -> tuple[type[BaseException], ...]:
    errors = given if isinstance(given, tuple) else (given,)
    for each in errors:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise UsageError(
                f"{option}={each!r} is not a class of errors",
                hint=f"for example {option}=OSError, or {option}=(OSError, TimeoutError)",
            )
    return errors


def dead_letter(target: Any) -> DeadLetter:
    """Write a record that fails to another place, with its error, and continue.

    A commit covers it like every other output, so no record is lost. `streamkit dlq` lists the
    records and gives them to the stage again.

    Args:
        target: The name of a topic, a `Topic`, or a connector such as ``JsonLines("dead.jsonl")``.

    Raises:
        UsageError: The target is none of these.
    """
    is_topic = isinstance(target, str) or type(target).__name__ == "Topic"
    if not is_topic and not callable(getattr(target, "writer", None)):
        raise UsageError(
            f"dead_letter({target!r}) is neither a topic nor a connector",
            hint='for a file use dead_letter(JsonLines("dead.jsonl"))',
        )
    return DeadLetter(target)


def policy_of(on_error: OnError) -> Policy:
    """Return the whole policy for what a user gives as ``on_error``.

    Raises:
        UsageError: It is not valid.
    """
    if isinstance(on_error, Retry):
        return Policy(on_error, on_error.last)
    return Policy(None, _checked_last(on_error))


def wanted_delay_s(error: BaseException, wall_s: float) -> float | None:
    """Return how long the called service asks to wait, if the error says so.

    Args:
        error: Any error; its attribute ``retry_after``, or the header of its ``response``.
        wall_s: Seconds since 1970, for a header with a date.
    """
    try:
        wanted = getattr(error, "retry_after", None)
        if wanted is None:
            headers = getattr(getattr(error, "response", None), "headers", None)
            wanted = headers.get("Retry-After") if isinstance(headers, Mapping) else None
        if wanted is None:
            return None
        return _seconds(wanted, wall_s)
    except Exception:  # the error is an object of the user, which may raise anything
        return None


def _seconds(wanted: Any, wall_s: float) -> float | None:
    if isinstance(wanted, timedelta):
        return max(0.0, wanted.total_seconds())
    try:
        found = float(wanted)
    except ValueError:
        date = parsedate_to_datetime(wanted)
        if date.tzinfo is None:  # dates of HTTP are in UTC, also in the forms without a zone
            date = date.replace(tzinfo=UTC)
        found = date.timestamp() - wall_s
    return max(0.0, found) if found == found else None


def _checked_last(policy: Any) -> Last:
    if isinstance(policy, DeadLetter):
        return policy
    if policy == "fail" or policy == "skip":
        found: Last = policy
        return found
    raise UsageError(
        f"on_error={policy!r} is not valid",
        hint='use "fail", "skip", dead_letter("topic") or retry(attempts=3).then("skip")',
    )


def _shown(last: Last) -> str:
    return {"fail": "stops the job", "skip": "skips the record"}.get(str(last), str(last))
