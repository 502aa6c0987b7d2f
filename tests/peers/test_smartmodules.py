"""The official Python client and streamkit create, list, watch and delete SmartModules."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

import pytest

from streamkit import Client
from streamkit.protocol import apis, specs
from streamkit.protocol.control_plane import ListRequest
from tests import wasm
from tests.peers.conftest import RunPeer, StartPeer

pytestmark = pytest.mark.peers

PACKED: Final = gzip.compress(wasm.module(), mtime=0)


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A compressed module in a file, since the official client sends files unchanged."""
    path = tmp_path / "upper.wasm.gz"
    path.write_bytes(PACKED)
    return path


async def test_streamkit_lists_modules_of_the_official_client(
    run_peer: RunPeer, client: Client, module: Path
) -> None:
    listed, *refusals = await run_peer(
        f"""
admin.create_smartmodule("theirs", {str(module)!r}, False)
admin.create_smartmodule("theirs", {str(module)!r}, False)
answer([each.name() for each in admin.list_smartmodules([])])
answer(refusal(admin.create_smartmodule, "none", "/dev/null", False))
answer(refusal(admin.delete_smartmodule, "missing"))
"""
    )
    assert listed == ["theirs"]
    assert refusals == [
        "the payload is neither wasm nor gzip-compressed wasm",
        "SmartModule not found",
    ]
    (found,) = await client.admin.list_smartmodules()
    assert (found.name, found.size_bytes) == ("theirs", len(PACKED))
    response = await client.cluster.admin(apis.LIST, ListRequest(specs.SMARTMODULE))
    assert response.items[0].spec.payload == PACKED


async def test_the_official_client_lists_and_deletes_modules_of_streamkit(
    run_peer: RunPeer, client: Client
) -> None:
    for name in ("ours-a", "ours-b"):
        await client.admin.create_smartmodule(name, wasm.module())
    answers = await run_peer(
        """
answer(sorted(each.name() for each in admin.list_smartmodules([])))
answer([each.name() for each in admin.list_smartmodules(["ours-b"])])
answer([each.name() for each in admin.list_smartmodules(["ours"])])
admin.delete_smartmodule("ours-a")
answer([each.name() for each in admin.list_smartmodules([])])
"""
    )
    assert answers == [["ours-a", "ours-b"], ["ours-b"], [], ["ours-b"]]


async def test_a_watch_of_the_official_client_reports_modules_of_streamkit(
    start_peer: StartPeer, client: Client
) -> None:
    script = """
watch = admin.watch_smartmodule()
answer([each.name() for each in next(watch).all()])
exists = True
while exists:
    for change in next(watch).changes():
        exists = not change.is_delete()
        answer([change.metadata_smart_module_spec().name(), exists])
"""
    await client.admin.create_smartmodule("first", wasm.module())
    async with start_peer(script) as peer:
        assert await peer.answer() == ["first"]
        await client.admin.create_smartmodule("second", wasm.module())
        assert await peer.answer() == ["second", True]
        await client.admin.delete_smartmodule("second")
        assert await peer.remaining() == [["second", False]]


async def test_a_stream_with_a_module_is_refused_instead_of_returning_unchanged_records(
    run_peer: RunPeer, module: Path
) -> None:
    (error,) = await run_peer(
        f"""
admin.create_topic("t")
producer = fluvio.topic_producer("t")
producer.send_string("unchanged")
producer.flush()
config = ConsumerConfig()
config.smartmodule(path={str(module)!r})
stream = fluvio.partition_consumer("t", 0).stream_with_config(Offset.beginning(), config)
answer(refusal(next, stream))
"""
    )
    assert "the embedded broker does not run SmartModules yet" in error
