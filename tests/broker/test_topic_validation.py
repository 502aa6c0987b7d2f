"""Checks of a new topic. Source: docs/protocol/admin.md, "Checks of a new topic"."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.broker.topic_validation import Refusal, check_new_topic
from streamkit.limits import PARTITIONS_MAX, TOPICS_MAX
from streamkit.protocol.error_codes import Code, ErrorCode, TextPayload
from streamkit.protocol.topic_specs import (
    AssignedReplicas,
    ComputedReplicas,
    Deduplication,
    HomeMirror,
    HomePartition,
    MirrorReplicas,
    PartitionMap,
    SegmentPolicy,
    TopicSpec,
    TopicStorage,
)

SPU_ID: Final = 5001
PLAIN: Final = TopicSpec()


def check(
    name: str = "t", spec: TopicSpec = PLAIN, *, topics: tuple[str, ...] = (), used: int = 0
) -> Refusal | None:
    return check_new_topic(name, spec, topics=topics, partitions_used=used, spu_id=SPU_ID)


def storage(segment: int | None = None, partition: int | None = None) -> TopicSpec:
    return TopicSpec(storage=TopicStorage(segment, partition))


def computed(partitions: int, replication: int = 1) -> TopicSpec:
    return TopicSpec(ComputedReplicas(partitions, replication, False))


def assigned(*maps: tuple[int, tuple[int, ...]]) -> TopicSpec:
    return TopicSpec(AssignedReplicas(tuple(PartitionMap(*each) for each in maps)))


def with_retention(seconds: int) -> TopicSpec:
    return TopicSpec(cleanup_policy=SegmentPolicy(seconds))


def with_deduplication(module: str) -> TopicSpec:
    return TopicSpec(deduplication=Deduplication(1, None, module))


# --- Names -------------------------------------------------------------------------

CHARACTERS: Final = "Contain only lowercase alphanumeric characters or '-'"


@pytest.mark.parametrize("name", ["a", "0", "a--b", "2024", "a" * 63, "a-1"])
def test_valid_names_are_accepted(name: str) -> None:
    assert check(name) is None


@pytest.mark.parametrize(
    "name", ["", "-", "-a", "a-", "A", "a_b", "a.b", "a b", "é", "a\n", "a/b", "a\0"]
)
def test_a_name_with_invalid_characters_is_refused(name: str) -> None:
    text = f"Invalid topic name: '{name}'. {CHARACTERS}"
    assert check(name) == Refusal(name, ErrorCode(Code.TOPIC_INVALID_NAME), text)


@pytest.mark.parametrize("name", ["a" * 64, "é" * 32])
def test_a_name_of_too_many_bytes_is_refused(name: str) -> None:
    text = f"Invalid topic name: '{name}'. Name exceeds max characters allowed 63"
    assert check(name) == Refusal(name, ErrorCode(Code.TOPIC_INVALID_NAME), text)


@given(st.text(max_size=70))
def test_any_name_is_accepted_or_refused_as_invalid(name: str) -> None:
    refusal = check(name)
    is_valid = 0 < len(name) <= 63 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    if is_valid and not name.startswith("-") and not name.endswith("-"):
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.error.code == Code.TOPIC_INVALID_NAME


# --- Numbers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        with_retention(10),
        storage(1024),
        storage(2048, 2048),
        storage(1024, 2048),
        storage(None, 1 << 30),
        storage(4_294_967_295),
        computed(PARTITIONS_MAX),
        assigned((0, (SPU_ID,)), (1, (SPU_ID,))),
    ],
)
def test_values_at_the_limits_are_accepted(spec: TopicSpec) -> None:
    assert check("t", spec) is None


SEQUENCE: Final = "assigned partition ids must be in sequence and without gaps"
REFUSED: Final = [
    (with_retention(9), 2004, "retention_secs 9 is less than minimum 10"),
    (storage(1023), 2004, "segment_size 1023 is less than minimum 1024"),
    (storage(1024, 2047), 2004, "max_partition_size 2047 is less than minimum 2048"),
    (storage(4096, 4095), 2004, "max_partition_size 4095 is less than segment size 4096"),
    (
        storage(None, (1 << 30) - 1),
        2004,
        "max_partition_size 1073741823 is less than segment size 1073741824",
    ),
    (computed(0), 2000, "partition must be greater than 0"),
    (computed(1, 0), 2000, "replication factor must be greater than 0"),
    (computed(PARTITIONS_MAX + 1), 2000, f"more than {PARTITIONS_MAX} partitions in total"),
    (assigned(), 2000, "no assigned partitions found"),
    (assigned((1, (SPU_ID,))), 2000, "assigned partitions must start with id 0"),
    (assigned((0, ())), 2000, "assigned replicas must have at least one spu id"),
    (assigned((0, (SPU_ID,)), (2, (SPU_ID,))), 2000, SEQUENCE),
    (assigned((0, (SPU_ID,)), (0, (SPU_ID,))), 2000, SEQUENCE),
    (
        assigned((0, (SPU_ID,)), (1, (SPU_ID, 5002))),
        2000,
        "all assigned replicas must have the same number of spu ids: 1",
    ),
    (
        assigned((0, (SPU_ID, SPU_ID))),
        2000,
        "duplicate spu ids found in assigned partition with id: 0",
    ),
    (assigned((0, (-1,))), 2000, "invalid spu id: -1 in assigned partition with id: 0"),
    (assigned((0, (5002,))), 2000, "invalid spu id: 5002"),
    (computed(3, 2), 2005, "only 0 out of 3 provisioned"),
    (
        TopicSpec(MirrorReplicas(HomeMirror((HomePartition("c", "r"),)))),
        2000,
        "mirror topics need a cluster",
    ),
]


@pytest.mark.parametrize(("spec", "code", "text"), REFUSED, ids=[text for *_, text in REFUSED])
def test_values_beyond_the_limits_are_refused_with_the_error_text_of_a_cluster(
    spec: TopicSpec, code: int, text: str
) -> None:
    assert check("t", spec) == Refusal("t", ErrorCode(code), text)


@pytest.mark.parametrize("module", ["dedup", "group/dedup", "group/dedup@0.1.0"])
def test_deduplication_with_a_missing_module_is_refused(module: str) -> None:
    text = (
        "Deduplication SmartModule is not loaded into the cluster\n"
        f"Hint: try `fluvio hub sm download {module}` and repeat this operation"
    )
    assert check("t", with_deduplication(module)) == Refusal(
        module, ErrorCode(Code.DEDUPLICATION_SMARTMODULE_NOT_LOADED), text
    )


@pytest.mark.parametrize("module", ["", "a/b/c", "a@1"])
def test_an_invalid_module_name_is_refused(module: str) -> None:
    refusal = check("t", with_deduplication(module))
    assert refusal is not None
    assert (refusal.name, refusal.error.code) == (module, 10001)
    assert refusal.error.payload == TextPayload(str(refusal.message))


def test_the_number_of_topics_is_limited() -> None:
    names = tuple(f"t{number}" for number in range(TOPICS_MAX))
    assert check("t", topics=names[1:]) is None
    text = f"{TOPICS_MAX} topics already exist"
    assert check("t", topics=names) == Refusal("t", ErrorCode(Code.TOPIC_ERROR), text)


def test_the_number_of_partitions_is_limited() -> None:
    assert check("t", computed(2), used=PARTITIONS_MAX - 2) is None
    text = f"more than {PARTITIONS_MAX} partitions in total"
    assert check("t", computed(2), used=PARTITIONS_MAX - 1) == Refusal(
        "t", ErrorCode(Code.TOPIC_ERROR), text
    )


# --- Order -------------------------------------------------------------------------


def test_the_first_failing_check_is_reported() -> None:
    """Each row corrects the problem of the row before it."""
    codes = []
    for name, spec, topics in (
        ("T", storage(1, 1), ("t",)),
        ("t", storage(1, 1), ("t",)),
        ("t", TopicSpec(computed(0).replicas, SegmentPolicy(1), TopicStorage(1, 1)), ()),
        ("t", TopicSpec(computed(0).replicas, None, TopicStorage(1, 1)), ()),
        ("t", TopicSpec(computed(0).replicas, None, TopicStorage(1024, 1)), ()),
        ("t", TopicSpec(computed(0).replicas, deduplication=Deduplication(1, None, "")), ()),
        ("t", computed(0, 9), ()),
        ("t", computed(1, 9), ()),
    ):
        refusal = check(name, spec, topics=topics)
        assert refusal is not None
        codes.append((refusal.error.code, str(refusal.message).split()[0]))
    assert codes == [
        (2006, "Invalid"),
        (2002, "Topic"),
        (2004, "retention_secs"),
        (2004, "segment_size"),
        (2004, "max_partition_size"),
        (10001, "invalid"),
        (2000, "partition"),
        (2005, "only"),
    ]


def test_a_name_in_use_is_refused() -> None:
    assert check("t", topics=("t",)) == Refusal(
        "t", ErrorCode(Code.TOPIC_ALREADY_EXISTS), "Topic 't' already exists"
    )
