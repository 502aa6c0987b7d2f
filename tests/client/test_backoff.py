"""How often a failed attempt is retried, and how long each pause is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamkit.client.backoff import Backoff, RetryPolicy
from streamkit.errors import UsageError


def test_pauses_double_up_to_the_maximum_and_start_again_after_a_reset() -> None:
    backoff = Backoff()
    pauses_s = [backoff.next_s() for _ in range(8)]
    assert pauses_s == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert not backoff.is_exhausted
    backoff.reset()
    assert backoff.next_s() == 0.05


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("fixed", [2, 2, 2, 2, 2, 2, 2]),
        ("exponential", [2, 4, 8, 16, 20, 20, 20]),
        ("fibonacci", [2, 2, 4, 6, 10, 16, 20]),
    ],
)
def test_a_policy_sets_the_length_and_the_number_of_pauses(
    strategy: Any, expected: list[float]
) -> None:
    policy = RetryPolicy(2, timedelta(seconds=20), strategy, max_retries=7)
    backoff = Backoff(policy)
    found = []
    while not backoff.is_exhausted:
        found.append(backoff.next_s())
    assert found == expected


def test_a_policy_without_retries_is_exhausted_immediately() -> None:
    assert Backoff(RetryPolicy(max_retries=0)).is_exhausted


@pytest.mark.parametrize(
    "options",
    [{"strategy": "linear"}, {"initial_delay": -1}, {"max_delay": -0.1}, {"max_retries": -1}],
)
def test_an_invalid_policy_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RetryPolicy(**options)


@pytest.mark.parametrize("strategy", ["exponential", "fibonacci"])
@pytest.mark.parametrize("attempts", [1_100, 5_000, 10_000])
def test_pauses_stay_at_the_maximum_after_days_of_retries(strategy: Any, attempts: int) -> None:
    """After 1,024 retries ``2.0**n`` would overflow a float."""
    backoff = Backoff(RetryPolicy(strategy=strategy))
    assert [backoff.next_s() for _ in range(attempts)][-1] == 2.0
