"""Runs whole jobs of benchmarks, without a broker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from streamkit import App
from streamkit.bench.in_memory import Silent
from streamkit.connectors import Sink
from streamkit.dataflow.contracts import ConnectorEnv
from streamkit.env import SystemClock
from streamkit.run.heap import frozen_heap
from streamkit.runtime.called_sinks import own_writer
from streamkit.runtime.ports import Ports
from streamkit.runtime.worker import Worker, WorkerOptions
from streamkit.state.states import States
from streamkit.state.store import Store


def run(app: App) -> float:
    """Run a job as `streamkit run --once` does; return the seconds it took.

    The creation of a store is left out: it takes about 50 ms, once for each app.
    """
    with TemporaryDirectory() as folder:
        return asyncio.run(_run(app, Path(folder)))


async def _run(app: App, folder: Path) -> float:
    clock = SystemClock()
    readers: dict[Any, Any] = {}
    writers: dict[Any, Any] = {}
    for node in app.topology.of_kind("source"):
        env = ConnectorEnv(node.name, app.name, folder, clock, until_end=True, kind=node.input_type)
        readers[node] = node.endpoint.reader(env)
        await readers[node].open({})
    for node in app.topology.of_kind("sink"):
        if isinstance(node.endpoint, Sink):
            env = ConnectorEnv(node.name, app.name, folder, clock, kind=node.value_type)
            writers[node] = node.endpoint.writer(env)
            await writers[node].open({})
        else:
            writers[node] = own_writer(node, clock)
    store = Store(folder / "main.sqlite")
    store.open(app=app.name, cluster="bench")
    try:
        ports = Ports(readers, writers, store, States())
        with frozen_heap() as freeze:
            freeze()
            began_s = perf_counter()
            code = await Worker(app.topology, ports, clock, Silent(), WorkerOptions()).run()
            seconds = perf_counter() - began_s
    finally:
        store.close()
    assert code == 0, f"the job ended with exit code {code}"
    return seconds
