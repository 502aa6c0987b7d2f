"""`broker start --spu-public-address`: the address for other clients, and for its own folder."""

from __future__ import annotations

from pathlib import Path

from streamkit import Client, sync
from tests.cli.processes import ready_line, run, started

ELSEWHERE = "proxy.test:9"


async def test_other_clients_get_the_public_address(
    tmp_path: Path, anyio_backend_name: str
) -> None:
    options = ("--sc-port", "0", "--spu-port", "0", "--spu-public-address", ELSEWHERE)
    with started(tmp_path, "broker", "start", *options) as broker:
        sc, spu = ready_line(broker)
        async with Client.connect(sc) as client:
            await client.admin.create_topic("t")
            assert await client.cluster.leader("t", 0) == ELSEWHERE
        async with Client(sc, use_local_address=True) as client:
            assert await client.cluster.leader("t", 0) == spu


def test_commands_in_the_folder_of_the_broker_use_its_local_address(tmp_path: Path) -> None:
    options = ("--sc-port", "0", "--spu-port", "0", "--spu-public-address", ELSEWHERE)
    with started(tmp_path, "broker", "start", *options) as broker:
        ready_line(broker)
        assert run(tmp_path, "produce", "here", given=b"x\n").code == 0
        assert run(tmp_path, "consume", "here", "-B", "-d").lines == [b"x"]


def test_a_profile_can_select_the_local_address(tmp_path: Path) -> None:
    options = ("--sc-port", "0", "--spu-port", "0", "--spu-public-address", ELSEWHERE)
    with started(tmp_path, "broker", "start", *options) as broker:
        sc, _ = ready_line(broker)
        with sync.Client.connect(sc) as client:
            client.admin.create_topic("t")
        (tmp_path / "config").write_text(
            'current_profile = "p"\n[profile.p]\ncluster = "c"\n[cluster.c]\n'
            f'endpoint = "{sc}"\nuse_spu_local_address = true\n'
        )
        variables = {"FLV_PROFILE_PATH": str(tmp_path / "config")}
        assert run(tmp_path, "produce", "t", given=b"x\n", variables=variables).code == 0
