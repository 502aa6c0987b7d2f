"""Topics, partitions and consumers, by the SC."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamkit import Client
from streamkit.errors import BrokerError, TopicAlreadyExists, TopicNotFound, UsageError
from tests.client.conftest import NewTopic
from tests.client.reading import values_of


async def test_a_new_topic_is_described_as_it_was_asked_for(
    client: Client, new_topic: NewTopic
) -> None:
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


async def test_what_is_left_out_is_the_servers_default(client: Client, new_topic: NewTopic) -> None:
    found = await client.admin.describe_topic(await new_topic())
    assert (found.retention_s, found.segment_size_bytes, found.compression) == (None, None, "any")


async def test_system_topics_are_listed_apart(client: Client) -> None:
    assert "consumer-offset" in [t.name for t in await client.admin.list_topics(system=True)]
    assert "consumer-offset" not in [t.name for t in await client.admin.list_topics()]
    assert (await client.admin.describe_topic("consumer-offset")).is_system


async def test_a_name_is_given_once(client: Client, new_topic: NewTopic) -> None:
    name = await new_topic()
    with pytest.raises(TopicAlreadyExists, match=name):
        await client.admin.create_topic(name)


@pytest.mark.parametrize("name", ["Upper", "a_b", "-a", "a-", "a" * 64, "", "a b"])
async def test_a_bad_name_is_refused(client: Client, name: str) -> None:
    with pytest.raises(BrokerError, match="Invalid topic name"):
        await client.admin.create_topic(name)


async def test_what_breaks_a_rule_is_refused_with_the_rule(client: Client) -> None:
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


async def test_a_dry_run_makes_nothing(client: Client) -> None:
    await client.admin.create_topic("only-checked", dry_run=True)
    with pytest.raises(TopicNotFound, match="only-checked"):
        await client.admin.describe_topic("only-checked")


async def test_a_deleted_topic_is_gone_and_its_name_free(
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


async def test_partitions_can_be_added(client: Client, new_topic: NewTopic) -> None:
    name = await new_topic(2)
    added = await client.admin.add_partitions(name, 3)
    assert [each.partition for each in added] == [2, 3, 4]
    assert (await client.admin.describe_topic(name)).partitions == 5
    with pytest.raises(TopicNotFound, match="nowhere"):
        await client.admin.add_partitions("nowhere")


async def test_partitions_say_how_far_they_reach(client: Client, new_topic: NewTopic) -> None:
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
    everywhere = await client.admin.list_partitions()
    assert [each for each in everywhere if each.topic == name] == found
