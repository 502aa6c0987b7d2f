"""The official Python client and streamkit create, list, watch and delete each other's topics."""

from __future__ import annotations

import pytest

from streamkit import Client
from tests.peers.conftest import RunPeer, StartPeer
from tests.peers.peer import PATIENCE_S

pytestmark = pytest.mark.peers


async def test_the_official_client_creates_lists_and_deletes_topics(run_peer: RunPeer) -> None:
    created, listed, filtered, partitions, remaining = await run_peer(
        """
admin.create_topic("plain")
spec = TopicSpec.create().with_partitions(3).with_segment_size("1MB")
admin.create_topic("wide", spec.build())
answer("created")
answer(sorted(topic.name() for topic in admin.all_topics()))
answer([topic.name() for topic in admin.list_topics(["wi"])])
answer(sorted(partition.name() for partition in admin.list_partitions([])))
admin.delete_topic("plain")
answer([topic.name() for topic in admin.all_topics()])
"""
    )
    assert (created, listed, filtered) == ("created", ["plain", "wide"], ["wide"])
    assert remaining == ["wide"]
    assert partitions == ["plain-0", "wide-0", "wide-1", "wide-2"]


async def test_the_official_client_gets_the_error_texts(run_peer: RunPeer) -> None:
    name, exists, missing, unknown = await run_peer(
        """
admin.create_topic("t")
answer(refusal(admin.create_topic, "Bad_Name"))
answer(refusal(admin.create_topic, "t"))
answer(refusal(admin.delete_topic, "nope"))
answer(refusal(fluvio.topic_producer, "nope"))
"""
    )
    assert "Invalid topic name" in name
    assert "already exists" in exists
    assert "not found" in missing
    assert "Topic not found: nope" in unknown


async def test_the_official_client_can_produce_to_a_topic_right_after_creating_it(
    run_peer: RunPeer,
) -> None:
    """It gets topics from a watch, on another connection than that of the request."""
    assert await run_peer(
        """
for number in range(20):
    admin.create_topic(f"t{number}")
    producer = fluvio.topic_producer(f"t{number}")
    sent = producer.send_string("x")
    producer.flush()
    sent.wait()
answer("ok")
"""
    ) == ["ok"]


async def test_a_watch_reports_created_and_deleted_topics(run_peer: RunPeer) -> None:
    answers = await run_peer(
        """
watch = admin.watch_topic()
answer([topic.name() for topic in next(watch).all()])
admin.create_topic("new")
seen = {}
for update in watch:
    for change in update.changes():
        seen[change.metadata_topic_spec().name()] = change.is_delete()
    if seen == {"new": False}:
        answer(seen)
        admin.delete_topic("new")
    if seen == {"new": True}:
        answer(seen)
        break
"""
    )
    assert answers == [["consumer-offset"], {"new": False}, {"new": True}]


async def test_a_topic_exists_for_both_clients_as_soon_as_one_has_created_it(
    start_peer: StartPeer, client: Client
) -> None:
    # The official client gets our topics only from its watch, a little later. Until then it
    # refuses them without a request, so the script retries.
    script = """
import time

def producer_of(topic):
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fluvio.topic_producer(topic)
        except Exception as error:
            if "Topic not found" not in str(error) or time.monotonic() > until_s:
                raise
            time.sleep(0.01)

for number in range(10):
    admin.create_topic(f"theirs-{number}")
    answer("created")
    producer = producer_of(receive())
    producer.send_string("x").wait()
    answer("sent")
""".replace("PATIENCE_S", str(PATIENCE_S / 2))
    async with start_peer(script) as peer:
        for number in range(10):
            assert await peer.answer() == "created"
            async with client.producer(f"theirs-{number}") as producer:
                await producer.send("x")
            await client.admin.create_topic(f"ours-{number}")
            await peer.send(f"ours-{number}")
            assert await peer.answer() == "sent"
        assert await peer.remaining() == []


async def test_both_clients_read_every_option_of_a_topic(run_peer: RunPeer, client: Client) -> None:
    await client.admin.create_topic("ours", 2, retention=3_600, compression="lz4")
    listed, refused = await run_peer(
        """
spec = TopicSpec.create().with_partitions(3).with_segment_size(2_000_000)
spec = spec.with_retention_time(7_200).with_max_partition_size("4MB").build()
spec.set_compression_type(Compression.Zstd)
admin.create_topic("theirs", spec)
answer(sorted(topic.name() for topic in admin.all_topics()))
answer(refusal(TopicSpec.create().with_compression(CompressionType.ZSTD).build))
"""
    )
    assert listed == ["ours", "theirs"]
    # The official client's own examples use this call, which fails.
    assert "cannot be converted to 'Compression'" in refused
    found = await client.admin.describe_topic("theirs")
    assert (found.partitions, found.retention_s) == (3, 7_200)
    assert (found.segment_size_bytes, found.max_partition_size_bytes) == (2_000_000, 4_000_000)
    assert found.compression == "zstd"


async def test_a_watch_of_the_official_client_reports_topics_of_streamkit(
    start_peer: StartPeer, client: Client
) -> None:
    script = """
watch = admin.watch_topic()
next(watch)
answer("watching")
exists = True
while exists:
    for change in next(watch).changes():
        exists = not change.is_delete()
        answer([change.metadata_topic_spec().name(), exists])
"""
    async with start_peer(script) as peer:
        assert await peer.answer() == "watching"
        await client.admin.create_topic("ours")
        assert await peer.answer() == ["ours", True]
        await client.admin.delete_topic("ours")
        assert (await peer.remaining())[-1] == ["ours", False]
