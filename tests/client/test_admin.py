"""Administration of topics, partitions and consumers through the SC."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamkit import Client
from streamkit.client import Deduplication
from streamkit.errors import BrokerError, TopicAlreadyExists, TopicNotFound, UsageError
from streamkit.protocol import apis
from streamkit.protocol.control_plane import StatusResponse
from streamkit.protocol.error_codes import Code, ErrorCode
from streamkit.protocol.schema import encode
from tests.broker_process import BrokerProcess
from tests.client.conftest import NewTopic
from tests.client.reading import values_of
from tests.proxy import Proxy, Replace


async def test_a_new_topic_has_the_requested_options(client: Client, new_topic: NewTopic) -> None:
    name = await new_topic(
        3,
        retention=timedelta(hours=1),
        segment_size_bytes=100_000,
        max_partition_size_bytes=1_000_000,
        compression="zstd",
    )
    found = await client.admin.describe_topic(name)
    assert (found.name, found.partitions, found.replication) == (name, 3, 1)
    assert (found.retention_s, found.segment_size_bytes) == (3_600, 100_000)
    assert (found.max_partition_size_bytes, found.compression) == (1_000_000, "zstd")
    assert (found.status, found.is_system) == ("provisioned", False)
    assert found in await client.admin.list_topics()


async def test_missing_options_have_the_servers_defaults(
    client: Client, new_topic: NewTopic
) -> None:
    found = await client.admin.describe_topic(await new_topic())
    assert (found.retention_s, found.segment_size_bytes, found.compression) == (None, None, "any")


async def test_system_topics_are_listed_separately(client: Client) -> None:
    assert "consumer-offset" in [t.name for t in await client.admin.list_topics(system=True)]
    assert "consumer-offset" not in [t.name for t in await client.admin.list_topics()]
    assert (await client.admin.describe_topic("consumer-offset")).is_system


async def test_an_existing_name_is_refused(client: Client, new_topic: NewTopic) -> None:
    name = await new_topic()
    with pytest.raises(TopicAlreadyExists, match=name):
        await client.admin.create_topic(name)


async def test_exist_ok_accepts_an_existing_topic(client: Client, new_topic: NewTopic) -> None:
    name = await new_topic(2, compression="zstd")
    await client.admin.create_topic(name, 2, exist_ok=True)
    await client.admin.create_topic(name, 2, exist_ok=True, dry_run=True)
    assert (await client.admin.describe_topic(name)).compression == "zstd"
    await client.admin.create_topic(f"{name}-new", 2, exist_ok=True)
    assert (await client.admin.describe_topic(f"{name}-new")).partitions == 2


@pytest.mark.parametrize(("wanted", "hint"), [(3, "add_partitions"), (1, "")])
async def test_exist_ok_refuses_another_partition_count(
    client: Client, new_topic: NewTopic, wanted: int, hint: str
) -> None:
    name = await new_topic(2)
    with pytest.raises(TopicAlreadyExists, match=f"with 2 partitions, not {wanted}") as raised:
        await client.admin.create_topic(name, wanted, exist_ok=True)
    assert (raised.value.topic, raised.value.code) == (name, 2002)
    assert raised.value.hint.partition(" ")[0] == hint
    with pytest.raises(UsageError, match="is not a valid name for a topic"):
        await client.admin.create_topic("Bad", exist_ok=True)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Upper", "'U' at position 1"),
        ("a_b", "'_' at position 2"),
        ("-a", "a - at the start or end"),
        ("a-", "a - at the start or end"),
        ("a" * 64, "64 characters"),
        ("", "empty"),
        ("a b", "' ' at position 2"),
        ("aé", "'é' at position 2"),
        ("a\n", "at position 2"),
    ],
)
async def test_a_bad_name_is_refused_before_it_is_sent(
    client: Client, name: str, wrong: str
) -> None:
    with pytest.raises(UsageError, match="is not a valid name for a topic") as caught:
        await client.admin.create_topic(name)
    assert wrong in str(caught.value)
    assert "1 to 63 characters: a-z, 0-9 and -" in caught.value.hint


async def test_the_error_for_an_invalid_topic_option_has_the_reason(client: Client) -> None:
    with pytest.raises(BrokerError, match="less than minimum"):
        await client.admin.create_topic("small", segment_size_bytes=10)
    with pytest.raises(BrokerError, match="partition must be greater than 0"):
        await client.admin.create_topic("none", 0)
    with pytest.raises(BrokerError):
        await client.admin.create_topic("replicated", replication=3)
    with pytest.raises(UsageError, match="rar"):
        await client.admin.create_topic("packed", compression="rar")
    with pytest.raises(UsageError):
        await client.admin.create_topic("negative", -1)
    with pytest.raises(BrokerError, match="less than segment size 1073741824"):
        await client.admin.create_topic("half", max_partition_size_bytes=100_000)
    with pytest.raises(BrokerError, match="retention_secs 9 is less than minimum 10"):
        await client.admin.create_topic("short", retention=9)


async def test_a_dry_run_creates_nothing(client: Client) -> None:
    await client.admin.create_topic("only-checked", dry_run=True)
    with pytest.raises(TopicNotFound, match="only-checked"):
        await client.admin.describe_topic("only-checked")


async def test_the_name_of_a_deleted_topic_can_be_used_again(
    client: Client, new_topic: NewTopic
) -> None:
    name = await new_topic()
    async with client.producer(name) as producer:
        await producer.send(b"old")
    await client.admin.delete_topic(name)
    with pytest.raises(TopicNotFound, match=name):
        await client.admin.describe_topic(name)
    with pytest.raises(TopicNotFound, match=name) as caught:
        await client.admin.delete_topic(name)
    assert caught.value.hint
    await client.admin.create_topic(name, 2)
    assert await values_of(client, name) == []


async def test_a_system_topic_is_not_deleted_by_mistake(client: Client) -> None:
    with pytest.raises(BrokerError, match="consumer-offset"):
        await client.admin.delete_topic("consumer-offset")


async def test_a_system_topic_is_created_and_deleted_on_request(client: Client) -> None:
    await client.admin.create_topic("of-the-system", system=True)
    assert (await client.admin.describe_topic("of-the-system")).is_system
    with pytest.raises(BrokerError, match="of-the-system") as caught:
        await client.admin.delete_topic("of-the-system")
    assert caught.value.code == Code.SYSTEM_SPEC_DELETION_ATTEMPT
    await client.admin.delete_topic("of-the-system", force=True)
    with pytest.raises(TopicNotFound):
        await client.admin.describe_topic("of-the-system")


async def test_partitions_can_be_assigned_to_spus(client: Client, new_topic: NewTopic) -> None:
    (spu,) = await client.admin.list_spus()
    found = await client.admin.describe_topic(await new_topic(assignment=[[spu.id], [spu.id]]))
    assert (found.kind, found.partitions, found.replication) == ("assigned", 2, 1)
    assert found.assignment == ((spu.id,), (spu.id,))
    assert (await client.admin.describe_topic(await new_topic(ignore_rack=True))).ignores_rack
    with pytest.raises(BrokerError, match="invalid spu id: 17"):
        await client.admin.create_topic("elsewhere", assignment=[[17]])
    with pytest.raises(BrokerError, match="no assigned partitions found"):
        await client.admin.create_topic("nowhere-at-all", assignment=[])
    with pytest.raises(UsageError, match=r"assignment\[0\]=-1 must be between"):
        await client.admin.create_topic("negative", assignment=[[-1]])


async def test_unsupported_options_are_refused_with_the_brokers_message(client: Client) -> None:
    with pytest.raises(BrokerError, match="Deduplication SmartModule is not loaded") as caught:
        await client.admin.create_topic("unique", deduplication=Deduplication(10, 60))
    assert caught.value.code == Code.DEDUPLICATION_SMARTMODULE_NOT_LOADED
    with pytest.raises(BrokerError, match="mirror topics need a cluster"):
        await client.admin.create_topic("mirrored", mirrors=["edge"])
    with pytest.raises(UsageError, match="home_to_remote needs mirrors"):
        await client.admin.create_topic("mirrored", home_to_remote=True)
    with pytest.raises(UsageError, match="cannot be used together"):
        await client.admin.create_topic("mirrored", mirrors=[], assignment=[[0]])


async def test_spus_have_their_addresses(client: Client, cluster: BrokerProcess) -> None:
    (spu,) = await client.admin.list_spus()
    assert (spu.id, spu.name, spu.status) == (5001, "custom-spu-5001", "online")
    assert spu.address == f"127.0.0.1:{cluster.spu_port}"
    assert (spu.is_custom, spu.rack, spu.local_address) == (True, None, None)


@pytest.mark.parametrize("is_system", [False, True])
async def test_a_topic_that_exists_although_the_server_reports_a_failure_is_not_an_error(
    cluster: BrokerProcess, is_system: bool
) -> None:
    """Directly after a delete, a stock cluster may report this although the topic exists."""
    name = f"late-{'system' if is_system else 'user'}"

    def unprovisioned(frame: bytes) -> bytes | None:
        is_created = frame[8:] == encode(apis.CREATE.response, StatusResponse(name), 19)
        if not is_created or answer.fired:
            return None  # the response to a Delete has the same bytes
        text = "only 0 out of 1 provisioned"
        status = StatusResponse(name, ErrorCode(Code.TOPIC_NOT_PROVISIONED), text)
        data = frame[4:8] + encode(apis.CREATE.response, status, 19)
        return len(data).to_bytes(4, "big") + data

    answer = Replace("sc down", unprovisioned)
    with Proxy(cluster.sc_port, cluster.spu_port, answer) as proxy:
        async with Client.connect(proxy.address) as client:
            await client.admin.create_topic(name, system=is_system)
            assert answer.fired == 1
            with pytest.raises(BrokerError, match="only 0 out of 1"):
                await client.admin.create_topic("never-there", replication=2)
            await client.admin.delete_topic(name, force=True)


async def test_a_mirror_of_a_missing_topic_is_refused_with_a_hint(client: Client) -> None:
    with pytest.raises(TopicNotFound, match="nowhere") as caught:
        await client.admin.add_mirror("nowhere", "edge")
    assert caught.value.hint


async def test_partitions_can_be_added(client: Client, new_topic: NewTopic) -> None:
    name = await new_topic(2)
    added = await client.admin.add_partitions(name, 3)
    assert [each.partition for each in added] == [2, 3, 4]
    assert (await client.admin.describe_topic(name)).partitions == 5
    with pytest.raises(TopicNotFound, match="nowhere"):
        await client.admin.add_partitions("nowhere")


async def test_partitions_have_their_offsets(client: Client, new_topic: NewTopic) -> None:
    name = await new_topic(2)
    async with client.producer(name) as producer:
        await producer.send_many([b"x"] * 10)
    found = await client.admin.list_partitions(name)
    assert [(each.topic, each.partition, each.resolution) for each in found] == [
        (name, 0, "online"),
        (name, 1, "online"),
    ]
    assert [each.base_offset for each in found] == [0, 0]
    assert all(each.leader in each.replicas for each in found)
    assert [(each.live_followers, each.followers) for each in found] == [(0, ()), (0, ())]
    everywhere = await client.admin.list_partitions()
    assert [each for each in everywhere if each.topic == name] == found
