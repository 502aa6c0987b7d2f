"""Connections that stall in one direction, and responses that a server cuts at any byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import anyio
import anyio.to_thread
import pytest

from streamkit import Client
from streamkit.protocol.compression import Codec
from tests.broker.running import batch_of
from tests.broker_process import BrokerProcess
from tests.client.scripted import Read, Scripted
from tests.client.test_cuts import Bench, NoPauses, bench, read, retrying_client, write
from tests.proxy import FLOWS, Flow, Stall

SOON_S: Final = 60.0
STALLS: Final = 6
SIZES: Final = (3, 1, 4)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def dedicated_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("stalls") / "data") as process:
        yield process


async def session(held: Bench) -> None:
    """Connect, write and check the outcomes, then read all records."""
    async with retrying_client(held.proxy.address) as proxied:
        await write(held, proxied, "at-least-once")
        found, _ = await read(proxied)
        assert {n: len(rows) for n, rows in found.items()} == held.ends
        assert all([o for o, _ in rows] == list(range(len(rows))) for rows in found.values())


@pytest.mark.parametrize("ends", ["goes on", "is cut"])
@pytest.mark.parametrize("flow", FLOWS)
async def test_a_stall_in_one_direction_loses_nothing(
    dedicated_broker: BrokerProcess, flow: Flow, ends: Literal["goes on", "is cut"]
) -> None:
    async with bench(dedicated_broker) as held:
        await held.begin()
        await session(held)
        # After the first watch responses, the bytes of the SC depend on timing.
        total = held.proxy.carried[flow] if flow.startswith("spu") else 150
        for number in range(STALLS):
            stall = Stall(flow, total * number // STALLS)
            await held.begin(stall)
            again = held.counts["stored again"]

            async def end(stall: Stall = stall) -> None:
                await anyio.to_thread.run_sync(stall.has_fired.wait)
                if ends == "is cut":
                    held.proxy.cut_all()
                stall.release()

            with anyio.fail_after(SOON_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(end)
                    await session(held)
            assert stall.fired
            if ends == "goes on":
                assert held.counts["stored again"] == again, "waiting must not repeat records"


@pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.name.lower())
async def test_a_response_cut_at_any_byte_loses_nothing(codec: Codec, is_deep: bool) -> None:
    """Two partitions are read to their ends, with a seek in between."""
    server = Scripted(2)
    for partition in range(2):
        for size in SIZES:
            values = [b"value %d %d" % (partition, row) for row in range(size)]
            server.append(partition, batch_of(*values, codec_used=codec))
    total = sum(map(len, server.logs[0].batches))
    async with server.running(), Client(server.address, clock=NoPauses()) as client:
        for at in range(0, total, 1 if is_deep else 7):
            server.reads.extend([Read("cut", at)] * 3)
            with anyio.fail_after(SOON_S):
                await read_with_a_seek(server, client)
    assert server.fired["cut"] >= total // 7


async def read_with_a_seek(server: Scripted, client: Client) -> None:
    found: dict[int, list[int]] = {0: [], 1: []}
    async with client.consumer("t", until_end=True) as consumer:
        has_sought = False
        while (chunk := await consumer.next_chunk()) is not None:
            offsets = list(chunk.offsets)
            assert chunk.values == [server.logs[chunk.partition].values[o] for o in offsets]
            found[chunk.partition] += offsets
            if not has_sought:
                await consumer.seek(0, 2)
                found[0], has_sought = [0, 1], True
    assert found == {0: list(range(8)), 1: list(range(8))}
