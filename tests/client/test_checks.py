"""Public methods either accept an argument or raise `UsageError`, and the client keeps working.

The table has a kind of value for each parameter of each method; a missing parameter fails a
test. Every bad value of that kind is passed to both clients.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import anyio
import pytest

from streamkit import Client, Offset, sync
from streamkit.client import Deduplication, Lookback, RetryPolicy, SmartModule, Tls
from streamkit.errors import StreamKitError, UsageError
from streamkit.record import Record
from tests.broker_process import BrokerProcess
from tests.client.conftest import NewTopic

SOON_S: Final = 20.0
SURROGATE: Final = "\ud800"


class Strange:
    """A value whose `repr` raises."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


class Mixed:
    """An iterable that yields values other than bytes."""

    def __iter__(self) -> Iterator[object]:
        yield b"x"
        yield "text"


NAN: Final = float("nan")
NOT_WHOLE: Final[list[Any]] = [1.5, NAN, "0", b"0", True, [], {}, Decimal(1), object(), Strange()]
NOT_A_PLACE: Final = [1.5, NAN, b"0", True, [], {}, Decimal(1), object(), Strange()]
NEGATIVE: Final[list[Any]] = [-1, -(2**63), -(2**70)]
TOO_LARGE: Final[list[Any]] = [2**63, 2**64, 2**200]
NOT_TEXT: Final[list[Any]] = [5, b"t", True, 1.5, [], {}, object(), Strange(), SURROGATE]
NOT_SECONDS: Final[list[Any]] = [
    *(-1, -0.5, NAN, float("inf"), -float("inf"), True, "5", "5s", b"1", [], object(), Strange()),
    *(2**200, timedelta(seconds=-1), timedelta.max),
]
NOT_A_NUMBER: Final[list[Any]] = [*NOT_WHOLE, *NEGATIVE, *TOO_LARGE, None]
NOT_A_FLAG: Final[list[Any]] = [0, 1, None, "yes", "", [], object()]
NOT_A_FUNCTION: Final[list[Any]] = [5, "f", b"f", [], object()]
NOT_A_CHOICE: Final[list[Any]] = ["", "other", SURROGATE, 5, True, b"none", [], {}, object()]
NOT_BYTES: Final[list[Any]] = [
    *(5, 1.5, True, [], [b"x"], {}, object(), Strange(), SURROGATE),
    *(bytearray(b"x"), memoryview(b"x")),
]
NOT_BYTES_COLUMN: Final[list[Any]] = [
    *(5, None, True, object(), "text", b"bytes", bytearray(b"x"), memoryview(b"x")),
    *({b"x"}, {b"x": b"y"}, ["x"], [5], [[b"x"]], [bytearray(b"x")], [object()], [Strange()]),
]
NOT_STAMPS: Final[list[Any]] = [
    *(5, True, "5", b"5", object(), {5}, {5: 5}, ["5"], [None], [1.7e12], [NAN], [True], [[]]),
    *([-1], [-5], [2**63], [2**64], [object()], [1, 2]),
]
NOT_SEVERAL: Final[list[Any]] = [1.5, "01", b"0", True, {0}, {0: 0}, object(), ["0"], [1.5], [-1]]
NOT_A_NAME: Final[list[Any]] = [None, "", "Upper", "a b", "-a", "ä", "a" * 64, *NOT_TEXT]

VALUES: Final[dict[str, list[Any]]] = {
    "whole": NOT_A_NUMBER,
    "whole or none": NOT_A_NUMBER[:-1],
    "64 bits or none": [*NOT_WHOLE, *NEGATIVE, 2**64],
    "seconds": [*NOT_SECONDS, None],
    "seconds or none": NOT_SECONDS,
    "text": [*NOT_TEXT, None, "", "x" * 32_768],
    "text or none": [*NOT_TEXT, "", "x" * 32_768],
    "name": NOT_A_NAME,
    "flag": NOT_A_FLAG,
    "function": NOT_A_FUNCTION,
    "choice": [*NOT_A_CHOICE, None],
    "choice or none": NOT_A_CHOICE,
    "offset": [*NOT_A_PLACE, *NEGATIVE, *TOO_LARGE, None, "", "5x", "9" * 5_000, SURROGATE],
    "partitions": [*NOT_SEVERAL, [2**32], [True]],
    "start_offsets": [5, "0", [0], {0: -1}, {-1: 0}, {"0": 0}, {0: 1.5}, {0: 2**63}, {0: None}],
    "retry": [5, None, "fixed", {}],
    "smartmodules": [5, None, "name", [5], [None], [""], [SURROGATE], {"a": 1}],
    "value": [*NOT_BYTES, None],
    "key": NOT_BYTES,
    "values": [*NOT_BYTES_COLUMN, [None], Mixed()],
    "keys": [each for each in NOT_BYTES_COLUMN if each is not None],
    "stamp": [*NOT_WHOLE, *NEGATIVE, *TOO_LARGE],
    "stamps": NOT_STAMPS,
    "record": [5, b"x", Record(b""), Record(b"", offset=-1, partition=0), object()],
    "assignment": [5, "a", [5], [["a"]], [[-1]], [[2**31]], [[1.5]], {0: [1]}],
    "mirrors": [5, "a", [5], [None], [""], {"a": 1}],
    "deduplication": [5, "a", {}, *(Deduplication(count) for count in (0, -1, 2**70, 1.5))],  # type: ignore[arg-type]
    "path": [None, 5, b"p", [], "a\0b", object(), "does-not-exist.json"],
    "wasm": [None, 5, [], "a\0b", object(), b"no module", "does-not-exist.wasm"],
    "address": [5, b"a", True, [], object(), SURROGATE],
    "tls": [5, "tls", {}, True],
}

# The kind of value by method and parameter. "topic" is the topic of the test.
CLIENT: Final[dict[str, dict[str, str]]] = {
    "producer": {
        "topic": "text",
        "batch_size": "whole",
        "max_request_size": "whole",
        "linger": "seconds",
        "compression": "choice or none",
        "isolation": "choice",
        "timeout": "seconds",
        "partitioner": "function",
        "partition": "whole or none",
        "queue_bytes": "whole",
        "queue_batches": "whole or none",
        "delivery": "choice",
        "delivery_timeout": "seconds or none",
        "close_timeout": "seconds or none",
        "retry": "retry",
        "on_retry": "function",
        "on_batch": "function",
        "smartmodules": "smartmodules",
    },
    "consumer": {
        "topic": "text",
        "start": "offset",
        "partitions": "partitions",
        "until_end": "flag",
        "isolation": "choice",
        "max_bytes": "whole",
        "prefetch_bytes": "whole",
        "consumer_id": "text or none",
        "offset_strategy": "choice",
        "resume": "flag",
        "on_evicted": "choice",
        "smartmodules": "smartmodules",
        "start_offsets": "start_offsets",
        "open_timeout": "seconds or none",
        "on_retry": "function",
    },
    "fetch": {
        "topic": "text",
        "partition": "whole",
        "offset": "whole",
        "max_bytes": "whole",
        "isolation": "choice",
    },
}
PRODUCER: Final[dict[str, dict[str, str]]] = {
    "send": {"value": "value", "key": "key", "timestamp_ms": "stamp", "partition": "whole or none"},
    "send_many": {"values": "values", "keys": "keys", "timestamps_ms": "stamps"},
    "fits": {"value": "value", "key": "key"},
    "check_fits": {"value": "value", "key": "key"},
}
CONSUMER: Final[dict[str, dict[str, str]]] = {
    "seek": {"partition": "whole", "offset": "offset"},
    "commit": {"record": "record"},
    "store": {"partition": "whole", "offset": "whole"},
}
ADMIN: Final[dict[str, dict[str, str]]] = {
    "create_topic": {
        "name": "name",
        "partitions": "whole",
        "replication": "whole",
        "ignore_rack": "flag",
        "assignment": "assignment",
        "mirrors": "mirrors",
        "home_to_remote": "flag",
        "retention": "seconds or none",
        "segment_size_bytes": "whole or none",
        "max_partition_size_bytes": "64 bits or none",
        "compression": "choice",
        "deduplication": "deduplication",
        "system": "flag",
        "dry_run": "flag",
        "exist_ok": "flag",
    },
    "create_topic_from": {"path": "path"},
    "delete_topic": {"name": "text", "force": "flag"},
    "add_partitions": {"name": "text", "count": "whole"},
    "add_mirror": {"name": "text", "remote": "text", "home_to_remote": "flag"},
    "list_topics": {"system": "flag"},
    "describe_topic": {"name": "text"},
    "list_partitions": {"topic": "text or none", "system": "flag"},
    "create_smartmodule": {"name": "name", "wasm": "wasm", "dry_run": "flag"},
    "delete_smartmodule": {"name": "text"},
    "delete_consumer": {
        "consumer_id": "text",
        "topic": "text or none",
        "partition": "whole or none",
    },
}
REQUIRED: Final[dict[str, dict[str, Any]]] = {
    "producer": {"topic": "t"},
    "consumer": {"topic": "t"},
    "fetch": {"topic": "t", "partition": 0, "offset": 0},
    "send": {"value": b"x"},
    "send_many": {"values": [b"x"]},
    "fits": {"value": b"x"},
    "check_fits": {"value": b"x"},
    "seek": {"partition": 0, "offset": 0},
    "store": {"partition": 0, "offset": 0},
    "create_topic": {"name": "never-made"},
    "delete_topic": {"name": "never-made"},
    "add_partitions": {"name": "never-made"},
    "add_mirror": {"name": "never-made", "remote": "r"},
    "describe_topic": {"name": "never-made"},
    "create_smartmodule": {"name": "never-made", "wasm": b"\0asm\1\0\0\0"},
    "delete_smartmodule": {"name": "never-made"},
    "delete_consumer": {"consumer_id": "nobody"},
}
WITHOUT_A_TABLE: Final = {
    "Client": {"connect", "address", "cluster", "admin", "close"},
    "Producer": {
        *("open", "flush", "send_now", "stop", "close", "metrics", "unacknowledged", "topic"),
        *("close_timeout_s", "shut", "close_with", "check_sizes", "send_columns", "checkpoint"),
    },
    "Consumer": {
        *(
            "open",
            "close",
            "chunks",
            "next_chunk",
            "metrics",
            "ends",
            "start_offsets",
            "next_offsets",
        ),
        *("high_watermarks", "end_offsets", "lag", "commit_yielded", "topic"),
    },
    "Admin": {
        *("watch_topics", "watch_partitions", "watch_smartmodules", "list_spus"),
        *("list_consumers", "list_smartmodules"),
    },
}


TABLES: Final = [
    pytest.param(PRODUCER, id="producer"),
    pytest.param(CONSUMER, id="consumer"),
    pytest.param(ADMIN, id="admin"),
]


def cases(table: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    return [(method, name) for method, parameters in table.items() for name in parameters]


def arguments(method: str, name: str) -> Iterator[dict[str, Any]]:
    kind = {**CLIENT, **PRODUCER, **CONSUMER, **ADMIN}[method][name]
    for value in VALUES[kind]:
        yield {**REQUIRED.get(method, {}), name: value}


def check_refused(call: Callable[[], object], given: object) -> None:
    try:
        call()
    except UsageError:
        return
    raise AssertionError(f"{given} was accepted")


async def check_refused_later(call: Callable[[], Any], given: object) -> None:
    try:
        found = call()
        if inspect.isawaitable(found):
            await found
    except UsageError:
        return
    raise AssertionError(f"{given} was accepted")


@pytest.mark.parametrize(
    ("kind", "table"),
    [("Client", CLIENT), ("Producer", PRODUCER), ("Consumer", CONSUMER), ("Admin", ADMIN)],
)
def test_the_table_has_every_parameter_of_every_method(
    kind: str, table: dict[str, dict[str, str]]
) -> None:
    for client in (sync.Client.connect("127.0.0.1:1"), Client.connect("127.0.0.1:1")):
        things: dict[str, Any] = {
            "Client": client,
            "Producer": client.producer("t"),
            "Consumer": client.consumer("t"),
            "Admin": client.admin,
        }
        thing = things[kind]
        public = {name for name in dir(thing) if not name.startswith("_")}
        assert public - WITHOUT_A_TABLE[kind] == set(table)
        for method, parameters in table.items():
            there = set(inspect.signature(getattr(thing, method)).parameters)
            assert there - {"dry_run", "exist_ok"} == set(parameters) - {"dry_run", "exist_ok"}


@pytest.mark.parametrize(("method", "name"), cases(CLIENT))
async def test_a_bad_argument_of_the_client_is_refused(
    client: Client, method: str, name: str
) -> None:
    for given in arguments(method, name):
        await check_refused_later(lambda: getattr(client, method)(**given), type(given[name]))  # noqa: B023


@pytest.mark.parametrize(("method", "name"), cases(CLIENT))
def test_a_bad_argument_of_the_sync_client_is_refused(
    cluster: BrokerProcess, method: str, name: str
) -> None:
    with sync.Client.connect(cluster.address) as client:
        for given in arguments(method, name):
            check_refused(lambda: getattr(client, method)(**given), type(given[name]))  # noqa: B023
        client.admin.list_topics()


@pytest.mark.parametrize(
    "table", [PRODUCER, CONSUMER, ADMIN], ids=["producer", "consumer", "admin"]
)
async def test_a_bad_argument_is_refused_and_the_client_keeps_working(
    client: Client, new_topic: NewTopic, table: dict[str, dict[str, str]]
) -> None:
    topic = await new_topic()
    with anyio.fail_after(SOON_S):
        async with (
            client.producer(topic) as producer,
            client.producer(topic, linger=3_600) as other,
            client.consumer(topic, consumer_id="checked") as consumer,
        ):
            before = await other.send_many([b"x"] * 1_000)
            for method, name in cases(table):
                for given in arguments(method, name):
                    thing: Any = {
                        id(PRODUCER): producer,
                        id(CONSUMER): consumer,
                        id(ADMIN): client.admin,
                    }[id(table)]
                    await check_refused_later(
                        lambda: getattr(thing, method)(**given),  # noqa: B023
                        (method, name, type(given[name]).__name__),
                    )
            assert len((await before).offsets) == 1_000
            assert (await (await producer.send(b"after it"))).offset == 1_000


@pytest.mark.parametrize(
    "table", [PRODUCER, CONSUMER, ADMIN], ids=["producer", "consumer", "admin"]
)
def test_a_bad_argument_is_refused_and_the_sync_client_keeps_working(
    cluster: BrokerProcess, table: dict[str, dict[str, str]], request: pytest.FixtureRequest
) -> None:
    topic = f"checks-sync-{request.node.callspec.id}"
    with sync.Client.connect(cluster.address) as client:
        client.admin.create_topic(topic)
        with (
            client.producer(topic) as producer,
            client.producer(topic, linger=3_600) as other,
            client.consumer(topic, consumer_id="checked-sync") as consumer,
        ):
            before = other.send_many([b"x"] * 1_000)
            for method, name in cases(table):
                for given in arguments(method, name):
                    thing: Any = {
                        id(PRODUCER): producer,
                        id(CONSUMER): consumer,
                        id(ADMIN): client.admin,
                    }[id(table)]
                    check_refused(
                        lambda: getattr(thing, method)(**given),  # noqa: B023
                        (method, name, type(given[name]).__name__),
                    )
            assert len(before.wait().offsets) == 1_000
            assert producer.send(b"after it").wait().offset == 1_000


@pytest.mark.parametrize("deadline_s", NOT_SECONDS)
async def test_a_bad_deadline_is_refused_and_nothing_is_closed(
    client: Client, new_topic: NewTopic, cluster: BrokerProcess, deadline_s: Any
) -> None:
    topic = await new_topic()
    producer = client.producer(topic)
    await producer.open()
    with pytest.raises(UsageError, match="deadline_s"):
        await producer.close(deadline_s=deadline_s)
    await producer.send(b"x")
    await producer.close()

    def use() -> None:
        with sync.Client.connect(cluster.address) as other, other.producer(topic) as same:
            for closable in (same, other):
                with pytest.raises(UsageError, match="deadline_s"):
                    closable.close(deadline_s=deadline_s)
            same.send(b"x").wait()

    await anyio.to_thread.run_sync(use)


@pytest.mark.parametrize(
    "options",
    [
        *({"initial_delay": value} for value in NOT_SECONDS),
        *({"max_delay": value} for value in NOT_SECONDS),
        *({"max_retries": value} for value in (-1, 1.5, "3", True, 2**70)),
        *({"strategy": value} for value in NOT_A_CHOICE),
    ],
)
def test_a_bad_retry_policy_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RetryPolicy(**options)


@pytest.mark.parametrize(
    "options",
    [
        *({name: value} for name in ("name", "label") for value in NOT_TEXT),
        *({"kind": value} for value in NOT_A_CHOICE),
        *({"params": value} for value in (5, "a", [1], {"a": 1}, {1: "a"}, {SURROGATE: "a"})),
        *({"lookback": value} for value in (5, "a", b"x")),
        *({"initial": value, "kind": "aggregate"} for value in NOT_BYTES),
        *({"name": None, "wasm": value} for value in (5, "a", bytearray(b"x"))),
    ],
)
def test_a_bad_smartmodule_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SmartModule(**{"name": "m", **options})


@pytest.mark.parametrize("value", [*NOT_SECONDS, *NOT_WHOLE])
def test_a_bad_lookback_is_refused(value: Any) -> None:
    with pytest.raises(UsageError):
        Lookback(last=value if value not in (-0.5,) else -1)


@pytest.mark.parametrize(
    "options",
    [
        *({"domain": value} for value in NOT_TEXT),
        *({"anonymous": value} for value in NOT_A_FLAG),
        *({"ca_cert": value} for value in (5, b"x", [], object())),
        {"client_cert": 5, "client_key": 5},
    ],
)
def test_a_bad_tls_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Tls(**options)


@pytest.mark.parametrize(
    "options",
    [
        *({"address": value} for value in VALUES["address"]),
        *({"client_id": value} for value in VALUES["text"]),
        *({"connect_timeout": value} for value in VALUES["seconds"]),
        *({"tls": value} for value in VALUES["tls"]),
    ],
)
def test_a_bad_argument_of_connect_is_refused(options: dict[str, Any]) -> None:
    for kind in (Client, sync.Client):
        with pytest.raises(UsageError):
            kind.connect(**{"address": "127.0.0.1:1", **options})


@pytest.mark.parametrize(
    "address", ["h:99999", "h:0", "h:²", "h:9" * 50, "a" * 300 + ":1", "a..b:1", "a\0b:1", "h:-1"]
)
async def test_an_invalid_address_is_refused_with_a_clear_error(address: str) -> None:
    with pytest.raises(StreamKitError):
        async with Client.connect(address, connect_timeout=1):
            pass


# --- accepted values ---------------------------------------------------------------------------


class Number:
    """An integer type of another library."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


class Text(str):
    __slots__ = ()


class Bytes(bytes):
    __slots__ = ()


async def test_iterables_subclasses_and_numbers_of_other_libraries_are_accepted(
    client: Client, new_topic: NewTopic, cluster: BrokerProcess
) -> None:
    topic = await new_topic()
    number: Any = Number(5)
    async with client.producer(Text(topic)) as producer:
        await producer.send(Bytes(b"0"), Text("k"), timestamp_ms=number, partition=Number(0))  # type: ignore[arg-type]
        await producer.send_many(
            (Bytes(b"%d" % n) for n in range(1, 3)), iter([None, b""]), timestamps_ms=(6, number)
        )

    def use() -> None:
        with sync.Client.connect(cluster.address) as other, other.producer(topic) as same:
            same.send(Bytes(b"3"), Text("k"), timestamp_ms=number, partition=Number(0))  # type: ignore[arg-type]
            same.send_many(
                (Bytes(b"%d" % n) for n in range(4, 6)),
                iter([None, b""]),
                timestamps_ms=[6, number],
            )

    await anyio.to_thread.run_sync(use)
    consumer = client.consumer(topic, until_end=True)
    found = [(r.value, r.key, r.timestamp_ms) async for r in consumer]
    assert found == [
        (b"0", b"k", 5),
        (b"1", None, 6),
        (b"2", b"", 5),
        (b"3", b"k", 5),
        (b"4", None, 6),
        (b"5", b"", 5),
    ]
    assert {type(value) for value, _, _ in found} == {bytes}
    assert Offset.parse(number) == Offset.absolute(5)


async def test_changing_columns_after_send_many_does_not_change_what_is_sent(
    client: Client, new_topic: NewTopic
) -> None:
    topic = await new_topic()
    values = [b"%d" % n for n in range(20_000)]
    expected = list(values)
    async with (
        client.producer(topic, queue_bytes=1_000) as producer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(producer.send_many, values)
        await anyio.wait_all_tasks_blocked()
        values.reverse()
    consumer = client.consumer(topic, until_end=True)
    assert [record.value async for record in consumer] == expected


@pytest.mark.parametrize(
    "choice", [[7], ["0"], [0.0], [None], [], [0, 0], 0, None, "0", [-1], [True], [2**70]]
)
async def test_a_partitioner_that_returns_an_invalid_partition_is_refused(
    client: Client, new_topic: NewTopic, choice: Any
) -> None:
    topic = await new_topic(2)
    async with client.producer(topic, partitioner=lambda keys, count: choice) as producer:
        with pytest.raises(UsageError, match="partition"):
            await producer.send(b"x")
        with pytest.raises(UsageError, match="partition"):
            await producer.send_many([b"x"])
