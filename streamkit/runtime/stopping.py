"""Carries out what `Shutdown` decides: phase after phase, each of which may be given up."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

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

Work = Callable[[], Awaitable[None]]


class Observer(Protocol):
    """Who is told what happens."""

    def phase(self, phase: Phase, detail: str) -> None: ...

    def note(self, text: str) -> None: ...


class Stopping:
    """Follows a job from its first event to its exit code.

    Args:
        work: What each phase does.
        give_up: What else to do where a phase is given up, before the next begins.
        unacknowledged: Records by sink that may still be lost, for the reports.
        clock: Time.
        observer: Told of every phase.
        deadline_s: Seconds for all phases together.
        on_failure: Told of a phase that fails: nothing may be committed any more.
        on_begin: Called with the deadline when the job begins to stop, whatever the reason: it
            must hold also where the event loop does not turn any more.
    """

    def __init__(
        self,
        work: Mapping[Phase, Work],
        *,
        give_up: Mapping[Phase, Callable[[], None]],
        unacknowledged: Callable[[], dict[str, int]],
        clock: Clock,
        observer: Observer,
        deadline_s: float,
        on_failure: Callable[[BaseException], None],
        on_begin: Callable[[float], None],
    ) -> None:
        self._work = work
        self._give_up = give_up
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
        """Take an event; on the event loop."""
        self._events.append(event)
        self._happened.set()

    async def follow(self, tasks: TaskGroup) -> int:
        """Carry out what the events lead to; return the exit code."""
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
                detail = self._left_text() if phase is Phase.FLUSHING else ""
                self._observer.phase(phase, detail)
                scope = self._phase_scope = anyio.CancelScope()
                tasks.start_soon(self._run_phase, phase, scope)
            case Abandon(phase):
                left = self._left_text()
                self._observer.note(f"gave up on {phase.label}{': ' if left else ''}{left}")
                if self._phase_scope is not None:
                    self._phase_scope.cancel()
                if phase in self._give_up:
                    self._give_up[phase]()
            case Exit(code):
                self.exit_code = code

    async def _run_phase(self, phase: Phase, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                await self._work[phase]()
            except Exception as error:  # a full disk, say: the job must still end in order
                self._on_failure(error)
                return
            self.happen(Done(phase))

    def _left_text(self) -> str:
        left = self._unacknowledged()
        if not left:
            return ""
        held = ", ".join(f"{count} for {name}" for name, count in left.items())
        return f"unacknowledged records: {held}"
