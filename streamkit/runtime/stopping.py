"""Carries out the decisions of `Shutdown`: runs phase after phase, and cancels late ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup

from streamkit.env import Clock
from streamkit.runtime.shutdown import (
    Abandon,
    Begin,
    Command,
    Done,
    Event,
    Exit,
    Phase,
    Shutdown,
    Tick,
)

# The first word of the message about a phase that was late.
ABANDONED: Final = "abandoned"

Work = Callable[[], Awaitable[None]]


class Observer(Protocol):
    """Receives the phases and messages of a job."""

    def phase(self, phase: Phase, detail: str) -> None: ...

    def note(self, text: str) -> None: ...


class Stopping:
    """Follows a job from its first event to its exit code.

    Args:
        work: The function that each phase runs.
        on_abandon: Functions to call when a phase is abandoned, before the next one begins.
        unacknowledged: Returns the unacknowledged records by sink, for the reports.
        clock: Source of time.
        observer: Receives every phase and message.
        deadline_s: Seconds for all phases together.
        on_failure: Called when a phase fails; after that nothing may be committed.
        on_begin: Called with the deadline when the job begins to stop, whatever the reason. It
            starts the watchdog, which works even if the event loop is blocked.
    """

    def __init__(
        self,
        work: Mapping[Phase, Work],
        *,
        on_abandon: Mapping[Phase, Callable[[], None]],
        unacknowledged: Callable[[], dict[str, int]],
        clock: Clock,
        observer: Observer,
        deadline_s: float,
        on_failure: Callable[[BaseException], None],
        on_begin: Callable[[float], None],
    ) -> None:
        self._work = work
        self._on_abandon = on_abandon
        self._unacknowledged = unacknowledged
        self._clock = clock
        self._observer = observer
        self._on_failure = on_failure
        self._on_begin = on_begin
        self._shutdown = Shutdown(deadline_s)
        self._events: deque[Event] = deque()
        self._happened = anyio.Event()
        self._phase_scope: anyio.CancelScope | None = None
        self.exit_code: int | None = None

    @property
    def has_begun(self) -> bool:
        return self._shutdown.phase is not Phase.RUNNING

    def happen(self, event: Event) -> None:
        """Add an event; call it in the event loop."""
        self._events.append(event)
        self._happened.set()

    async def follow(self, tasks: TaskGroup) -> int:
        """Handle events until the job has stopped; return the exit code."""
        while self.exit_code is None:
            event = await self._next_event()
            had_begun = self.has_begun
            commands = self._shutdown.handle(event, self._clock.monotonic_s())
            if self.has_begun and not had_begun:
                self._on_begin(self._shutdown.deadline_s)
            for command in commands:
                self._carry_out(command, tasks)
        return self.exit_code

    async def _next_event(self) -> Event:
        if not self._events:
            self._happened = anyio.Event()
            due_s = self._shutdown.due_in_s(self._clock.monotonic_s())
            with anyio.move_on_after(None if due_s == float("inf") else due_s):
                await self._happened.wait()
        return self._events.popleft() if self._events else Tick()

    def _carry_out(self, command: Command, tasks: TaskGroup) -> None:
        match command:
            case Begin(phase):
                detail = self._unacknowledged_text() if phase is Phase.FLUSHING else ""
                self._observer.phase(phase, detail)
                scope = self._phase_scope = anyio.CancelScope()
                tasks.start_soon(self._run_phase, phase, scope)
            case Abandon(phase):
                detail = self._unacknowledged_text()
                self._observer.note(f"{ABANDONED} {phase.label}{': ' if detail else ''}{detail}")
                if self._phase_scope is not None:
                    self._phase_scope.cancel()
                if phase in self._on_abandon:
                    self._on_abandon[phase]()
            case Exit(code):
                self.exit_code = code

    async def _run_phase(self, phase: Phase, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                await self._work[phase]()
            except Exception as error:  # after an error such as a full disk, the job still closes
                self._on_failure(error)
                return
            self.happen(Done(phase))

    def _unacknowledged_text(self) -> str:
        counts = self._unacknowledged()
        if not counts:
            return ""
        listed = ", ".join(f"{count} for {name}" for name, count in counts.items())
        return f"unacknowledged records: {listed}"
