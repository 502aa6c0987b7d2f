"""Connecting: to a broker, to other servers, and with Fluvio's profile file."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio
import pytest

from streamkit import Client
from streamkit.client import Tls
from streamkit.errors import ConfigError, ConnectFailed, UnsupportedServer, UsageError
from streamkit.protocol.apis import SC_APIS
from streamkit.protocol.connection import ServerConnection, encode_response
from streamkit.protocol.control_plane import ApiRange, ApiVersionsResponse
from streamkit.protocol.error_codes import NO_ERROR
from tests.broker_process import BrokerProcess

SOON_S: Final = 60.0
HTTP: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

PendingResponse = Callable[[bytes], bytes]


@contextmanager
def listening(answer: PendingResponse | None) -> Iterator[str]:
    """Listen on a port; answer the first bytes of each connection, or do not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    break
                held.append(connection)
                if answer is not None:
                    connection.sendall(answer(connection.recv(65_536)))
            for each in held:
                each.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def answering_as(platform_version: str, lowest: int = 0, highest: int = 99) -> PendingResponse:
    """Answer like a server of that version."""

    def answer(hello: bytes) -> bytes:
        (request,) = ServerConnection(SC_APIS).receive(hello)
        ranges = tuple(ApiRange(key, lowest, highest) for key in SC_APIS)
        return bytes(
            encode_response(request, ApiVersionsResponse(NO_ERROR, ranges, platform_version))
        )

    return answer


async def connect(address: str, timeout_s: float = SOON_S) -> None:
    with anyio.fail_after(SOON_S):
        async with Client.connect(address, connect_timeout=timeout_s):
            pass


@pytest.mark.parametrize("words", [HTTP, b"\x00\x00\x00\x00", b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_a_port_with_another_protocol_is_reported(
    words: bytes, anyio_backend_name: str
) -> None:
    with (
        listening(lambda _: words) as address,
        pytest.raises(UnsupportedServer, match="does not speak the Fluvio protocol") as caught,
    ):
        await connect(address)
    assert address in str(caught.value)
    assert "check the port" in caught.value.hint


async def test_connecting_to_a_silent_port_times_out(anyio_backend_name: str) -> None:
    with (
        listening(None) as address,
        pytest.raises(ConnectFailed, match="is it a Fluvio server") as caught,
    ):
        await connect(address, 0.2)
    assert caught.value.address == address


async def test_a_port_that_closes_the_connection_is_an_immediate_error(
    anyio_backend_name: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close(), daemon=True)
        thread.start()
        with pytest.raises(ConnectFailed):
            await connect(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


async def test_a_port_without_a_listener_is_refused_with_a_hint(anyio_backend_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ConnectFailed, match=f"cannot connect to {address}: .*refused") as caught:
        await connect(address)
    assert "streamkit broker start" in caught.value.hint
    assert not caught.value.sent


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:", ":9003", "127.0.0.1:port", ""])
async def test_an_address_without_host_and_port_is_refused(
    address: str, anyio_backend_name: str
) -> None:
    with pytest.raises(ConnectFailed, match="host:port"):
        await connect(address)


@pytest.mark.parametrize("version", ["0.8.9", "0.9.0-alpha.1"])
async def test_an_old_cluster_is_refused_with_its_version(
    version: str, anyio_backend_name: str
) -> None:
    with (
        listening(answering_as(version)) as address,
        pytest.raises(UnsupportedServer, match=version),
    ):
        await connect(address)


@pytest.mark.parametrize("version", ["", "new", "1.2"])
async def test_an_invalid_version_is_refused(version: str, anyio_backend_name: str) -> None:
    with (
        listening(answering_as(version)) as address,
        pytest.raises(UnsupportedServer, match="version"),
    ):
        await connect(address)


async def test_a_server_without_the_required_apis_is_refused(anyio_backend_name: str) -> None:
    with listening(answering_as("9.9.9", 90, 99)) as address, pytest.raises(UnsupportedServer):
        await connect(address)


async def test_connecting_to_the_port_of_an_spu_is_reported(cluster: BrokerProcess) -> None:
    with pytest.raises(UnsupportedServer, match="does not serve Watch") as caught:
        await connect(f"127.0.0.1:{cluster.spu_port}")
    assert "SPU" in caught.value.hint


async def test_a_server_that_never_sends_its_topics_is_an_error(anyio_backend_name: str) -> None:
    """It closes the connection after the greeting, which must not count as an empty cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet_and_leave() -> None:
            connection, _ = server.accept()
            connection.sendall(answering_as("0.18.1")(connection.recv(65_536)))
            connection.recv(65_536)
            connection.close()

        thread = threading.Thread(target=greet_and_leave, daemon=True)
        thread.start()
        with pytest.raises(ConnectFailed, match="did not send the list"):
            await connect(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


# --- Profiles ------------------------------------------------------------------------------


def profile(path: Path, endpoint: str) -> None:
    path.write_text(
        f"""
version = "2.0"
current_profile = "here"
[profile.here]
cluster = "c"
[profile.other]
cluster = "c"
[cluster.c]
endpoint = "{endpoint}"
"""
    )


@pytest.mark.parametrize("name", [None, "here", "other"])
async def test_a_profile_sets_the_cluster(
    cluster: BrokerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    profile(tmp_path / "profile", cluster.address)
    monkeypatch.setenv("FLV_PROFILE_PATH", str(tmp_path / "profile"))
    async with Client.connect(profile=name) as client:
        assert client.address == cluster.address
        assert await client.admin.list_topics() is not None


async def test_a_missing_address_and_profile_is_reported_with_a_hint(
    anyio_backend_name: str,
) -> None:
    with pytest.raises(ConfigError, match="no address or profile is given") as caught:
        Client.connect()
    assert "give an address" in caught.value.hint


async def test_an_address_together_with_a_profile_is_refused(anyio_backend_name: str) -> None:
    with pytest.raises(UsageError, match="not both"):
        Client.connect("127.0.0.1:9003", profile="here")


def test_a_traceback_shows_the_hint_once() -> None:
    with pytest.raises(ConfigError) as raised:
        Client.connect(tls=Tls(anonymous=True))
    shown = "".join(traceback.format_exception(raised.value))
    assert shown.count("a profile has its own") == 1
    assert "\nhint: a profile has its own" in shown


async def test_using_a_client_that_is_not_open_is_refused(cluster: BrokerProcess) -> None:
    unopened = Client.connect(cluster.address)
    with pytest.raises(UsageError, match="is not open") as raised:
        await unopened.admin.list_topics()
    assert "async with" in raised.value.hint
    with pytest.raises(UsageError, match="is not open"):
        await unopened.producer("flights").open()


async def test_using_a_closed_client_is_refused(cluster: BrokerProcess) -> None:
    async with Client.connect(cluster.address) as client:
        await client.admin.list_topics()
    for call in (client.admin.list_topics(), client.consumer("flights").open()):
        with anyio.fail_after(SOON_S), pytest.raises(UsageError, match="is closed"):
            await call
    with pytest.raises(UsageError, match="is closed"):
        async with client:
            pass
