"""The queue of calls against its rules, whatever happens to the calls and to the job."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from streamkit.policies import Policy, dead_letter, retry
from streamkit.runtime.call_queue import CallLimits
from tests.engine.call_runs import KINDS, Passing, QueueRun, actions_of, each_seed, groups_of


def limits_of(chance: Random) -> CallLimits:
    return CallLimits(
        chance.choice(["input", "key", "none"]),
        chance.choice([1, 2, 3, 8]),
        chance.choice([None, None, 4, 100]),
        chance.choice([None, None, 1, 2, 3]),
        chance.choice([0.0, 0.5]),
    )


def policy_of(chance: Random) -> Policy:
    retries = retry(
        chance.choice([1, 2, 3, 1_000]),
        chance.choice([0, 0.1]),
        2,
        Passing,
        chance.choice([None, None, 1, 3]),
    )
    return Policy(retries, chance.choice(["fail", "skip", dead_letter("dead")]))


def finished(
    chance: Random, limits: CallLimits, policy: Policy, kinds: tuple[str, ...]
) -> QueueRun:
    run = QueueRun(limits, policy, groups_of(chance))
    for action in actions_of(chance, kinds):
        run.act(*action)
    run.to_the_end()
    return run


@each_seed(800)
def test_every_record_is_given_once_in_the_order_of_its_key(chance: Random) -> None:
    limits = limits_of(chance)
    run = finished(chance, limits, policy_of(chance), KINDS)
    run.check_results()
    per_s = limits.rate_per_s
    if per_s is not None:
        for first, start_s in enumerate(run.began_s):
            for count, end_s in enumerate(run.began_s[first:], 1):
                assert count <= per_s * (end_s - start_s + 0.1) + 1 + 1e-6


@each_seed(600)
def test_results_come_in_the_order_of_the_input_except_after_retries(chance: Random) -> None:
    limits = replace(limits_of(chance), order="input")
    policy = Policy(retry(1_000, delay=0.1, max_delay=2, on=Passing), "skip")
    run = finished(chance, limits, policy, tuple(each for each in KINDS if each != "crash"))
    run.check_results()
    retried = {(run.groups[each], each) for each in run.retried}
    for at, each in enumerate(run.given):
        for later in run.given[at + 1 :]:
            if later < each:  # it was retried, or a record of its key before it
                assert any(key == run.groups[later] and no <= later for key, no in retried)


@each_seed(600)
def test_a_record_has_no_more_attempts_than_it_may(chance: Random) -> None:
    attempts = chance.randint(1, 4)
    policy = Policy(retry(attempts, delay=0.1, max_delay=2, on=Passing), "skip")
    run = finished(chance, replace(limits_of(chance), batch=None), policy, KINDS)
    assert all(count < attempts for count in run.failures.values())
    for number, error in run.errors.items():
        if isinstance(error, Passing):
            assert run.failures[number] == attempts - 1


@each_seed(600)
def test_without_retries_every_failure_is_final(chance: Random) -> None:
    limits = limits_of(chance)
    run = finished(chance, limits, Policy(None, "skip"), KINDS)
    run.check_results()
    assert not run.retried
    if limits.order == "input":
        assert run.given == sorted(run.given)
