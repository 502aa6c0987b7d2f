"""The official Python client in a process of its own, against a broker in this one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from streamkit.broker.broker import Broker
from tests.broker.running import running

PATIENCE_S: Final = 60.0
# What every script begins with. It answers in lines of JSON, by `answer`.
PRELUDE: Final = """
import json
from fluvio import *
from fluvio.specs import *
from fluvio.topic import *

def answer(value):
    print(json.dumps(value), flush=True)

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

fluvio = Fluvio.connect()
admin = FluvioAdmin.connect()
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


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the broker owns its process, so it is written for one loop


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def run_peer(peer_python: str, broker: Broker, tmp_path: Path) -> RunPeer:
    """Run a script with the official client; return the values that it answers."""
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE.format(address=broker.sc_address))

    async def run(script: str) -> list[Any]:
        process = await asyncio.create_subprocess_exec(
            peer_python,
            "-c",
            PRELUDE + script,
            env={**os.environ, "FLV_PROFILE_PATH": str(profile), "FLV_SOCKET_WAIT": "20"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"no end after {PATIENCE_S} s: {out!r} {err!r}") from None
        assert process.returncode == 0, err.decode()
        return [json.loads(line) for line in out.splitlines()]

    return run
