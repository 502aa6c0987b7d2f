"""Opening a data folder, and the errors if that is not possible."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit.broker.broker import Broker, BrokerOptions, PortTaken
from streamkit.errors import ConfigError, DataFolderInUse, StateError
from tests.broker.running import batch_of, create, produce, running
from tests.broker.wire import Wire


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


async def test_a_folder_has_one_broker_at_a_time(broker: Broker, tmp_path: Path) -> None:
    second = Broker(BrokerOptions(tmp_path))
    with pytest.raises(DataFolderInUse, match="another broker uses the data folder"):
        await second.open()
    async with await Wire.open(broker.sc_address) as sc:  # the first broker still works
        assert not (await create(sc, "t")).error
    await broker.close()
    async with running(tmp_path):
        pass


async def test_a_folder_of_another_version_is_not_changed(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    mark = tmp_path / "broker" / "format"
    mark.write_bytes(b"streamkit broker 2\n")
    before = everything_in(tmp_path)
    with pytest.raises(StateError, match="streamkit broker 2") as caught:
        await Broker(BrokerOptions(tmp_path)).open()
    assert caught.value.hint.startswith("use the streamkit version")
    assert everything_in(tmp_path) == before
    mark.write_bytes(b"streamkit broker 1\n")
    async with running(tmp_path):  # the lock was released
        pass


@pytest.mark.parametrize("name", ["journal", "consumer-offsets"])
async def test_a_journal_of_another_version_is_not_changed(tmp_path: Path, name: str) -> None:
    async with running(tmp_path):
        pass
    path = tmp_path / "broker" / name
    path.write_bytes(b"something else entirely, and long enough\n")
    with pytest.raises(StateError, match="not a journal of this version"):
        await Broker(BrokerOptions(tmp_path)).open()
    assert path.read_bytes().startswith(b"something else")


@pytest.fixture
def port_in_use() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("option", ["--sc-port", "--spu-port"])
async def test_the_error_for_a_port_in_use_names_its_option(
    tmp_path: Path, port_in_use: int, option: str
) -> None:
    options = BrokerOptions(
        tmp_path,
        sc_port=port_in_use if option == "--sc-port" else 0,
        spu_port=port_in_use if option == "--spu-port" else 0,
    )
    with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port_in_use}") as caught:
        await Broker(options).open()
    assert option in caught.value.hint
    async with running(tmp_path):  # the folder was unlocked
        pass


async def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot create the data folder"):
        await Broker(BrokerOptions(tmp_path / "file" / "data")).open()


async def test_files_of_an_interrupted_create_or_delete_request_are_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        await create(sc, "t")
    logs = tmp_path / "broker" / "logs"
    kept = set(logs.iterdir())
    (logs / "gone.0123456789abcdef" / "0").mkdir(parents=True)
    (logs / "gone.0123456789abcdef" / "0" / "00000000000000000000.log").write_bytes(b"x")
    async with running(tmp_path):
        assert set(logs.iterdir()) == kept


async def test_records_and_topics_survive_many_restarts(tmp_path: Path) -> None:
    async with running(tmp_path) as broker, await Wire.open(broker.sc_address) as sc:
        await create(sc, "t")
    for number in range(5):
        async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
            assert await produce(spu, "t", batch_of(b"x")) == (0, number)


async def test_a_closed_broker_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = open_descriptors()
    for _ in range(5):
        async with running(tmp_path) as broker, await Wire.open(broker.spu_address) as spu:
            async with await Wire.open(broker.sc_address) as sc:
                await create(sc, "t")
            await produce(spu, "t", batch_of(b"x"))
    # The sockets of the last clients of the test may still be closing.
    assert open_descriptors() <= before + 2
