"""A folder with an embedded broker that outlives the jobs in it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from streamkit.record import Chunk
from streamkit.sync import Client
from tests.stop.broker import BrokerProcess
from tests.stop.running import Job, run_to_end

Row = tuple[int, int]  # lane and number of a value that the jobs copy
_BATCH = 20_000


class Place:
    """A folder and a broker in which jobs run; reads their topics and files."""

    def __init__(self, folder: Path, broker: BrokerProcess) -> None:
        self.folder = folder
        self.broker = broker
        self.options = ("--embedded", "--data-dir", str(folder / "data"))

    @property
    def address(self) -> str:
        return self.broker.address

    def job(self, app: str | Path, *options: str, **variables: str) -> Job:
        return Job(app, self.folder, *self.options, *options, **variables)

    def run(self, app: str | Path, *options: str, **variables: str) -> Job:
        """Run an app until it ends."""
        return run_to_end(app, self.folder, *self.options, *options, **variables)

    def produce_rows(self, topic: str, *, lanes: int, count: int, first: int = 0) -> None:
        """Write ``count`` numbered rows to each partition; create the topic if it is missing."""
        with Client.connect(self.address) as client:
            if topic not in {each.name for each in client.admin.list_topics()}:
                client.admin.create_topic(topic, lanes)
            for lane in range(lanes):
                with client.producer(topic, partition=lane) as producer:
                    for start in range(first, first + count, _BATCH):
                        numbers = range(start, min(start + _BATCH, first + count))
                        producer.send_many(
                            [b'{"lane":%d,"number":%d}' % (lane, each) for each in numbers],
                            keys=[b"%d-%d" % (lane, each % 8) for each in numbers],
                        )

    def produce_lane(self, topic: str, lane: int, numbers: Iterable[int]) -> None:
        """Write some rows to one partition."""
        rows = [b'{"lane":%d,"number":%d}' % (lane, each) for each in numbers]
        with (
            Client.connect(self.address) as client,
            client.producer(topic, partition=lane) as producer,
        ):
            producer.send_many(rows)

    def produce(self, topic: str, values: Iterable[bytes], *, partitions: int = 1) -> None:
        """Write values without keys; create the topic if it is missing."""
        with Client.connect(self.address) as client:
            if topic not in {each.name for each in client.admin.list_topics()}:
                client.admin.create_topic(topic, partitions)
            with client.producer(topic) as producer:
                producer.send_many(list(values))

    def chunks(self, topic: str) -> list[Chunk]:
        """Read a topic from its beginning to its end."""
        with Client.connect(self.address) as client:
            return list(client.consumer(topic, start="beginning", until_end=True).chunks())

    def values(self, topic: str) -> list[bytes]:
        return [value for chunk in self.chunks(topic) for value in chunk.values]

    def rows_by_partition(self, topic: str) -> dict[int, list[Row]]:
        """Return the numbered rows of each partition, in order."""
        found: dict[int, list[Row]] = defaultdict(list)
        for chunk in self.chunks(topic):
            found[chunk.partition].extend(map(as_row, chunk.values))
        return found

    def rows_of_file(self, name: str) -> list[Row]:
        data = (self.folder / name).read_bytes()
        assert data.endswith(b"\n"), "the last line must be complete"
        return list(map(as_row, data.splitlines()))


@contextmanager
def place_in(folder: Path) -> Iterator[Place]:
    """Run a broker in a folder while the block runs."""
    with BrokerProcess(folder / "data") as broker:
        yield Place(folder, broker)


class _Numbered(msgspec.Struct):
    lane: int
    number: int


_decode = msgspec.json.Decoder(_Numbered).decode


def as_row(value: bytes) -> Row:
    numbered = _decode(value)
    return numbered.lane, numbered.number


def assert_each_once_in_order(rows: Iterable[Row], *, lanes: int, count: int) -> None:
    """Assert that each lane has every number once, in order."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for lane, number in rows:
        numbers[lane].append(number)
    assert {lane: len(found) for lane, found in numbers.items()} == dict.fromkeys(
        range(lanes), count
    )
    for found in numbers.values():
        assert found == list(range(count))


def assert_partitions_hold_each_once(
    partitions: dict[int, list[Row]], *, lanes: int, count: int
) -> None:
    """Assert that partitions have every row once, and the rows of a lane in order."""
    assert len(partitions) > 1, "with one partition this proves little"
    taken = Counter(row for rows in partitions.values() for row in rows)
    assert len(taken) == lanes * count
    assert set(taken.values()) == {1}
    for rows in partitions.values():
        for lane in range(lanes):
            numbers = [number for each, number in rows if each == lane]
            assert numbers == sorted(numbers)


def assert_each_at_least_once(rows: Iterable[Row], *, lanes: int, count: int) -> int:
    """Assert that no row is missing; return how many are duplicates."""
    taken = Counter(rows)
    assert len(taken) == lanes * count
    return sum(taken.values()) - len(taken)


def assert_first_occurrences_ascend(rows: Iterable[Row], *, keys: int = 8) -> None:
    """Assert that rows are in order for each key, without duplicates."""
    seen: set[Row] = set()
    last: dict[tuple[int, int], int] = {}
    for row in rows:
        if row in seen:
            continue
        seen.add(row)
        lane, number = row
        key = lane, number % keys
        assert number > last.get(key, -1), f"{row} after {last[key]}"
        last[key] = number


def next_offsets(job: Job) -> dict[int, int]:
    """Return the start offsets of the first source of a job, from its start report."""
    started = job.wait_for(lambda event: event["event"] == "started")
    return {int(a): int(b) for a, b in re.findall(r"(\d+): (\d+)", started["sources"][0])}
