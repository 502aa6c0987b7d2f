"""What programs on the official Python client do works as with a real cluster."""

from __future__ import annotations

from typing import Final

import pytest

from streamkit.broker.broker import Broker
from streamkit.protocol.batch import whole_batches
from streamkit.protocol.compression import Codec
from tests.broker.running import fetch
from tests.broker.wire import Wire
from tests.peers.conftest import RunPeer
from tests.protocol.recorded import read_json

pytestmark = pytest.mark.peers

# Keys of the reference, and where they go in a topic of three partitions.
KEYS: Final = {
    bytes.fromhex(vector["key_hex"]): vector["mods"]["3"]
    for vector in read_json("siphash.json")
    if vector["kind"] == "keyed"
}


# --- Topics --------------------------------------------------------------------------


async def test_topics_are_made_listed_and_deleted(run_peer: RunPeer) -> None:
    made, listed, filtered, partitions, left = await run_peer(
        """
admin.create_topic("plain")
spec = TopicSpec.create().with_partitions(3).with_segment_size("1MB")
admin.create_topic("wide", spec.build())
answer("made")
answer(sorted(topic.name() for topic in admin.all_topics()))
answer([topic.name() for topic in admin.list_topics(["wi"])])
answer(sorted(partition.name() for partition in admin.list_partitions([])))
admin.delete_topic("plain")
answer([topic.name() for topic in admin.all_topics()])
"""
    )
    assert (made, listed, filtered, left) == ("made", ["plain", "wide"], ["wide"], ["wide"])
    assert partitions == ["plain-0", "wide-0", "wide-1", "wide-2"]


async def test_refusals_reach_the_program_in_words(run_peer: RunPeer) -> None:
    name, exists, missing, unknown = await run_peer(
        """
def refusal(call, *args):
    try:
        call(*args)
    except Exception as error:
        answer(str(error))

admin.create_topic("t")
refusal(admin.create_topic, "Bad_Name")
refusal(admin.create_topic, "t")
refusal(admin.delete_topic, "nope")
refusal(fluvio.topic_producer, "nope")
"""
    )
    assert "Invalid topic name" in name
    assert "already exists" in exists
    assert "not found" in missing
    assert "Topic not found: nope" in unknown


async def test_a_topic_can_be_produced_to_as_soon_as_it_is_made(run_peer: RunPeer) -> None:
    """The client knows topics from a watch on another connection than that of the request."""
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


async def test_a_watch_tells_of_topics_that_come_and_go(run_peer: RunPeer) -> None:
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


# --- Producing -------------------------------------------------------------------------


async def test_keys_go_to_the_partitions_of_the_reference(run_peer: RunPeer) -> None:
    keys = [key.hex() for key in KEYS]
    sent, *read = await run_peer(
        f"""
admin.create_topic("keyed", TopicSpec.create().with_partitions(3).build())
producer = fluvio.topic_producer("keyed")
sent = []
for key in {keys!r}:
    sent.append(producer.send(bytes.fromhex(key), b"value"))
producer.flush()
answer([each.wait().partition_id() for each in sent])
for partition in range(3):
    stream = fluvio.partition_consumer("keyed", partition)
    config = ConsumerConfig()
    config.disable_continuous()
    answer([bytes(r.key()).hex() for r in stream.stream_with_config(Offset.beginning(), config)])
"""
    )
    assert sent == list(KEYS.values())
    for partition, found in enumerate(read):
        assert found == [key.hex() for key, where in KEYS.items() if where == partition]


@pytest.mark.parametrize("codec", list(Codec))
async def test_every_codec_is_kept_as_sent_and_read_back(
    run_peer: RunPeer, broker: Broker, codec: Codec
) -> None:
    name = {Codec.NONE: "None_"}.get(codec, codec.name.title())
    (values,) = await run_peer(
        f"""
admin.create_topic("packed")
config = TopicProducerConfigBuilder()
config.compression(Compression.{name})
config.linger(50)
producer = fluvio.topic_producer_with_config("packed", config.build())
producer.send_all([(b"key", b"value " * 50) for _ in range(20)])
producer.flush()
answer([r.value_string() for r in until_end("packed", 0)])
"""
    )
    assert values == ["value " * 50] * 20
    async with await Wire.open(broker.spu_address) as spu:
        records = (await fetch(spu, "packed")).records
    assert {header.codec_number for header, _ in whole_batches(records)} == {codec}


async def test_batches_and_committed_reads_work(run_peer: RunPeer) -> None:
    offsets, values = await run_peer(
        """
admin.create_topic("t")
config = TopicProducerConfigBuilder()
config.isolation(Isolation.ReadCommitted)
config.batch_size(2000)
producer = fluvio.topic_producer_with_config("t", config.build())
sent = producer.send_all([(b"", b"%d" % number) for number in range(500)])
producer.flush()
answer([each.wait().offset() for each in sent])
answer([record.value_string() for record in until_end("t", 0)])
"""
    )
    assert offsets == list(range(500))
    assert values == [str(number) for number in range(500)]


async def test_at_most_once_producers_are_served_too(run_peer: RunPeer) -> None:
    (values,) = await run_peer(
        """
admin.create_topic("t")
builder = TopicProducerConfigBuilder()
builder.delivery_semantic(DeliverySemantic.AtMostOnce)
producer = fluvio.topic_producer_with_config("t", builder.build())
for number in range(10):
    producer.send_string(str(number))
producer.flush()
stream = fluvio.partition_consumer("t", 0).stream(Offset.beginning())
answer([next(stream).value_string() for _ in range(10)])
"""
    )
    assert values == [str(number) for number in range(10)]


# --- Consuming -------------------------------------------------------------------------


async def test_every_way_to_say_where_to_start_is_understood(run_peer: RunPeer) -> None:
    answers = await run_peer(
        """
admin.create_topic("t")
producer = fluvio.topic_producer("t")
for number in range(10):
    producer.send_string(str(number))
    producer.flush()
for start in (
    Offset.beginning(), Offset.absolute(4), Offset.from_beginning(3), Offset.from_end(2),
    Offset.end(), Offset.from_beginning(50), Offset.from_end(50),
):
    answer([int(record.value_string()) for record in until_end("t", 0, start=start)])
"""
    )
    everything = list(range(10))
    assert answers == [
        everything,
        everything[4:],
        everything[3:],
        everything[-2:],
        [],
        [],
        everything,
    ]


async def test_a_consumer_at_the_end_gets_what_comes_later(run_peer: RunPeer) -> None:
    (answers,) = await run_peer(
        """
admin.create_topic("t")
producer = fluvio.topic_producer("t")
producer.send_string("before").wait()
stream = fluvio.partition_consumer("t", 0).stream(Offset.from_end(1))
got = [next(stream).value_string()]
for number in range(5):
    producer.send_string(f"live {number}").wait()
    got.append(next(stream).value_string())
answer(got)
"""
    )
    assert answers == ["before", *(f"live {number}" for number in range(5))]


async def test_a_long_backlog_comes_whole_and_in_order(run_peer: RunPeer) -> None:
    """A stock server cuts responses inside batches, and this client then skips records."""
    (answers,) = await run_peer(
        """
admin.create_topic("t", TopicSpec.create().with_segment_size("20KB").build())
config = TopicProducerConfigBuilder()
config.batch_size(1000)
producer = fluvio.topic_producer_with_config("t", config.build())
producer.send_all([(b"", b"%06d" % number * 20) for number in range(3000)])
producer.flush()
builder = ConsumerConfigExtBuilder("t")
builder.disable_continuous()
builder.max_bytes(5000)
builder.partition(0)
builder.offset_start(Offset.beginning())
stream = fluvio.consumer_with_config(builder.build())
answer([int(record.value_string()[:6]) for record in stream])
"""
    )
    assert answers == list(range(3000))


async def test_all_partitions_are_read_at_once(run_peer: RunPeer) -> None:
    everything, two, some = await run_peer(
        """
admin.create_topic("t", TopicSpec.create().with_partitions(3).build())
producer = fluvio.topic_producer("t")
for number in range(30):
    producer.send(b"abc"[number % 3 : number % 3 + 1], str(number).encode())
producer.flush()
answer(sorted(int(record.value_string()) for record in until_end("t")))
two = [int(r.value_string()) for partition in (0, 2) for r in until_end("t", partition)]
answer(sorted(two))
stream = fluvio.multi_topic_partition_consumer([("t", 0), ("t", 2)]).stream(Offset.beginning())
answer(sorted(int(next(stream).value_string()) for _ in two))
"""
    )
    assert everything == list(range(30))
    assert some == two == [number for number in range(30) if number % 3 != 0]


# --- Stored offsets ------------------------------------------------------------------------

FIVE_RECORDS: Final = """
admin.create_topic("t")
producer = fluvio.topic_producer("t")
for number in range(5):
    producer.send_string(str(number)).wait()

def consume(strategy, start=None):
    return until_end("t", 0, start=start, consumer="c", strategy=strategy)

def stored():
    return [[o.consumer_id, o.topic, o.partition, o.offset] for o in fluvio.consumer_offsets()]
"""


async def test_a_consumer_goes_on_where_it_has_committed(run_peer: RunPeer) -> None:
    first, listed, second, after = await run_peer(
        FIVE_RECORDS
        + """
stream = consume(OffsetManagementStrategy.MANUAL)
got = [next(stream).value_string() for _ in range(2)]
stream.offset_commit()
stream.offset_flush()
answer(got)
answer(stored())
answer([r.value_string() for r in consume(OffsetManagementStrategy.MANUAL)])
fluvio.delete_consumer_offset("c", "t", 0)
answer(stored())
"""
    )
    assert first == ["0", "1"]
    assert listed == [["c", "t", 0, 1]]
    assert second == ["2", "3", "4"]
    assert after == []


async def test_a_consumer_that_commits_by_itself_is_remembered(run_peer: RunPeer) -> None:
    first, second = await run_peer(
        FIVE_RECORDS
        + """
stream = consume(OffsetManagementStrategy.AUTO)
answer([next(stream).value_string() for _ in range(3)])
stream.offset_flush()
del stream
answer([r.value_string() for r in consume(OffsetManagementStrategy.AUTO)])
"""
    )
    assert first == ["0", "1", "2"]
    assert second == ["3", "4"]


async def test_a_deleted_topic_takes_its_stored_offsets_along(run_peer: RunPeer) -> None:
    before, after, again = await run_peer(
        FIVE_RECORDS
        + """
stream = consume(OffsetManagementStrategy.MANUAL)
next(stream)
stream.offset_commit()
stream.offset_flush()
del stream
answer(len(stored()))
admin.delete_topic("t")
answer(stored())
admin.create_topic("t")
producer = fluvio.topic_producer("t")
producer.send_string("new").wait()
answer([r.value_string() for r in consume(OffsetManagementStrategy.MANUAL)])
"""
    )
    assert (before, after, again) == (1, [], ["new"])
