"""Scripts with the official clients, and our client, on one ``streamkit broker start``."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from streamkit import Client, sync
from tests.peers.peer import Peer, started
from tests.stop.broker import BrokerProcess

# The beginning of every Python script.
PYTHON_PRELUDE: Final = """
import json
import os
from fluvio import *
from fluvio.specs import *
from fluvio.topic import *

def answer(value):
    # In one write, because another thread may answer at the same time.
    os.write(1, json.dumps(value).encode() + b"\\n")

def receive():
    return json.loads(input())

def until_end(topic, partition=None, start=None, consumer=None, strategy=None):
    builder = ConsumerConfigExtBuilder(topic)
    builder.disable_continuous()
    if partition is not None:
        builder.partition(partition)
    builder.offset_start(start or Offset.beginning())
    if consumer is not None:
        builder.offset_consumer(consumer)
        builder.offset_strategy(strategy)
    return fluvio.consumer_with_config(builder.build())

def producer_with(topic, **options):
    builder = TopicProducerConfigBuilder()
    for name, value in options.items():
        getattr(builder, name)(value)
    return fluvio.topic_producer_with_config(topic, builder.build())

def refusal(call, *args):
    try:
        call(*args)
    except Exception as error:
        return str(error)

fluvio = Fluvio.connect()
admin = FluvioAdmin.connect()
"""
# The end of every Python script: the client's threads may crash an interpreter that shuts down.
PYTHON_END: Final = """
import os
os._exit(0)
"""
# The beginning of every Node script, which runs inside an async function.
NODE_PRELUDE: Final = """
const { default: Fluvio, Offset } = require("@fluvio/client");
const lines = require("readline").createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const answer = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
const receive = async () => JSON.parse((await lines.next()).value);
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const refusal = (promise) => promise.then(() => null, (error) => String(error));

async function main(host, port) {
const fluvio = await Fluvio.connect({ host, port: Number(port) });
const admin = await fluvio.admin();

async function stream(topic, partition, offset) {
    const consumer = await fluvio.partitionConsumer(topic, partition);
    return (await consumer.createStream(offset || Offset.FromBeginning()))[Symbol.asyncIterator]();
}
async function take(records, count) {
    const taken = [];
    while (taken.length < count) taken.push((await records.next()).value);
    return taken;
}
"""
NODE_END: Final = """
}
main(...process.argv[1].split(":")).then(
    () => process.stdout.write("", () => process.exit(0)),  // after all output is written
    (error) => { console.error(error); process.exit(1); },
);
"""
PROFILE: Final = """
version = "2.0"
current_profile = "test"
[profile.test]
cluster = "test"
[cluster.test]
endpoint = "{address}"
[cluster.test.tls]
tls_policy = "disabled"
"""

RunPeer = Callable[[str], Awaitable[list[Any]]]
_numbers = count()


class StartPeer(Protocol):
    """Start a script.

    Args:
        script: The text between the prelude and the end.
        address: The address to connect to, if it is not the broker's own.
        socket_wait_s: How long the client waits for a response.
    """

    def __call__(
        self, script: str, address: str | None = None, socket_wait_s: int = 20
    ) -> AbstractAsyncContextManager[Peer]: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the scripts are asyncio subprocesses; other tests run our client on trio


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("broker") / "data") as process:
        yield process


@pytest.fixture
def broker(process: BrokerProcess) -> Iterator[BrokerProcess]:
    """A broker without topics, modules and stored offsets; restarted after the test if needed."""
    yield process
    if not process.runs:
        process.start()
    with sync.Client.connect(process.address) as client:
        delete_everything(client.admin)


def delete_everything(admin: sync.Admin) -> None:
    for stored in admin.list_consumers():
        admin.delete_consumer(stored.consumer_id, stored.topic, stored.partition)
    for topic in admin.list_topics():
        admin.delete_topic(topic.name)
    for module in admin.list_smartmodules():
        admin.delete_smartmodule(module.name)


@pytest.fixture
async def client(broker: BrokerProcess) -> AsyncIterator[Client]:
    """Our client."""
    async with Client.connect(broker.address) as client:
        yield client


@pytest.fixture
def start_peer(peer_python: str, broker: BrokerProcess, tmp_path: Path) -> StartPeer:
    """Start a script with the official client for Python."""

    def start(
        script: str, address: str | None = None, socket_wait_s: int = 20
    ) -> AbstractAsyncContextManager[Peer]:
        number = next(_numbers)
        profile = tmp_path / f"profile-{number}.toml"
        profile.write_text(PROFILE.format(address=address or broker.address))
        variables = {"FLV_PROFILE_PATH": str(profile), "FLV_SOCKET_WAIT": str(socket_wait_s)}
        command = (peer_python, "-c", PYTHON_PRELUDE + script + PYTHON_END)
        return started(command, tmp_path / f"peer-{number}.log", variables)

    return start


@pytest.fixture
def run_peer(start_peer: StartPeer) -> RunPeer:
    """Run a script with the official client for Python; return the values that it answers."""
    return _running(start_peer)


@pytest.fixture
def start_node(peer_node: Path, broker: BrokerProcess, tmp_path: Path) -> StartPeer:
    """Start a script with the official client for Node."""
    node = shutil.which("node")
    assert node is not None, "STREAMKIT_PEER_NODE is set, so Node must be installed"

    def start(
        script: str, address: str | None = None, socket_wait_s: int = 20
    ) -> AbstractAsyncContextManager[Peer]:
        text = NODE_PRELUDE + script + NODE_END
        command = (node, "-e", text, address or broker.address)
        log = tmp_path / f"node-{next(_numbers)}.log"
        # The client logs to standard output, which is needed for the answers.
        variables = {
            "NODE_PATH": str(peer_node / "node_modules"),
            "RUST_LOG": "off",
            "FLV_SOCKET_WAIT": str(socket_wait_s),
        }
        return started(command, log, variables)

    return start


@pytest.fixture
def run_node(start_node: StartPeer) -> RunPeer:
    """Run a script with the official client for Node; return the values that it answers."""
    return _running(start_node)


def _running(start: StartPeer) -> RunPeer:
    async def run(script: str) -> list[Any]:
        async with start(script) as peer:
            return await peer.remaining()

    return run
