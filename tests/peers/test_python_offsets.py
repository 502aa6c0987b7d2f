"""Stored consumer offsets: one client resumes where the other has committed."""

from __future__ import annotations

from typing import Final

import pytest

from streamkit import Client
from tests.peers.conftest import RunPeer

pytestmark = pytest.mark.peers

CONSUMER: Final = """
def consume(strategy, start=None):
    return until_end("t", start=start, consumer="c", strategy=strategy)

def stored():
    return [[o.consumer_id, o.topic, o.partition, o.offset] for o in fluvio.consumer_offsets()]
"""


@pytest.fixture(autouse=True)
async def five_records(client: Client) -> None:
    """Create the topic ``t`` with the values ``"0"`` to ``"4"``."""
    await client.admin.create_topic("t")
    async with client.producer("t") as producer:
        await producer.send_many([b"%d" % number for number in range(5)])


async def stored(client: Client) -> list[tuple[str, str, int, int]]:
    found = await client.admin.list_consumers()
    return [(each.consumer_id, each.topic, each.partition, each.offset) for each in found]


async def test_the_official_client_resumes_where_it_has_committed(run_peer: RunPeer) -> None:
    first, listed, second, after = await run_peer(
        CONSUMER
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


async def test_the_official_client_commits_automatically(run_peer: RunPeer) -> None:
    first, second = await run_peer(
        CONSUMER
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


async def test_streamkit_resumes_where_the_official_client_has_committed(
    run_peer: RunPeer, client: Client
) -> None:
    await run_peer(
        CONSUMER
        + """
stream = consume(OffsetManagementStrategy.MANUAL)
for _ in range(2):
    next(stream)
stream.offset_commit()
stream.offset_flush()
"""
    )
    assert await stored(client) == [("c", "t", 0, 1)]
    consumer = client.consumer("t", consumer_id="c", until_end=True)
    assert [record.value async for record in consumer] == [b"2", b"3", b"4"]


async def test_the_official_client_resumes_where_streamkit_has_committed(
    run_peer: RunPeer, client: Client
) -> None:
    options = {"consumer_id": "c", "offset_strategy": "manual"}
    async with client.consumer("t", **options) as consumer:  # type: ignore[arg-type]
        async for record in consumer:
            if record.value == b"2":
                await consumer.commit(record)
                break
    listed, rest = await run_peer(
        CONSUMER
        + """
answer(stored())
answer([r.value_string() for r in consume(OffsetManagementStrategy.MANUAL)])
"""
    )
    assert listed == [["c", "t", 0, 2]]
    assert rest == ["3", "4"]


async def test_both_clients_alternate_on_one_stored_offset(
    run_peer: RunPeer, client: Client
) -> None:
    seen: list[str] = []
    for turn in range(3):
        async with client.producer("t") as producer:
            await producer.send_many([b"ours %d" % turn, b"more"])
        async with client.consumer(
            "t", consumer_id="c", offset_strategy="auto", until_end=True
        ) as consumer:
            seen += [record.value_text async for record in consumer]
        (theirs,) = await run_peer(
            CONSUMER
            + f"""
producer = fluvio.topic_producer("t")
producer.send_all([(b"", b"theirs {turn}"), (b"", b"more")])
producer.flush()
stream = consume(OffsetManagementStrategy.AUTO)
answer([record.value_string() for record in stream])
stream.offset_commit()
stream.offset_flush()
"""
        )
        seen += theirs
    assert seen == [
        *"01234",
        *(text for turn in range(3) for text in (f"ours {turn}", "more", f"theirs {turn}", "more")),
    ]


async def test_each_partition_has_its_own_stored_offset_for_both_clients(
    run_peer: RunPeer, client: Client
) -> None:
    await client.admin.create_topic("wide", 3)
    async with client.producer("wide") as producer:
        await producer.send_many([b"%d" % number for number in range(30)])
    async with client.consumer(
        "wide", consumer_id="c", offset_strategy="manual", until_end=True
    ) as consumer:
        async for record in consumer:
            if record.offset == 3 + record.partition:
                await consumer.commit(record)
    answers = await run_peer(
        """
answer(sorted([o.partition, o.offset] for o in fluvio.consumer_offsets()))
for partition in range(3):
    stream = until_end("wide", partition, None, "c", OffsetManagementStrategy.MANUAL)
    answer([record.offset() for record in stream])
"""
    )
    assert answers[0] == [[0, 3], [1, 4], [2, 5]]
    assert answers[1:] == [list(range(4, 10)), list(range(5, 10)), list(range(6, 10))]


async def test_each_client_deletes_offsets_that_the_other_has_stored(
    run_peer: RunPeer, client: Client
) -> None:
    commit = """
stream = consume(OffsetManagementStrategy.MANUAL)
next(stream)
stream.offset_commit()
stream.offset_flush()
"""
    await run_peer(CONSUMER + commit)
    assert [each.offset for each in await client.admin.delete_consumer("c")] == [0]
    assert (await run_peer(CONSUMER + "answer(stored())")) == [[]]
    async with client.consumer(
        "t", consumer_id="c", offset_strategy="auto", until_end=True
    ) as consumer:
        async for _ in consumer:
            pass
    assert await stored(client) == [("c", "t", 0, 4)]
    await run_peer('fluvio.delete_consumer_offset("c", "t", 0)')
    assert await stored(client) == []


async def test_deleting_a_topic_deletes_its_stored_offsets(run_peer: RunPeer) -> None:
    before, after, again = await run_peer(
        CONSUMER
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
