"""TLS of the connectors: whom they trust, and which certificate they show."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from streamkit.connectors import Chunk, WriteFailed
from streamkit.connectors.http import HttpPoll, HttpSink, ServerSentEvents
from streamkit.errors import ConfigError, ConnectFailed, StreamKitError, UsageError
from tests.http_connectors.scripted import Asked, Run, Scripted, read_all, reply, scripted

EVENTS = {"Content-Type": "text/event-stream", "Connection": "close"}
ROWS = Chunk([b"1"], [None], [0], range(1), "orders", 0)


def respond(asked: Asked) -> bytes:
    if asked.headers.get("accept") == "text/event-stream":
        return reply(b"data: 1\n\n", headers=EVENTS)
    return reply([1])


async def poll(url: str, tls: Any, run: Run) -> None:
    assert await read_all(HttpPoll(url, tls=tls, attempts=2).reader(run.env)) == [b"1"]


async def events(url: str, tls: Any, run: Run) -> None:
    source = ServerSentEvents(url, tls=tls, attempts=2)
    assert await read_all(source.reader(run.env)) == [b"1"]


async def post(url: str, tls: Any, run: Run) -> None:
    writer = HttpSink(url, tls=tls, attempts=2).writer(run.env)
    await writer.open({})
    try:
        assert await writer.write(ROWS, lambda: False) == 1
    except WriteFailed as error:
        raise error.__cause__ or error from None
    finally:
        await writer.close()


USES = [poll, events, post]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@asynccontextmanager
async def server(
    ca: trustme.CA, name: str = "127.0.0.1", *, clients_of: trustme.CA | None = None
) -> AsyncIterator[Scripted]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients_of.configure_trust(context)
    async with scripted(respond, context) as found:
        yield found


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("is_function", [False, True])
async def test_a_given_ca_is_trusted(use: Any, is_function: bool, ca: trustme.CA) -> None:
    context = trusting(ca)
    async with server(ca) as found:
        await use(found.url, (lambda: context) if is_function else context, Run())
    assert len(found.asked) == 1


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("trusts", ["the system", "another CA"])
async def test_another_authority_ends_the_job_before_anything_is_sent(
    use: Any, trusts: str, ca: trustme.CA
) -> None:
    tls = None if trusts == "the system" else trusting(trustme.CA())
    run = Run()
    async with server(ca) as found:
        with pytest.raises(ConnectFailed, match="its certificate is not trusted: ") as error:
            await use(found.url, tls, run)
    assert "cafile" in (error.value.hint or "")
    assert not error.value.retryable
    assert (found.asked, run.clock.slept) == ([], [])


@pytest.mark.parametrize("use", USES)
async def test_a_certificate_for_another_host_is_refused(use: Any, ca: trustme.CA) -> None:
    async with server(ca, "example.com") as found:
        with pytest.raises(ConnectFailed, match="IP address mismatch") as error:
            await use(found.url, trusting(ca), Run())
    assert "a host that the certificate names" in (error.value.hint or "")
    assert found.asked == []


@pytest.mark.parametrize("use", USES)
async def test_a_client_certificate_is_shown(use: Any, ca: trustme.CA) -> None:
    clients = trustme.CA()
    with_certificate = trusting(ca)
    clients.issue_cert("job@example.com").configure_cert(with_certificate)
    async with server(ca, clients_of=clients) as found:
        await use(found.url, with_certificate, Run())
        with pytest.raises(StreamKitError, match="after 2 attempts"):
            await use(found.url, trusting(ca), Run())
    assert len(found.asked) == 1


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("given", [lambda: ssl.create_default_context(cafile="no"), lambda: "no"])
async def test_a_function_that_fails_is_a_config_error(use: Any, given: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match=r"tls= of .*https://example.com"):
        await use("https://example.com", given, Run())


@pytest.mark.parametrize("kind", [HttpPoll, HttpSink, ServerSentEvents])
@pytest.mark.parametrize(
    ("url", "tls", "why"),
    [
        ("https://example.com", "ca.pem", "must be an ssl.SSLContext"),
        ("https://example.com", True, "must be an ssl.SSLContext"),
        ("http://example.com", ssl.create_default_context(), "no effect"),
    ],
)
def test_an_invalid_option_is_refused(kind: Any, url: str, tls: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        kind(url, tls=tls)
