"""Which requests have a fault depends only on the seed, the key and the number of the request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http_service.faults import Fault, checked, fault_of, from_json

KEYS = [str(number) for number in range(2_000)]


def test_the_same_seed_gives_the_same_faults_and_another_seed_gives_others() -> None:
    fault = Fault("drop", share_of_requests=0.5)
    first = [fault.applies(7, key, 1) for key in KEYS]
    assert first == [fault.applies(7, key, 1) for key in KEYS]
    assert first != [fault.applies(8, key, 1) for key in KEYS]


def test_a_share_of_keys_has_the_fault_in_every_request() -> None:
    fault = Fault("drop", share_of_keys=0.3)
    chosen = [key for key in KEYS if fault.applies(1, key, 1)]
    assert 0.27 * len(KEYS) < len(chosen) < 0.33 * len(KEYS)
    assert chosen == [key for key in KEYS if fault.applies(1, key, 9)]


def test_a_share_of_requests_has_the_fault_for_each_key() -> None:
    fault = Fault("drop", share_of_requests=0.3)
    count = sum(fault.applies(1, "7", number) for number in range(1, 2_001))
    assert 540 < count < 660


def test_two_faults_of_one_share_choose_different_keys() -> None:
    one, two = (Fault("drop", name, share_of_keys=0.5) for name in ("one", "two"))
    both = sum(one.applies(1, key, 1) and two.applies(1, key, 1) for key in KEYS)
    assert 0.2 * len(KEYS) < both < 0.3 * len(KEYS)


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True)])
def test_a_share_of_nothing_or_of_everything_is_exact(share: float, expected: bool) -> None:
    assert {Fault("drop", share_of_keys=share).applies(1, key, 1) for key in KEYS} == {expected}


def test_only_the_first_requests_of_the_named_keys_have_the_fault() -> None:
    fault = Fault("drop", keys=("a", "b"), first=2)
    found = {
        (key, number) for key in "abc" for number in (1, 2, 3) if fault.applies(1, key, number)
    }
    assert found == {("a", 1), ("a", 2), ("b", 1), ("b", 2)}


def test_the_first_of_several_faults_applies() -> None:
    faults = Fault("drop", keys=("a",)), Fault("hang")
    assert fault_of(faults, 1, "a", 1) == faults[0]
    assert fault_of(faults, 1, "b", 1) == faults[1]
    assert fault_of((), 1, "a", 1) is None


def test_a_fault_is_counted_under_its_name_or_its_kind_or_its_status() -> None:
    faults = Fault("drop", "lost"), Fault("drop"), Fault("status", status=503)
    assert [fault.label for fault in faults] == ["lost", "drop", "503"]


def test_two_faults_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="the same name: 500, 500"):
        checked((Fault("status"), Fault("status", keys=("a",))))


def test_faults_are_created_from_json() -> None:
    assert from_json([{"kind": "slow", "seconds": 0.5, "keys": ["a"]}, {"kind": "hang"}]) == (
        Fault("slow", seconds=0.5, keys=("a",)),
        Fault("hang"),
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"kind": "explode"}], "'explode' is not a valid fault"),
        ([{"kind": "status", "status": 200}], "200 is not the status of an error"),
        ([{"kind": "drop", "share_of_keys": 2}], "2 is not a share"),
        ([{"kind": "drop", "speed": 1}], "speed"),
        ([{}], "kind"),
        ([7], "not a list of faults"),
        ([{"kind": "drop"}, {"kind": "drop"}], "the same name"),
    ],
)
def test_invalid_json_is_refused(rows: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_json(rows)
