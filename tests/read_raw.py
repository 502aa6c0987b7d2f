"""Reads whole topics with the official Python client or with our client."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from streamkit.sync import Client
from tests.checker import Row, read_rows

_OFFICIAL: Final = """
import json, sys
from fluvio import ConsumerConfigExtBuilder, Fluvio, Offset

fluvio = Fluvio.connect()
for topic, partition in json.loads(sys.argv[1]):
    builder = ConsumerConfigExtBuilder(topic)
    builder.disable_continuous()
    builder.partition(partition)
    builder.offset_start(Offset.beginning())
    for record in fluvio.consumer_with_config(builder.build()):
        value = bytes(record.value()).hex()
        print(json.dumps([topic, partition, record.offset(), value]))
"""
_PROFILE: Final = """version = "2.0"
current_profile = "test"
[profile.test]
cluster = "test"
[cluster.test]
endpoint = "{address}"
[cluster.test.tls]
tls_policy = "disabled"
"""


def official_python() -> str | None:
    """Return the Python with the official client, or None."""
    return os.environ.get("STREAMKIT_PEER_PYTHON")


def read_by_official_client(
    python: str, address: str, partitions: list[tuple[str, int]], folder: Path
) -> Iterator[Row]:
    """Read whole partitions in a separate process."""
    profile = folder / "profile"
    profile.write_text(_PROFILE.format(address=address))
    done = subprocess.run(
        [python, "-c", _OFFICIAL, json.dumps(partitions)],
        env=os.environ | {"FLV_PROFILE_PATH": str(profile)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return read_rows(done.stdout.splitlines())


def read_by_our_client(address: str, topics: Iterable[str]) -> Iterator[Row]:
    with Client.connect(address) as client:
        for topic in topics:
            for chunk in client.consumer(topic, until_end=True).chunks():
                for offset, value in zip(chunk.offsets, chunk.values, strict=True):
                    yield topic, chunk.partition, offset, value
