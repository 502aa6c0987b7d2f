"""How a job stops: every state and event of the state machine, then any sequence of events."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamkit.runtime.shutdown import (
    FORCED_CLOSING_S,
    Abandon,
    Begin,
    Command,
    Done,
    Event,
    Exit,
    Failed,
    Finished,
    Phase,
    Shutdown,
    Signal,
    Tick,
)

DEADLINE_S = 20.0
PHASES = [each for each in Phase if each not in (Phase.RUNNING, Phase.STOPPED)]
TERM, INT = 15, 2


def machine_in(phase: Phase, *, signalled: bool = True) -> Shutdown:
    """Return a state machine that is in a phase; all events so far were at second 0."""
    machine = Shutdown(DEADLINE_S)
    if phase is Phase.RUNNING:
        return machine
    machine.handle(Signal(TERM) if signalled else Finished(), 0.0)
    while machine.phase < phase:
        machine.handle(Done(machine.phase), 0.0)
    return machine


def test_a_signal_runs_every_phase_in_order_and_exits_with_0() -> None:
    machine = Shutdown(DEADLINE_S)
    commands = machine.handle(Signal(TERM), 0.0)
    for phase in PHASES:
        commands += machine.handle(Done(phase), 1.0)
    assert commands == [*map(Begin, PHASES), Exit(0)]


CLOSE = Begin(Phase.CLOSING)
SECOND_SIGNAL: dict[Phase, list[Command]] = {
    **{phase: [Abandon(phase), CLOSE] for phase in PHASES[:-1]},
    Phase.CLOSING: [Abandon(Phase.CLOSING), Exit(128 + INT)],
    Phase.STOPPED: [],
}


@pytest.mark.parametrize("phase", SECOND_SIGNAL)
def test_a_second_signal_skips_to_closing(phase: Phase) -> None:
    assert machine_in(phase).handle(Signal(INT), 1.0) == SECOND_SIGNAL[phase]


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_forced_closing_takes_one_second_and_exits_with_the_signal(phase: Phase) -> None:
    machine = machine_in(phase)
    machine.handle(Signal(TERM), 1.0)
    assert machine.due_in_s(1.0) == FORCED_CLOSING_S
    assert machine.handle(Tick(), 1.9) == []
    assert machine.handle(Tick(), 2.0) == [Abandon(Phase.CLOSING), Exit(128 + TERM)]


@pytest.mark.parametrize("phase", PHASES)
def test_a_first_signal_to_an_ending_job_changes_nothing(phase: Phase) -> None:
    machine = machine_in(phase, signalled=False)
    assert machine.handle(Signal(TERM), 1.0) == []
    assert machine.phase is phase


LATE: dict[Phase, list[Command]] = {
    Phase.STOPPING_SOURCES: [Abandon(Phase.STOPPING_SOURCES), Begin(Phase.DRAINING)],
    Phase.DRAINING: [Abandon(Phase.DRAINING), Begin(Phase.FLUSHING)],
    Phase.FLUSHING: [Abandon(Phase.FLUSHING), CLOSE],
    Phase.COMMITTING: [Abandon(Phase.COMMITTING), CLOSE],
    Phase.CLOSING: [Abandon(Phase.CLOSING), Exit(3)],
}


@pytest.mark.parametrize("phase", LATE)
def test_a_phase_is_abandoned_at_the_deadline_and_the_job_exits_with_3(phase: Phase) -> None:
    machine = machine_in(phase)
    assert machine.handle(Tick(), machine.due_in_s(0.0)) == LATE[phase]
    machine.handle(Done(Phase.DRAINING), DEADLINE_S)
    while machine.phase is not Phase.STOPPED:
        commands = machine.handle(Tick(), DEADLINE_S)
        assert commands
    if phase is not Phase.CLOSING:
        assert commands[-1] == Exit(3)


@pytest.mark.parametrize("can_commit", [True, False])
def test_after_a_failure_earlier_records_are_committed_if_possible(can_commit: bool) -> None:
    machine = Shutdown(DEADLINE_S)
    first = Phase.STOPPING_SOURCES if can_commit else Phase.CLOSING
    assert machine.handle(Failed(1, can_commit), 0.0) == [Begin(first)]


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_a_failure_while_stopping_ends_the_job_without_a_commit(phase: Phase) -> None:
    commands = machine_in(phase).handle(Failed(1, can_commit=False), 1.0)
    assert commands == [Abandon(phase), CLOSE]


@pytest.mark.parametrize("phase", list(Phase))
def test_an_event_of_another_phase_is_ignored(phase: Phase) -> None:
    machine = machine_in(phase)
    for other in Phase:
        if other is not phase:
            assert machine.handle(Done(other), 0.0) == []


EVENTS = st.one_of(
    st.sampled_from([TERM, INT]).map(Signal),
    st.just(Finished()),
    st.builds(Failed, st.sampled_from([1, 4]), st.booleans()),
    st.sampled_from(PHASES).map(Done),
    st.just(Tick()),
)


class AnyStop(RuleBasedStateMachine):
    """Any events at any times."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Shutdown(DEADLINE_S)
        self.now_s = 0.0
        self.begun_s = math.inf
        self.begun: list[Phase] = []
        self.abandoned: set[Phase] = set()
        self.exits: list[int] = []
        self.signals: list[int] = []
        self.failures: list[int] = []
        self.was_late = False

    @rule(seconds=st.floats(0, DEADLINE_S))
    def time_passes(self, seconds: float) -> None:
        """Send a tick whenever a phase is due, as the worker does."""
        end_s = self.now_s + seconds
        while self.machine.due_in_s(self.now_s) <= end_s - self.now_s and not self.exits:
            self.now_s += self.machine.due_in_s(self.now_s)
            self.was_late = True
            self.take(Tick())
        self.now_s = max(self.now_s, end_s)

    @rule(event=EVENTS)
    def something_happens(self, event: Event) -> None:
        self.take(event)

    @precondition(lambda self: self.begun and not self.exits)
    @rule()
    def the_phase_is_done(self) -> None:
        self.take(Done(self.machine.phase))

    def take(self, event: Event) -> None:
        if isinstance(event, Signal):
            self.signals.append(event.number)
        if isinstance(event, Failed) and not self.exits:
            self.failures.append(event.exit_code)
        for command in self.machine.handle(event, self.now_s):
            match command:
                case Begin(phase):
                    self.begun_s = min(self.begun_s, self.now_s)
                    self.begun.append(phase)
                case Abandon(phase):
                    self.abandoned.add(phase)
                case Exit(code):
                    self.exits.append(code)

    @invariant()
    def phases_only_go_forward_and_each_begins_once(self) -> None:
        assert self.begun == sorted(set(self.begun))

    @invariant()
    def nothing_is_committed_after_an_abandoned_flush(self) -> None:
        if Phase.FLUSHING in self.abandoned:
            assert Phase.COMMITTING not in self.begun
        if Phase.COMMITTING in self.begun:
            assert Phase.FLUSHING in self.begun

    @invariant()
    def it_ends_by_the_deadline(self) -> None:
        if self.now_s > self.begun_s + DEADLINE_S + FORCED_CLOSING_S:
            assert self.exits

    @invariant()
    def it_exits_only_once(self) -> None:
        assert len(self.exits) <= 1
        assert (self.machine.phase is Phase.STOPPED) == bool(self.exits)

    @invariant()
    def the_exit_code_has_its_reason(self) -> None:
        for code in self.exits:
            allowed = {128 + number for number in self.signals} if len(self.signals) > 1 else set()
            allowed |= set(self.failures)
            allowed |= {3} if self.was_late else set()
            allowed |= {0} if not self.failures and not self.abandoned else set()
            assert code in allowed


TestAnyStop = AnyStop.TestCase
