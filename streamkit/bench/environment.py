"""The environment of a benchmark: a separate broker in another process, with fsync on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from streamkit.bench.official import OfficialClient, find_official_client
from streamkit.bench.result import Scale
from streamkit.errors import StateError
from streamkit.sync import Client

_PROFILE = """version = "2.0"
current_profile = "bench"
[profile.bench]
cluster = "bench"
[cluster.bench]
endpoint = "{address}"
[cluster.bench.tls]
tls_policy = "disabled"
"""


@dataclass(slots=True)
class Environment:
    """A running broker. ``official`` is None if the official client is not installed."""

    address: str
    folder: Path
    client: Client
    official: OfficialClient | None
    _numbers: Iterator[int] = field(default_factory=count)

    @contextmanager
    def topic(self) -> Iterator[str]:
        """Create a topic with one partition, and delete it at the end of the block."""
        name = f"bench-{next(self._numbers)}"
        self.client.admin.create_topic(name)
        yield name
        self.client.admin.delete_topic(name)


@contextmanager
def broker(scale: Scale) -> Iterator[Environment]:
    """Run a broker for the block.

    Raises:
        StateError: It did not start.
    """
    with tempfile.TemporaryDirectory(prefix="streamkit-bench-", dir=scale.folder) as name:
        folder = Path(name)
        with _process(folder) as address, Client.connect(address) as client:
            profile = folder / "fluvio-profile"
            profile.write_text(_PROFILE.format(address=address))
            yield Environment(address, folder, client, find_official_client(profile))


@contextmanager
def _process(folder: Path) -> Iterator[str]:
    ports = ("--sc-port", "0", "--spu-port", "0")
    data_dir = ("--data-dir", str(folder / "data"))
    with (
        (folder / "broker.log").open("w") as messages,
        subprocess.Popen(
            [sys.executable, "-m", "streamkit", "broker", "start", *ports, *data_dir],
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None, "stdout is a pipe"
            line = process.stdout.readline()
            if not line.startswith("ready "):
                raise StateError(f"the broker did not start: {(folder / 'broker.log').read_text()}")
            yield line.split()[1].removeprefix("sc=")
        finally:
            process.terminate()
            process.wait()
