"""The bytes of administration requests, and the objects made from responses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest

from streamkit.client import Deduplication, PartitionInfo, ReplicaInfo, SmartModuleInfo, SpuInfo
from streamkit.client.admin.objects import partition_info, smartmodule_info, spu_info, topic_info
from streamkit.client.admin.topic_options import mirrored, topic_spec
from streamkit.errors import UsageError
from streamkit.protocol import apis, specs
from streamkit.protocol.control_plane import CreateRequest, Metadata
from streamkit.protocol.schema import encode
from streamkit.protocol.specs import (
    PartitionResolution,
    PartitionSpec,
    PartitionStatus,
    ReplicaStatus,
)
from streamkit.protocol.topic_specs import (
    ComputedReplicas,
    HomeMirror,
    MirrorReplicas,
    TopicResolution,
    TopicSpec,
    TopicStatus,
)

# Bodies of Create at version 19, with the name td, ta and so on. Source:
# docs/protocol/admin.md, "Create" and "Topics".
CREATED: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "ignoring racks": (
        "t1",
        {"ignore_rack": True},
        "0005546f7069630000001500027431 0000 01 00000001 00000001 01 0000 04 0000",
    ),
    "assigned": (
        "ta",
        {"assignment": [[5001], [5001]]},
        "0005546f706963 0000002a 00027461 00 00 00 00000002"
        "00000000 00000001 00001389 00 00000001 00000001 00001389 00 00 00 04 00 00",
    ),
    "with bounds": (
        "tf",
        {
            "retention": timedelta(hours=1),
            "segment_size_bytes": 65_536,
            "max_partition_size_bytes": 1_000_000,
            "compression": "gzip",
        },
        "0005546f706963 00000028 00027466 00 00 01 00000001 00000001 00"
        "01 00 00000e10 01 01 00010000 01 00000000000f4240 01 00 00",
    ),
    "deduplicated": (
        "td",
        {
            "deduplication": Deduplication(1_000, timedelta(hours=1), "infinyon/dedup@0.1.0"),
            "compression": "zstd",
        },
        "0005546f706963 00000042 00027464 00 00 01 00000001 00000001 00 00 00 05"
        "01 00000000000003e8 01 0000000000000e10 00000000"
        "0014696e66696e796f6e2f646564757040302e312e30 0000 00",
    ),
    "of the system": (
        "tsys",
        {"system": True},
        "0005546f70696300000017 000474737973 0000 01 00000001 00000001 00 00 00 04 00 01",
    ),
    "home of a mirror": (
        "tm",
        {"mirror": mirrored("tm", [])},
        "0005546f70696300000012 0002746d 0000 02 01 00000000 00 00 00 04 00 00",
    ),
}


@pytest.mark.parametrize(("name", "options", "hex_body"), CREATED.values(), ids=CREATED)
def test_options_are_encoded_as_in_the_reference(
    name: str, options: dict[str, Any], hex_body: str
) -> None:
    request = CreateRequest(specs.TOPIC, name, topic_spec(1, **options))
    assert encode(apis.CREATE.request, request, 19) == bytes.fromhex(hex_body)


def test_a_mirror_has_a_partition_per_remote_cluster() -> None:
    replicas = mirrored("t", ["edge-1", "edge-2"], home_to_remote=True)
    assert isinstance(replicas, MirrorReplicas)
    assert isinstance(replicas.config, HomeMirror)
    assert [(p.remote_cluster, p.remote_replica, p.source) for p in replicas.config.partitions] == [
        ("edge-1", "t-0", True),
        ("edge-2", "t-0", True),
    ]
    assert replicas.config.source


@pytest.mark.parametrize(
    "options",
    [
        {"retention": -1},
        {"retention": 2**32},
        {"segment_size_bytes": 2**32},
        {"max_partition_size_bytes": -1},
        {"replication": -1},
        {"deduplication": Deduplication(0)},
        {"deduplication": Deduplication(1, -1)},
        {"deduplication": Deduplication(1, filter="")},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        topic_spec(1, **options)


# --- Descriptions ------------------------------------------------------------------------


def described(spec: TopicSpec) -> Any:
    status = TopicStatus(TopicResolution.INSUFFICIENT_RESOURCES, {1: (2,), 0: (1, 2)}, reason="why")
    return topic_info(Metadata("t", spec, status))


def test_a_described_topic_has_the_requested_options() -> None:
    dedup = Deduplication(7, 1.5, "g/m@1.0.0", {"k": "v"})
    spec = topic_spec(assignment=[[1, 2], [2, 1]], deduplication=dedup)
    found = described(spec)
    assert (found.kind, found.partitions, found.replication) == ("assigned", 2, 2)
    assert found.deduplication == dedup
    assert (found.status, found.reason) == ("insufficient-resources", "why")
    assert found.assignment == ((1, 2), (2,))
    assert described(TopicSpec(mirrored("t", ["edge"]))).kind == "mirror"
    ignoring = described(TopicSpec(ComputedReplicas(1, 3, ignore_rack=True)))
    assert (ignoring.kind, ignoring.replication, ignoring.ignores_rack) == ("computed", 3, True)


def test_a_described_partition_has_its_followers() -> None:
    spec = PartitionSpec(1, (1, 2, 3))
    status = PartitionStatus(
        PartitionResolution.LEADER_OFFLINE,
        ReplicaStatus(1, 5, 9),
        2,
        (ReplicaStatus(2, 5, 9), ReplicaStatus(3)),
        -2,
        base_offset=4,
    )
    assert partition_info(Metadata("a-b-12", spec, status)) == PartitionInfo(
        topic="a-b",
        partition=12,
        leader=1,
        replicas=(1, 2, 3),
        resolution="leader-offline",
        size_bytes=-2,
        base_offset=4,
        high_watermark=5,
        log_end=9,
        live_followers=2,
        followers=(ReplicaInfo(2, 5, 9), ReplicaInfo(3, -1, -1)),
    )


def test_a_module_has_the_size_in_its_summary_and_the_name_of_its_package() -> None:
    plain = specs.SmartModuleSpec(payload=b"12345678")
    assert smartmodule_info(Metadata("m", plain, specs.NoStatus())) == SmartModuleInfo("m", 8)
    package = specs.ModulePackage("dedup", "fluvio", "0.1.0", "0.1.0", description="unique")
    meta = specs.ModuleMeta(package, {"count": specs.ModuleParam()})
    packed = specs.SmartModuleSpec(meta, specs.ModuleSummary(99))
    assert smartmodule_info(Metadata("m", packed, specs.NoStatus())) == SmartModuleInfo(
        "m", 99, "fluvio/dedup@0.1.0", "unique", ("count",)
    )


def test_a_described_spu_has_its_addresses() -> None:
    spec = specs.SpuSpec(
        7,
        0,
        specs.IngressPort(9010, (specs.Ingress(ip="10.0.0.1"), specs.Ingress("second"))),
        specs.Endpoint(9011, "inside"),
        "r1",
        specs.Endpoint(9012, "near"),
    )
    item = Metadata("spu-7", spec, specs.SpuStatus(specs.SpuResolution.INIT))
    assert spu_info(item) == SpuInfo(
        7, "spu-7", "10.0.0.1:9010", "inside:9011", "near:9012", "r1", False, "init"
    )
