"""Decides how a job stops; the worker carries out the decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum


class Phase(IntEnum):
    """The phases of a job, in the order in which they follow each other."""

    RUNNING = 0
    STOPPING_SOURCES = 1
    DRAINING = 2
    FLUSHING = 3
    COMMITTING = 4
    CLOSING = 5
    STOPPED = 6

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


# The share of the deadline by which a phase must be done. If a phase is quick, the next one has
# more time. The default deadline is 25 s, because most supervisors kill a process after 30 s.
DUE_SHARE = {
    Phase.STOPPING_SOURCES: 0.04,
    Phase.DRAINING: 0.44,
    Phase.FLUSHING: 0.76,
    Phase.COMMITTING: 0.92,
    Phase.CLOSING: 1.0,
}
FORCED_CLOSING_S = 1.0

# If draining is late, the job still flushes and commits: a commit is between two rounds, and the
# next run reads the rest again. If flushing is late, nothing is committed, because outputs that
# were not acknowledged must not be committed.
NEXT_IF_LATE = {
    Phase.STOPPING_SOURCES: Phase.DRAINING,
    Phase.DRAINING: Phase.FLUSHING,
    Phase.FLUSHING: Phase.CLOSING,
    Phase.COMMITTING: Phase.CLOSING,
    Phase.CLOSING: Phase.STOPPED,
}

EXIT_CLEAN, EXIT_FAILED, EXIT_LATE, EXIT_SIGNAL_BASE = 0, 1, 3, 128
# Several runs in a row have failed at the same record.
EXIT_CRASH_LOOP = 5


@dataclass(frozen=True, slots=True)
class Signal:
    """A stop signal arrived: 2 is SIGINT, 15 is SIGTERM."""

    number: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Every source has ended."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure ends the job. ``can_commit``: everything before it may be committed."""

    exit_code: int
    can_commit: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The work of a phase is finished."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Begin:
    phase: Phase


@dataclass(frozen=True, slots=True)
class Abandon:
    phase: Phase


@dataclass(frozen=True, slots=True)
class Exit:
    code: int


Event = Signal | Finished | Failed | Done | Tick
Command = Begin | Abandon | Exit


class Shutdown:
    """Decides what a stopping job does next.

    Args:
        deadline_s: Seconds for all phases together.
    """

    def __init__(self, deadline_s: float = 25.0) -> None:
        self.phase = Phase.RUNNING
        self.deadline_s = deadline_s
        self._started_s = math.nan
        self._due_s = math.inf
        self._exit_code = EXIT_CLEAN
        self._forced = False
        self._signalled = False

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handle one event; return the commands to carry out, in order.

        Args:
            event: What happened.
            now_s: Monotonic time in seconds. It is a parameter so that a test controls the clock.
        """
        match event:
            case Signal(number):
                return self._signal(number, now_s)
            case Finished() if self.phase is Phase.RUNNING:
                return self._start(now_s)
            case Failed():
                return self._fail(event, now_s)
            case Done(phase) if phase is self.phase:
                return self._enter(Phase(phase + 1))
            case Tick() if now_s >= self._due_s:
                self._exit_code = self._exit_code or EXIT_LATE
                return [Abandon(self.phase), *self._enter(NEXT_IF_LATE[self.phase])]
            case _:
                return []  # an event of an abandoned phase, or nothing is due yet

    def due_in_s(self, now_s: float) -> float:
        """Return how long the current phase may still take."""
        return max(0.0, self._due_s - now_s)

    def _signal(self, number: int, now_s: float) -> list[Command]:
        """First signal: stop in order. Second: close within a second. Third: exit immediately."""
        if self.phase is Phase.RUNNING:
            self._signalled = True
            return self._start(now_s)
        if not self._signalled:  # the job is already stopping, and this is the first signal
            self._signalled = True
            return []
        if self.phase is Phase.STOPPED:
            return []
        self._exit_code = EXIT_SIGNAL_BASE + number
        abandoned = Abandon(self.phase)
        if self._forced or self.phase is Phase.CLOSING:
            return [abandoned, *self._enter(Phase.STOPPED)]
        self._forced = True
        commands = self._enter(Phase.CLOSING)
        self._due_s = now_s + FORCED_CLOSING_S
        return [abandoned, *commands]

    def _fail(self, event: Failed, now_s: float) -> list[Command]:
        self._exit_code = self._exit_code or event.exit_code
        if self.phase is Phase.RUNNING:
            if event.can_commit:
                return self._start(now_s)
            self._started_s = now_s
            return self._enter(Phase.CLOSING)
        if self.phase < Phase.CLOSING and not event.can_commit:
            return [Abandon(self.phase), *self._enter(Phase.CLOSING)]
        return []

    def _start(self, now_s: float) -> list[Command]:
        self._started_s = now_s
        return self._enter(Phase.STOPPING_SOURCES)

    def _enter(self, phase: Phase) -> list[Command]:
        self.phase = phase
        if phase is Phase.STOPPED:
            self._due_s = math.inf
            return [Exit(self._exit_code)]
        self._due_s = self._started_s + DUE_SHARE[phase] * self.deadline_s
        return [Begin(phase)]
