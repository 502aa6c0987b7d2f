"""The limits on the number of connections, and the error above a limit."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from streamkit import Client
from streamkit.broker.broker import Broker
from streamkit.errors import TooManyConnections
from streamkit.protocol import apis
from streamkit.protocol.control_plane import ApiVersionsRequest
from streamkit.protocol.error_codes import Code
from tests.broker.running import create, running, several
from tests.broker.wire import Wire

HELLO = ApiVersionsRequest("0.50.2", "linux", "x86_64")
LIMIT = 8
# A client waits up to 3 s for each of its two connections.
TIMEOUT_S = 30.0
# An early version of the broker could not serve this many clients.
CLIENTS = 70


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running(tmp_path, connections_per_address_max=LIMIT) as broker:
        yield broker


async def test_a_connection_above_the_limit_gets_an_error_with_the_limit(small: Broker) -> None:
    async with several(small.spu_address, LIMIT) as wires:
        for wire in (wires[0], wires[-1]):
            assert not (await wire.call(apis.API_VERSIONS, HELLO)).error
        for address in (small.sc_address, small.spu_address):
            async with await Wire.open(address) as one_more:
                response = await one_more.call(apis.API_VERSIONS, HELLO)
                assert response.error.code == Code.OTHER
                assert f"{LIMIT} from 127.0.0.1 are open" in response.error.text
                assert await one_more.until_closed() == b""
        wires[0].close()
        await wires[1].call(apis.API_VERSIONS, HELLO)
        async with await Wire.open(small.sc_address) as again:
            assert not (await again.call(apis.API_VERSIONS, HELLO)).error


async def test_the_total_number_of_connections_is_limited(tmp_path: Path) -> None:
    async with (
        running(tmp_path, connections_max=2, connections_per_address_max=3) as broker,
        several(broker.sc_address, 2) as wires,
    ):
        await wires[1].call(apis.API_VERSIONS, HELLO)
        async with await Wire.open(broker.sc_address) as one_more:
            response = await one_more.call(apis.API_VERSIONS, HELLO)
            assert "2 are open (the total limit)" in response.error.text


async def test_refused_connections_write_one_line_to_the_log(
    small: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "streamkit.broker"):
        async with several(small.spu_address, LIMIT) as wires:
            await wires[-1].call(apis.API_VERSIONS, HELLO)
            for _ in range(20):
                async with await Wire.open(small.sc_address) as one_more:
                    await one_more.call(apis.API_VERSIONS, HELLO)
    lines = [each.getMessage() for each in caplog.records if "no more conn" in each.getMessage()]
    assert len(lines) == 1


async def test_clients_above_the_limit_get_an_error_and_the_others_get_their_records(
    small: Broker,
) -> None:
    async with await Wire.open(small.sc_address) as sc:
        await create(sc, "t")
    async with Client.connect(small.sc_address) as client, client.producer("t") as producer:
        await producer.send(b"x")
    served: list[bytes] = []
    refused: list[TooManyConnections] = []
    all_are_counted = anyio.Event()

    def count() -> None:
        if len(served) + len(refused) == LIMIT:
            all_are_counted.set()

    async def read() -> None:
        try:
            async with Client.connect(small.sc_address) as client, client.consumer("t") as consumer:
                chunk = await consumer.next_chunk()
                assert chunk is not None
                served.extend(chunk.values)
                count()
                await all_are_counted.wait()
        except TooManyConnections as error:
            refused.append(error)
            count()

    with anyio.fail_after(TIMEOUT_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(LIMIT):
                tasks.start_soon(read)
    assert served
    assert refused
    assert all(f"{LIMIT} from 127.0.0.1 are open" in str(error) for error in refused)
    assert not any("TLS" in str(error) for error in refused)


async def test_many_clients_of_one_machine_read_and_write_simultaneously(broker: Broker) -> None:
    async with await Wire.open(broker.sc_address) as sc:
        await create(sc, "t")
    values = sorted(b"%d" % number for number in range(CLIENTS))
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(Client.connect(broker.sc_address))
                for _ in range(CLIENTS)
            ]
            consumers = [
                await stack.enter_async_context(client.consumer("t")) for client in clients
            ]
            for value, client in zip(values, clients, strict=True):
                producer = await stack.enter_async_context(client.producer("t", linger=0))
                await (await producer.send(value))
            for consumer in consumers:
                found: list[bytes] = []
                while len(found) < CLIENTS:
                    chunk = await consumer.next_chunk()
                    assert chunk is not None
                    found += chunk.values
                assert sorted(found) == values
