"""`Webhook`: a request is answered after the commit, and every limit has its status."""

from __future__ import annotations

import asyncio
import gzip
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from streamkit import Secret
from streamkit.connectors.http import Webhook
from streamkit.connectors.http.webhook import WebhookReader
from streamkit.errors import ConfigError, UsageError
from tests.http_connectors.scripted import Run


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[WebhookReader, httpx2.AsyncClient]]:
    reader = Webhook("/orders", port=0, **options).reader(Run(until_end=False).env)
    facts = await reader.open({})
    assert not facts.is_replayable
    url = facts.description.split()[1].removesuffix("/orders,")
    try:
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            yield reader, client
    finally:
        await reader.close()


async def commit(reader: WebhookReader) -> list[bytes]:
    """Process the next chunk and commit it."""
    chunk = await reader.next()
    assert chunk is not None
    await reader.committed(dict([reader.position_after(chunk)]))
    return list(chunk.values)


async def test_a_request_is_answered_after_the_commit() -> None:
    async with opened() as (reader, client):
        post = asyncio.create_task(client.post("/orders", content=b'{"id":1}'))
        chunk = await reader.next()
        assert chunk is not None
        assert list(chunk.values) == [b'{"id":1}']
        assert reader.position_after(chunk) == ("0", "1")
        await asyncio.sleep(0)
        assert not post.done()
        await reader.committed({"0": "1"})
        assert (await post).status_code == 200


async def test_a_commit_of_one_of_two_records_is_not_enough() -> None:
    async with opened(body="array", commit_timeout="300ms") as (reader, client):
        post = asyncio.create_task(client.post("/orders", content=b"[1, 2]"))
        chunk = await reader.next()
        assert chunk is not None
        assert list(chunk.values) == [b"1", b"2"]
        await reader.committed({"0": "1"})
        answer = await post
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("body", "content", "rows"),
    [
        ("one", b"any bytes", [b"any bytes"]),
        ("array", b'[{"a": 1}, [2], "x"]', [b'{"a": 1}', b"[2]", b'"x"']),
        ("lines", b'{"a":1}\r\n\n{"a":2}', [b'{"a":1}', b'{"a":2}']),
    ],
)
async def test_a_body_has_one_or_many_records(body: Any, content: bytes, rows: list[bytes]) -> None:
    async with opened(body=body) as (reader, client):
        post = asyncio.create_task(client.post("/orders", content=content))
        assert await commit(reader) == rows
        assert (await post).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status"),
    [
        ("POST", "/other", b"1", {}, 404),
        ("GET", "/orders", b"", {}, 405),
        ("HEAD", "/orders", b"", {}, 405),
        ("POST", "/orders", b"{", {}, 400),
        ("POST", "/orders", b"[1", {}, 400),
        ("POST", "/orders", b"x" * 101, {}, 413),
        ("POST", "/orders", b"x", {"Content-Encoding": "br"}, 415),
        ("POST", "/orders", b"x", {"Content-Encoding": "gzip"}, 400),
        ("POST", "/orders", gzip.compress(b"[1]", mtime=0)[:-1], {"Content-Encoding": "gzip"}, 400),
        ("POST", "/orders", gzip.compress(b" " * 101, mtime=0), {"Content-Encoding": "gzip"}, 413),
        ("POST", "/orders", b"[1,2,3,4]", {}, 413),
        ("POST", "/orders", b"1", {"Authorization": "Bearer wrong"}, 401),
        ("POST", "/orders", b"1", {"Authorization": ""}, 401),
    ],
)
async def test_a_request_that_is_not_accepted_has_a_status(
    method: str, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    token = Secret("t0ken")
    async with opened(body="array", max_body_bytes=100, max_records=3, token=token) as (_, client):
        fields = {"Authorization": "Bearer t0ken", **headers}
        answer = await client.request(method, path, content=content, headers=fields)
    assert answer.status_code == status
    assert "t0ken" not in answer.text + str(answer.headers)


@pytest.mark.parametrize("encoding", ["gzip", "X-Gzip"])
async def test_a_body_may_be_compressed(encoding: str) -> None:
    content = gzip.compress(b"[1,") + gzip.compress(b"2]")
    async with opened(body="array") as (reader, client):
        headers = {"Content-Encoding": encoding}
        post = asyncio.create_task(client.post("/orders", content=content, headers=headers))
        assert await commit(reader) == [b"1", b"2"]
        assert (await post).status_code == 200


async def test_a_small_body_does_not_become_a_large_one() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    async with opened(max_body_bytes=1_000_000) as (_, client):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = await client.post("/orders", content=bomb, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 413
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


async def test_a_body_in_chunks_is_bounded() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1_000

    async with opened(max_body_bytes=5_000) as (_, client):
        assert (await client.post("/orders", content=parts())).status_code == 413


async def test_the_backlog_is_bounded() -> None:
    async with opened(max_records=2) as (reader, client):
        posts = [asyncio.create_task(client.post("/orders", content=b"x")) for _ in range(2)]
        found = 0
        while found < 2:
            chunk = await reader.next()
            assert chunk is not None
            found += len(chunk)
        assert (await client.post("/orders", content=b"x")).status_code == 429
        await reader.committed({"0": "2"})
        assert [(await post).status_code for post in posts] == [200, 200]
        post = asyncio.create_task(client.post("/orders", content=b"x"))
        await commit(reader)
        assert (await post).status_code == 200


async def test_a_stop_answers_requests_that_are_not_read() -> None:
    async with opened() as (reader, client):
        first = asyncio.create_task(client.post("/orders", content=b"1"))
        chunk = await reader.next()
        second = asyncio.create_task(client.post("/orders", content=b"2"))
        while reader.lag() == 0:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0)
        assert chunk is not None
        assert reader.stop() is False
        assert (await second).status_code == 503
        await reader.committed(dict([reader.position_after(chunk)]))
        assert (await first).status_code == 200
        with pytest.raises(httpx2.ConnectError):
            await client.post("/orders", content=b"3")


async def test_closing_answers_requests_that_are_not_committed() -> None:
    async with opened() as (reader, client):
        post = asyncio.create_task(client.post("/orders", content=b"1"))
        await reader.next()
        await reader.close()
        assert (await post).status_code == 503


async def test_a_cancelled_read_loses_no_record() -> None:
    async with opened() as (reader, client):
        read = asyncio.create_task(reader.next())
        await asyncio.sleep(0)
        read.cancel()
        post = asyncio.create_task(client.post("/orders", content=b"1"))
        assert await commit(reader) == [b"1"]
        assert (await post).status_code == 200


async def raw(client: httpx2.AsyncClient, *parts: bytes) -> bytes:
    """Send bytes, and return what comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    try:
        for part in parts:
            writer.write(part)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_slow_client_is_answered_408() -> None:
    async with opened(request_timeout="100ms") as (_, client):
        head = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"
        assert (await raw(client, head)).startswith(b"HTTP/1.1 408 ")
        assert (await raw(client, head[:20])).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    ],
)
async def test_an_invalid_request_is_refused(head: bytes) -> None:
    async with opened() as (reader, client):
        assert (await raw(client, head))[:10] == b"HTTP/1.1 4"
        assert reader.lag() == 0


async def test_a_client_that_leaves_within_its_request_adds_no_record() -> None:
    async with opened() as (reader, client):
        _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        post = asyncio.create_task(client.post("/orders", content=b"1"))
        assert await commit(reader) == [b"1"]
        await post


async def test_a_client_may_wait_for_100_continue() -> None:
    async with opened() as (reader, client):
        head = b"POST /orders HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"
        sent, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(head + b"Connection: close\r\n\r\n")
        assert (await sent.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"1")
        assert await commit(reader) == [b"1"]
        assert (await sent.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()


async def test_more_connections_than_allowed_are_refused() -> None:
    async with opened(max_connections=1) as (reader, client):
        post = asyncio.create_task(client.post("/orders", content=b"1"))
        chunk = await reader.next()
        assert chunk is not None
        assert (await raw(client, b"")).startswith(b"HTTP/1.1 503 ")
        await reader.committed(dict([reader.position_after(chunk)]))
        assert (await post).status_code == 200


async def test_requests_of_one_connection_are_served_one_after_another() -> None:
    async with opened() as (reader, client):
        one = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
        two = one.replace(b"Host: x", b"Host: x\r\nConnection: close")
        both = asyncio.create_task(raw(client, one, two))
        assert await commit(reader) + await commit(reader) == [b"1", b"1"]
        assert (await both).count(b"HTTP/1.1 200 ") == 2


async def test_a_port_that_is_used_is_reported() -> None:
    async with opened() as (_, client):
        assert client.base_url.port is not None
        other = Webhook("/orders", port=client.base_url.port).reader(Run(until_end=False).env)
        with pytest.raises(ConfigError, match="cannot listen on"):
            await other.open({})
        await other.close()


async def test_a_run_until_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no end"):
        await Webhook("/orders", port=0).reader(Run().env).open({})


@pytest.mark.parametrize(
    "options",
    [
        {"path": "orders"},
        {"port": -1},
        {"port": "80"},
        {"body": "xml"},
        {"token": "plain"},
        {"token": Secret("")},
        {"max_records": 0},
        {"commit_timeout": "never"},
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Webhook(**{"path": "/orders", "port": 0, **options})
