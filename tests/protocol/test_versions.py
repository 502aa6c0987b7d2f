"""Which versions have which fields: when a message grows or shrinks, and by how many bytes."""

from __future__ import annotations

from typing import Any, Final

import pytest

from streamkit.protocol import apis, control_layouts, specs, topic_specs
from streamkit.protocol import control_plane as sc
from streamkit.protocol import data_plane as spu
from streamkit.protocol import smartmodule_io as io
from streamkit.protocol import smartmodules as modules
from streamkit.protocol.error_codes import NO_ERROR, Code, ErrorCode
from streamkit.protocol.schema import Wire, decode, encode, struct

INVOCATION: Final = modules.SmartModuleInvocation(
    modules.Predefined("m"),
    params=modules.ExtraParams({}, modules.Lookback(1, modules.Duration(2))),
    name="n",
)
ENDPOINT: Final = specs.Endpoint(1, "h")
HOME: Final = topic_specs.HomePartition("c", "r", source=True)

# Messages, and the bytes they gain or lose at a version compared to the version before it.
# Source: the layouts in docs/protocol/.
GROWTH: Final[dict[str, tuple[Wire[Any], Any, dict[int, int]]]] = {
    "ApiVersions request": (
        apis.API_VERSIONS.request,
        sc.ApiVersionsRequest("a", "b", "c"),
        {1: 9},
    ),
    "ApiVersions response": (
        apis.API_VERSIONS.response,
        sc.ApiVersionsResponse(NO_ERROR, (), ""),
        {},
    ),
    "Produce request": (apis.PRODUCE.request, spu.ProduceRequest(), {}),
    "Produce response": (
        apis.PRODUCE.response,
        spu.ProduceResponse(
            (spu.TopicProduceResponse("t", (spu.PartitionProduceResponse(0),)),),
        ),
        {1: 4, 2: 8, 5: 8},
    ),
    "Fetch request": (
        apis.FETCH.request,
        spu.FetchRequest(topics=(spu.FetchTopic("t", (spu.FetchPartition(0),)),)),
        {3: 4, 4: 1, 5: 8, 7: 4, 9: 4},
    ),
    "Fetch response": (
        apis.FETCH.response,
        spu.FetchResponse(topics=(spu.FetchedTopic("t", (spu.FetchablePartition(0),)),)),
        {11: 8},
    ),
    "StreamFetch request": (
        apis.STREAM_FETCH.request,
        spu.StreamFetchRequest("t", 0, 0, 0, consumer_id="c"),
        {11: 4, 16: 2, 18: 4, 19: -6, 23: 4},
    ),
    "StreamFetch response": (
        apis.STREAM_FETCH.response,
        spu.StreamFetchResponse("t", 1, spu.FetchablePartition(0)),
        {11: 8},
    ),
    "FetchOffsets request": (
        apis.FETCH_OFFSETS.request,
        spu.FetchOffsetsRequest((), "c"),
        {23: 4, 24: -4},
    ),
    "FetchConsumerOffsets request": (
        apis.FETCH_CONSUMER_OFFSETS.request,
        spu.FetchConsumerOffsetsRequest(),
        {24: 1},
    ),
    "invocation": (
        struct(modules.SmartModuleInvocation),
        INVOCATION,
        {20: 9, 21: 13, 25: 4},
    ),
    "SmartModule input": (
        io.SMARTMODULE_INPUT,
        io.SmartModuleInput(0, b"", modules.ExtraParams({}, modules.Lookback(1)), b"j", 1),
        {16: 5, 20: 9, 21: 1, 22: 8, 23: -2 - 10 - 5},
    ),
    "aggregate output": (
        io.AGGREGATE_OUTPUT,
        io.AggregateOutput(io.SmartModuleOutput(()), b"sum"),
        {16: 7},
    ),
    "TopicSpec": (specs.TOPIC.spec, topic_specs.TopicSpec(), {3: 1, 4: 1, 6: 1, 12: 1, 13: 1}),
    "TopicSpec, assigned": (
        specs.TOPIC.spec,
        topic_specs.TopicSpec(
            topic_specs.AssignedReplicas((topic_specs.PartitionMap(0, (1,), HOME),))
        ),
        {3: 1, 4: 1, 6: 1, 12: 1, 13: 1, 14: 8, 18: 1},
    ),
    "TopicSpec, home mirror": (
        specs.TOPIC.spec,
        topic_specs.TopicSpec(topic_specs.MirrorReplicas(topic_specs.HomeMirror((HOME,)))),
        {3: 1, 4: 1, 6: 1, 12: 1, 13: 1, 18: 2},
    ),
    "TopicSpec, remote mirror": (
        specs.TOPIC.spec,
        topic_specs.TopicSpec(
            topic_specs.MirrorReplicas(
                topic_specs.RemoteMirror("c", (topic_specs.HomeSpu(1, "k", "e"),))
            )
        ),
        {3: 1, 4: 1, 6: 1, 12: 1, 13: 1, 18: 1},
    ),
    "TopicStatus": (
        specs.TOPIC.status,
        topic_specs.TopicStatus(topic_specs.TopicResolution.PROVISIONED, {0: (1,)}, {0: HOME}),
        {14: 2 + 4 + 7, 18: 1},
    ),
    "PartitionSpec": (
        specs.PARTITION.spec,
        specs.PartitionSpec(1, (1,)),
        {4: 2, 6: 1, 12: 1, 13: 1, 14: 1},
    ),
    "PartitionStatus": (
        specs.PARTITION.status,
        specs.PartitionStatus(specs.PartitionResolution.ONLINE),
        {5: 8, 16: 8},
    ),
    "SpuSpec": (
        specs.SPU.spec,
        specs.SpuSpec(1, 1, specs.IngressPort(1, ()), ENDPOINT, None, ENDPOINT),
        {1: 7},
    ),
    "CustomSpuSpec": (
        specs.CUSTOM_SPU.spec,
        specs.CustomSpuSpec(1, specs.IngressPort(1, ()), ENDPOINT),
        {},
    ),
    "SmartModuleSpec": (
        specs.SMARTMODULE.spec,
        specs.SmartModuleSpec(
            specs.ModuleMeta(specs.ModulePackage("n", "g", "v", "a"), {}),
            parameters=("p",),
        ),
        {10: -2 - 1 - 8 + 1 + 12 + 3 + 2 + 1, 19: 1},
    ),
    "Create request": (
        apis.CREATE.request,
        sc.CreateRequest(specs.SPU_GROUP, "g", specs.SpuGroupSpec(1, 0)),
        {7: 1, 11: 2 + len("SpuGroup") + 4 - 1},
    ),
    "Delete request": (
        apis.DELETE.request,
        sc.DeleteRequest(specs.TOPIC, "t"),
        {11: 4, 13: 1},
    ),
    "List request": (apis.LIST.request, sc.ListRequest(specs.TOPIC), {10: 1, 11: 4, 13: 1}),
    "List response": (apis.LIST.response, sc.ListResponse(specs.TOPIC, ()), {11: 4}),
    "Watch request": (apis.WATCH.request, sc.WatchRequest(specs.SPU), {10: 1, 11: 4}),
    "Watch response": (apis.WATCH.response, sc.WatchResponse(specs.SPU, 1), {11: 4}),
    "Update request": (
        apis.UPDATE.request,
        sc.UpdateRequest(specs.TOPIC, "t", sc.AddPartitions(1)),
        {},  # servers expect an envelope in every version
    ),
    "Status": (
        control_layouts.STATUS_RESPONSE,
        sc.StatusResponse("t", ErrorCode(Code.TOPIC_INVALID_NAME), "no"),
        {},
    ),
}


@pytest.mark.parametrize(("wire", "value", "growth"), GROWTH.values(), ids=GROWTH)
def test_a_field_is_encoded_only_in_its_versions(
    wire: Wire[Any], value: Any, growth: dict[int, int]
) -> None:
    sizes = [len(encode(wire, value, version)) for version in range(26)]
    changes = {v: sizes[v] - sizes[v - 1] for v in range(1, 26) if sizes[v] != sizes[v - 1]}
    assert changes == growth


@pytest.mark.parametrize(("wire", "value", "growth"), GROWTH.values(), ids=GROWTH)
def test_every_version_reads_what_it_writes(
    wire: Wire[Any], value: Any, growth: dict[int, int]
) -> None:
    for version in range(26):
        data = encode(wire, value, version)
        read = decode(wire, data, version)
        assert encode(wire, read, version) == data


def test_the_error_comes_before_the_partition_only_in_partition_offsets() -> None:
    offsets = spu.PartitionOffsets(ErrorCode(Code.PARTITION_NOT_LEADER), 2)
    assert encode(struct(spu.PartitionOffsets), offsets, 25).startswith(
        bytes.fromhex("0bb9 00000002")
    )
    for found in (
        spu.PartitionProduceResponse(2, ErrorCode(Code.PARTITION_NOT_LEADER)),
        spu.FetchablePartition(2, ErrorCode(Code.PARTITION_NOT_LEADER)),
    ):
        assert encode(struct(type(found)), found, 25).startswith(bytes.fromhex("00000002 0bb9"))


@pytest.mark.parametrize("kind", specs.KINDS.values(), ids=specs.KINDS)
def test_every_kind_of_object_is_encoded_with_its_name(kind: specs.ObjectKind) -> None:
    request = sc.ListRequest(kind)
    data = encode(control_layouts.LIST_REQUEST, request, 19)
    assert data[2 : 2 + data[1]] == kind.name.encode()
    assert decode(control_layouts.LIST_REQUEST, data, 19) == request


def test_old_create_requests_number_the_kinds_of_objects() -> None:
    """3 and 10 were kinds that no longer exist."""
    tags = {kind.name: kind.classic_tag for kind in specs.KINDS.values()}
    assert tags == {
        "Topic": 0,
        "CustomSpu": 1,
        "SpuGroup": 2,
        "SmartModule": 4,
        "TableFormat": 5,
        "Mirror": 6,
        "Partition": None,
        "SPU": None,
    }


OTHERS: Final = {
    "SpuGroup": (
        specs.SpuGroupSpec(
            3,
            1,
            "r",
            specs.ReplicationConfig(2),
            specs.StorageConfig("/d", "1G"),
            (specs.EnvironmentVariable("A", "b"),),
        ),
        specs.ReasonStatus(2, "why"),
        "0003 00000001 01000172 01010002 01 0100022f64 01000231 47 00000001 000141 000162",
    ),
    "TableFormat": (
        specs.TableFormatSpec(
            "f", 0, (specs.TableColumn("h", "w", 1, "k", "f", True, False, 2, 3),), "m"
        ),
        specs.ReasonStatus(0),
        "000166 0100 01 00000001 01000168 01000177 0101 00016b 01000166 0101 0100 0102 0103"
        "0100016d",
    ),
    "Mirror": (
        specs.HomeSpec("i", "r", "e", specs.MirrorTls("d", "a", "c", "k")),
        specs.MirrorStatus(1, specs.PairWaiting(), specs.PairDetailFailure("x"), 9),
        "01 000169 000172 000165 01 000164 000161 000163 00016b",
    ),
}


@pytest.mark.parametrize(("name", "spec", "status", "data"), [(n, *o) for n, o in OTHERS.items()])
def test_a_rarely_used_object_is_encoded_as_in_the_reference(
    name: str, spec: Any, status: Any, data: str
) -> None:
    kind = specs.KINDS[name]
    assert encode(kind.spec, spec, 19) == bytes.fromhex(data)
    assert decode(kind.spec, bytes.fromhex(data), 19) == spec
    assert decode(kind.status, encode(kind.status, status, 19), 19) == status


def test_topics_and_batches_number_the_codecs_differently() -> None:
    numbers = {one.name: int(one) for one in topic_specs.TopicCompression}
    assert numbers == {"NONE": 0, "GZIP": 1, "SNAPPY": 2, "LZ4": 3, "ANY": 4, "ZSTD": 5}
    assert {one.name: one.codec and int(one.codec) for one in topic_specs.TopicCompression} == {
        "NONE": 0,
        "GZIP": 1,
        "SNAPPY": 2,
        "LZ4": 3,
        "ANY": None,
        "ZSTD": 4,
    }


@pytest.mark.parametrize(
    ("replicas", "count"),
    [
        (topic_specs.ComputedReplicas(3), 3),
        (
            topic_specs.AssignedReplicas(
                (topic_specs.PartitionMap(0, (1,)), topic_specs.PartitionMap(1, (1,)))
            ),
            2,
        ),
        (topic_specs.MirrorReplicas(topic_specs.HomeMirror((HOME,))), 1),
        (
            topic_specs.MirrorReplicas(
                topic_specs.RemoteMirror("c", (topic_specs.HomeSpu(1, "k", "e"),) * 4)
            ),
            4,
        ),
    ],
)
def test_the_partition_count_depends_on_the_kind_of_replicas(replicas: Any, count: int) -> None:
    assert topic_specs.TopicSpec(replicas).partition_count == count
