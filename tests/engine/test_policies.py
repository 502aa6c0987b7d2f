"""Retries, the circuit breaker, the limit of the rate, and the delays that a service asks for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final, Literal

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.policies import retry, wanted_delay_s
from streamkit.runtime.circuit import Circuit, Rate

ERROR: Final = OSError("away")
NOW: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
WALL_S: Final = NOW.timestamp()

# --- Delays ----------------------------------------------------------------------------

seconds: Final = st.sampled_from([0, 0.001, 0.2, 1, 30, 7_200])
shares: Final = st.floats(0, 1)


@given(seconds, seconds, st.integers(1, 10**6), shares, st.none() | st.floats(0, 10**9))
def test_a_delay_is_within_its_bounds(
    delay: float, max_delay: float, attempts: int, share: float, wanted: float | None
) -> None:
    policy = retry(5, delay=delay, max_delay=max_delay)
    found = policy.delay_after_s(attempts, share, wanted)
    doubled = min(min(delay, max_delay) * 2 ** min(attempts - 1, 30), max_delay)
    assert 0 <= found <= max_delay
    assert found >= doubled / 2
    if wanted is None:
        assert found <= doubled
    else:
        assert found >= min(wanted, max_delay)


def test_a_delay_doubles_until_the_maximum() -> None:
    policy = retry(9, delay=1, max_delay=5)
    assert [policy.delay_after_s(n, 1.0) for n in (1, 2, 3, 4, 9)] == [1, 2, 4, 5, 5]
    assert [policy.delay_after_s(n, 0.0) for n in (1, 2, 3, 4, 9)] == [0.5, 1, 2, 2.5, 2.5]


# --- What a service asks for -----------------------------------------------------------


class Asking(Exception):
    def __init__(self, retry_after: object = None, response: object = None) -> None:
        super().__init__()
        self.retry_after = retry_after
        self.response = response


class Hostile(Exception):
    @property
    def retry_after(self) -> object:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


class HalfHostile(Exception):
    @property
    def response(self) -> object:
        raise RuntimeError


def with_header(value: str) -> Asking:
    return Asking(response=httpx2.Response(429, headers={"retry-after": value}))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(), None),
        (Asking(3), 3.0),
        (Asking(0), 0.0),
        (Asking(-3), 0.0),
        (Asking("2.5"), 2.5),
        (Asking(timedelta(minutes=2)), 120.0),
        (Asking(timedelta(seconds=-2)), 0.0),
        (Asking(float("nan")), None),
        (Asking("nan"), None),
        (Asking(float("inf")), float("inf")),
        (Asking(10**400), None),
        (Asking("soon"), None),
        (Asking(""), None),
        (Asking([1]), None),
        (Asking(object()), None),
        (Hostile(), None),
        (HalfHostile(), None),
        (Asking(response="no response"), None),
        (Asking(response=httpx2.Response(503)), None),
        (with_header("7"), 7.0),
        (with_header("-7"), 0.0),
        (with_header("NaN"), None),
        (with_header("a while"), None),
        (with_header(format_datetime(NOW + timedelta(seconds=90), usegmt=True)), 90.0),
        (with_header(format_datetime(NOW - timedelta(seconds=90), usegmt=True)), 0.0),
        (with_header("Sun, 01 Mar 2026 12:00:30 -0000"), 30.0),
        (with_header("Sunday, 01-Mar-26 12:00:30 GMT"), 30.0),
        (with_header("Sun Mar  1 12:00:30 2026"), 30.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_the_wanted_delay_is_read_from_an_error(
    error: BaseException, wanted: float | None, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    __import__("time").tzset()
    try:
        assert wanted_delay_s(error, WALL_S) == wanted
    finally:
        monkeypatch.undo()
        __import__("time").tzset()


# --- The circuit breaker ---------------------------------------------------------------

Ending = Literal["succeeds", "fails", "fails for good"]
endings: Final[st.SearchStrategy[Ending]] = st.sampled_from(
    ["succeeds", "fails", "fails", "fails", "fails for good"]
)


class CircuitModel:
    """Compares a circuit with its table, call by call."""

    def __init__(self, after: int) -> None:
        self.circuit = Circuit(retry(3, delay=1, max_delay=8, open_circuit_after=after))
        self.notes: list[str] = []
        self.circuit.on_change = self.notes.append
        self.after = after
        self.failures = 0
        self.openings = 0
        self.until_s = 0.0
        # The calls in progress: whether each is a probe.
        self.calls: list[bool] = []

    def begin(self, now_s: float) -> None:
        is_open = self.openings > 0
        may_begin = not is_open or (now_s >= self.until_s and True not in self.calls)
        assert self.circuit.allows(now_s) == may_begin
        if may_begin:
            assert self.circuit.began() == is_open
            self.calls.append(is_open)

    def end(self, number: int, ending: Ending, now_s: float) -> None:
        if not self.calls:
            return
        is_probe = self.calls.pop(number % len(self.calls))
        was_open = self.openings > 0
        if ending == "succeeds":
            self.circuit.succeeded()
            self.failures = self.openings = 0
            # Calls that have begun as probes are no probes of a closed circuit.
            self.calls = [False for _ in self.calls]
        elif ending == "fails for good":
            self.circuit.failed_for_good(is_probe=is_probe)
        else:
            counts = self.circuit.failed(now_s, ERROR, 1.0, is_probe=is_probe)
            assert counts == (not was_open)
            self.failures += 1
            if (not was_open and self.failures >= self.after) or (was_open and is_probe):
                self.openings += 1
                self.until_s = now_s + min(2 ** (self.openings - 1), 8)

    def check(self) -> None:
        assert self.circuit.is_open == (self.openings > 0)
        is_waiting = self.openings > 0 and True not in self.calls
        assert self.circuit.next_s() == (self.until_s if is_waiting else None)


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), endings, st.sampled_from([0, 0.5, 1, 8]))),
)
def test_a_circuit_follows_its_table(
    after: int, events: list[tuple[bool, int, Ending, float]]
) -> None:
    model = CircuitModel(after)
    now_s = 0.0
    for begins, number, ending, passed_s in events:
        now_s += passed_s
        if begins:
            model.begin(now_s)
        else:
            model.end(number, ending, now_s)
        model.check()


def test_a_circuit_reports_when_it_opens_and_closes() -> None:
    circuit = Circuit(retry(3, delay=1, open_circuit_after=2))
    notes: list[str] = []
    circuit.on_change = notes.append
    for _ in range(3):
        circuit.failed(0.0, ERROR, 1.0, is_probe=False)
    circuit.succeeded()
    circuit.succeeded()
    assert [note[:21] for note in notes] == ["the circuit is open a", "the circuit is closed"]


@pytest.mark.parametrize("policy", [None, retry(3)])
def test_a_circuit_without_a_limit_never_opens(policy: object) -> None:
    circuit = Circuit(policy)  # type: ignore[arg-type]
    for _ in range(100):
        assert circuit.failed(0.0, ERROR, 1.0, is_probe=False)
    assert circuit.allows(0.0)


@pytest.mark.parametrize(("wanted_s", "pause_s"), [(5.0, 5.0), (100.0, 8.0), (0.1, 1.0)])
def test_an_open_circuit_waits_as_long_as_the_service_asks(wanted_s: float, pause_s: float) -> None:
    circuit = Circuit(retry(3, delay=1, max_delay=8, open_circuit_after=1))
    circuit.failed(0.0, ERROR, 1.0, wanted_s, is_probe=False)
    assert circuit.next_s() == pause_s


def test_an_old_call_that_fails_does_not_end_a_probe() -> None:
    circuit = Circuit(retry(3, delay=1, max_delay=8, open_circuit_after=1))
    circuit.failed(0.0, ERROR, 1.0, is_probe=False)
    assert circuit.began()
    circuit.failed(1.0, ERROR, 1.0, is_probe=False)
    assert not circuit.allows(5.0)


def test_a_probe_that_fails_for_good_lets_another_one_begin() -> None:
    circuit = Circuit(retry(3, delay=1, open_circuit_after=1))
    circuit.failed(0.0, ERROR, 1.0, is_probe=False)
    circuit.failed_for_good(is_probe=circuit.began())
    assert circuit.is_open
    assert circuit.allows(1.0)


# --- The limit of the rate -------------------------------------------------------------


@given(
    st.sampled_from([0.5, 1, 3, 10, 25, 1_000]),
    st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.04, 0.3, 2.5]), max_size=60),
)
def test_a_rate_is_never_exceeded(per_s: float, steps: list[float]) -> None:
    rate = Rate(per_s)
    now_s, began = 0.0, list[float]()
    for step in steps:
        now_s += step
        while rate.allows(now_s):
            rate.began(now_s)
            began.append(now_s)
        due_s = rate.next_s()
        assert due_s is not None
        assert now_s < due_s <= now_s + 1 / per_s + 1e-9
        assert rate.allows(due_s)
    for first, start_s in enumerate(began):
        for count, end_s in enumerate(began[first:], 1):
            assert count <= per_s * (end_s - start_s + 0.1) + 1 + 1e-6


def test_a_rate_is_reached_if_calls_always_wait() -> None:
    rate = Rate(50)
    now_s = 0.0
    for _ in range(500):
        now_s = max(now_s, rate.next_s() or 0.0)
        assert rate.allows(now_s)
        rate.began(now_s)
    assert now_s == pytest.approx(10, abs=0.2)


def test_without_a_rate_every_call_may_begin() -> None:
    rate = Rate(None)
    rate.began(0.0)
    assert rate.allows(0.0)
    assert rate.next_s() is None


@pytest.mark.parametrize("on", [OSError, (KeyError, OSError)])
def test_only_the_named_errors_are_retried(on: type[OSError]) -> None:
    check: Callable[[BaseException], bool] = retry(on=on).is_for
    assert check(ConnectionError())
    assert not check(ValueError())
