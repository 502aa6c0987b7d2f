"""TLS to every server of a cluster: trust, server names, and the errors."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import pytest
import trustme
from anyio.abc import SocketAttribute

from streamkit import Client, sync
from streamkit.client import Tls
from streamkit.client.profile.profile_file import ProfileFile
from streamkit.client.tls import ServerTls
from streamkit.errors import ConfigError, ConnectFailed, UsageError
from tests.broker_process import BrokerProcess
from tests.cli.processes import ready_line, started
from tests.tls_proxy import TlsProxy

DOMAIN: Final = "fluvio.test"
SPU_NAME: Final = f"custom-spu-5001.{DOMAIN}"
SOON_S: Final = 60.0
_numbers = count()


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, and its certificate as text and as a file."""

    ca: trustme.CA
    file: Path

    @property
    def pem(self) -> str:
        return self.ca.cert_pem.bytes().decode()


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate and its key, as text and as files."""

    cert: str
    key: str
    cert_file: Path
    key_file: Path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA(organization_name="streamkit tests")
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> trustme.LeafCert:
    """The certificate of the whole cluster, as Fluvio requires it."""
    return authority.ca.issue_cert(DOMAIN, f"*.{DOMAIN}")


@pytest.fixture(scope="session")
def own_certificate(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> ClientCertificate:
    return client_certificate(authority.ca, tmp_path_factory.mktemp("client"))


def client_certificate(ca: trustme.CA, folder: Path) -> ClientCertificate:
    leaf = ca.issue_cert("reader@fluvio.test", common_name="reader")
    cert = "".join(each.bytes().decode() for each in leaf.cert_chain_pems)
    key = leaf.private_key_pem.bytes().decode()
    (folder / "client.pem").write_text(cert)
    (folder / "client.key").write_text(key)
    return ClientCertificate(cert, key, folder / "client.pem", folder / "client.key")


@contextmanager
def secured_broker(folder: Path, proxy: TlsProxy) -> Iterator[TlsProxy]:
    """Start a broker that advertises the address of the proxy to its clients."""
    options = ("--sc-port", "0", "--spu-port", "0", "--spu-public-address", proxy.spu_address)
    with started(folder, "broker", "start", *options) as broker:
        sc, spu = (int(address.rpartition(":")[2]) for address in ready_line(broker))
        proxy.forward_to(sc, spu)
        yield proxy
        broker.terminate()
        broker.wait(SOON_S)


@pytest.fixture(scope="module")
def cluster(
    certificate: trustme.LeafCert, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsProxy]:
    with (
        TlsProxy(certificate) as proxy,
        secured_broker(tmp_path_factory.mktemp("tls"), proxy) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def mutual_cluster(
    authority: Authority,
    certificate: trustme.LeafCert,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TlsProxy]:
    with (
        TlsProxy(certificate, clients_of=authority.ca) as proxy,
        secured_broker(tmp_path_factory.mktemp("mutual"), proxy) as cluster,
    ):
        yield cluster


async def round_trip(address: str, tls: Tls) -> None:
    """Create a topic, write to it, and read it back."""
    topic = f"secured-{next(_numbers)}"
    with anyio.fail_after(SOON_S):
        async with Client.connect(address, tls=tls) as client:
            await client.admin.create_topic(topic, 2)
            async with client.producer(topic, linger=0) as producer:
                await producer.send_many([b"a", b"b" * 100_000, b"c"], [b"1", b"2", b"3"])
            consumer = client.consumer(topic, until_end=True)
            assert {record.key for record in [r async for r in consumer]} == {b"1", b"2", b"3"}


async def refusal(address: str, tls: Tls | None, timeout_s: float = SOON_S) -> ConnectFailed:
    """Return the error of a failed connection."""
    with pytest.raises(ConnectFailed) as caught, anyio.fail_after(SOON_S):
        async with Client.connect(address, tls=tls, connect_timeout=timeout_s):
            pass
    assert str(caught.value).startswith(f"cannot connect to {address}: ")
    assert caught.value.address == address
    return caught.value


# --- Names and trust -----------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [True, False])
async def test_with_a_domain_each_server_is_verified_by_its_name_in_the_domain(
    cluster: TlsProxy, authority: Authority, as_text: bool, anyio_backend_name: str
) -> None:
    ca_cert = authority.pem if as_text else authority.file
    cluster.names["sc"].clear()
    cluster.names["spu"].clear()
    await round_trip(cluster.sc_address, Tls(ca_cert=ca_cert, domain=DOMAIN))
    assert set(cluster.names["sc"]) == {DOMAIN}
    assert set(cluster.names["spu"]) == {SPU_NAME}


async def test_without_a_domain_each_server_is_verified_by_its_host(
    authority: Authority, tmp_path: Path, anyio_backend_name: str
) -> None:
    certificate = authority.ca.issue_cert("localhost", "127.0.0.1")
    with (
        TlsProxy(certificate) as proxy,
        secured_broker(tmp_path, proxy) as cluster,
    ):
        named = cluster.sc_address.replace("127.0.0.1", "localhost")
        await round_trip(named, Tls(ca_cert=authority.pem))
        assert set(cluster.names["sc"]) == {"localhost"}
        # The SPU's host is an IP address: it is checked, but TLS cannot send it as a server name.
        assert set(cluster.names["spu"]) == {None}


async def test_anonymous_tls_accepts_any_certificate(
    cluster: TlsProxy, anyio_backend_name: str
) -> None:
    await round_trip(cluster.sc_address, Tls(anonymous=True))


async def test_anonymous_tls_can_still_send_a_server_name(
    cluster: TlsProxy, anyio_backend_name: str
) -> None:
    cluster.names["spu"].clear()
    await round_trip(cluster.sc_address, Tls(anonymous=True, domain="other.test"))
    assert set(cluster.names["spu"]) == {"custom-spu-5001.other.test"}


@pytest.mark.parametrize("as_text", [True, False])
async def test_the_client_sends_its_certificate_to_every_server(
    mutual_cluster: TlsProxy,
    authority: Authority,
    own_certificate: ClientCertificate,
    as_text: bool,
    anyio_backend_name: str,
) -> None:
    mutual_cluster.clients["sc"].clear()
    mutual_cluster.clients["spu"].clear()
    tls = Tls(
        ca_cert=authority.file,
        domain=DOMAIN,
        client_cert=own_certificate.cert if as_text else own_certificate.cert_file,
        client_key=own_certificate.key if as_text else str(own_certificate.key_file),
    )
    await round_trip(mutual_cluster.sc_address, tls)
    assert set(mutual_cluster.clients["sc"]) == {"reader"}
    assert set(mutual_cluster.clients["spu"]) == {"reader"}


async def test_the_system_authorities_are_the_default(
    cluster: TlsProxy,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    anyio_backend_name: str,
) -> None:
    error = await refusal(cluster.sc_address, Tls(domain=DOMAIN))
    assert "its certificate is not trusted" in str(error)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    await round_trip(cluster.sc_address, Tls(domain=DOMAIN))


@pytest.mark.parametrize("name", [None, "there"])
async def test_a_profile_has_all_settings_for_a_connection(
    mutual_cluster: TlsProxy,
    authority: Authority,
    own_certificate: ClientCertificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
    anyio_backend_name: str,
) -> None:
    file = ProfileFile(tmp_path / "config")
    tls = Tls(
        ca_cert=authority.pem,
        domain=DOMAIN,
        client_cert=own_certificate.cert,
        client_key=own_certificate.key,
    )
    file.add("there", mutual_cluster.sc_address, tls=tls)
    monkeypatch.setenv("FLV_PROFILE_PATH", str(file.path))
    async with Client.connect(profile=name) as client:
        assert client.address == mutual_cluster.sc_address
        assert await client.admin.list_topics() is not None


def test_the_sync_client_accepts_the_same_tls_options(
    cluster: TlsProxy, authority: Authority
) -> None:
    tls = Tls(ca_cert=authority.pem, domain=DOMAIN)
    with sync.Client.connect(cluster.sc_address, tls=tls) as client:
        client.admin.create_topic("plain-calls")
        with client.producer("plain-calls") as producer:
            assert producer.send(b"x").wait().offset == 0


async def test_spus_that_share_an_address_are_distinguished(
    cluster: TlsProxy, authority: Authority, anyio_backend_name: str
) -> None:
    async with Client.connect(
        cluster.sc_address, tls=Tls(ca_cert=authority.pem, domain=DOMAIN)
    ) as client:
        await client.admin.create_topic(f"secured-{next(_numbers)}")
        address = cluster.spu_address
        cluster.names["spu"].clear()
        first = await client.cluster.spu(f"{SPU_NAME}@{address}")
        other = await client.cluster.spu(f"custom-spu-5002.{DOMAIN}@{address}")
        assert first is not other
        assert first is await client.cluster.spu(f"{SPU_NAME}@{address}")
        assert cluster.names["spu"] == [SPU_NAME, f"custom-spu-5002.{DOMAIN}"]


# --- Distrust ------------------------------------------------------------------------------


async def test_an_unknown_authority_is_reported(
    certificate: trustme.LeafCert, anyio_backend_name: str
) -> None:
    other = trustme.CA().cert_pem.bytes().decode()
    with TlsProxy(certificate) as proxy:
        error = await refusal(proxy.sc_address, Tls(ca_cert=other, domain=DOMAIN))
    assert "its certificate is not trusted: unable to get local issuer" in str(error)
    assert "--ca-cert" in error.hint
    assert not error.retryable


async def test_a_wrong_name_is_reported(
    certificate: trustme.LeafCert, authority: Authority, anyio_backend_name: str
) -> None:
    with TlsProxy(certificate) as proxy:
        by_name = await refusal(proxy.sc_address, Tls(ca_cert=authority.pem, domain="other.test"))
        by_host = await refusal(proxy.sc_address, Tls(ca_cert=authority.pem))
    assert "its certificate is not for 'other.test'" in str(by_name)
    assert "its certificate is not for '127.0.0.1'" in str(by_host)
    assert "--domain" in by_name.hint
    assert not by_name.retryable


async def test_a_send_fails_if_the_name_of_the_spu_is_not_in_the_certificate(
    authority: Authority, tmp_path: Path, anyio_backend_name: str
) -> None:
    certificate = authority.ca.issue_cert(DOMAIN)
    with (
        TlsProxy(certificate) as proxy,
        secured_broker(tmp_path, proxy) as cluster,
        anyio.fail_after(SOON_S),
    ):
        tls = Tls(ca_cert=authority.pem, domain=DOMAIN)
        async with Client.connect(cluster.sc_address, tls=tls) as client:
            await client.admin.create_topic("t")
            with pytest.raises(ConnectFailed, match=f"not for '{SPU_NAME}'") as caught:
                async with client.producer("t") as producer:
                    await (await producer.send(b"x"))
            assert "the name of an SPU is <its name>.<domain>" in caught.value.hint
            consumer = client.consumer("t", until_end=True)
            with pytest.raises(ConnectFailed, match=f"not for '{SPU_NAME}'"):
                [record async for record in consumer]


async def test_an_expired_certificate_is_reported(
    authority: Authority, anyio_backend_name: str
) -> None:
    past = authority.ca.issue_cert(DOMAIN, not_after=datetime(2020, 1, 1, tzinfo=UTC))
    with TlsProxy(past) as proxy:
        error = await refusal(proxy.sc_address, Tls(ca_cert=authority.pem, domain=DOMAIN))
    assert "its certificate is not valid now: certificate has expired" in str(error)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_requires_a_client_certificate_is_reported(
    certificate: trustme.LeafCert,
    authority: Authority,
    newest: ssl.TLSVersion,
    anyio_backend_name: str,
) -> None:
    with TlsProxy(certificate, clients_of=authority.ca, newest=newest) as proxy:
        error = await refusal(proxy.sc_address, Tls(ca_cert=authority.pem, domain=DOMAIN))
    assert "client certificate" in f"{error} {error.hint}"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_rejected_client_certificate_is_reported(
    certificate: trustme.LeafCert,
    authority: Authority,
    tmp_path: Path,
    newest: ssl.TLSVersion,
    anyio_backend_name: str,
) -> None:
    stranger = client_certificate(trustme.CA(), tmp_path)
    tls = Tls(
        ca_cert=authority.pem, domain=DOMAIN, client_cert=stranger.cert, client_key=stranger.key
    )
    with TlsProxy(certificate, clients_of=authority.ca, newest=newest) as proxy:
        error = await refusal(proxy.sc_address, tls)
    assert "client certificate" in f"{error} {error.hint}"


# --- One side without TLS --------------------------------------------------------------------


@contextmanager
def answering(words: bytes | None) -> Iterator[str]:
    """Accept one connection, read once, and answer with bytes, close it, or do not answer."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            connection, _ = server.accept()
            stack.callback(connection.close)
            connection.recv(65_536)
            if words:
                connection.sendall(words)
            if words is not None:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        stack.callback(thread.join)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("words", "reason", "hint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not use TLS", "connect without TLS"),
        (b"\x00\x00\x00\x06\x00\x00\x00\x01\x00\x23", "does not use TLS", "connect without TLS"),
        (b"", "closed the connection during the TLS handshake", "connect without TLS"),
        (None, "no response within 0.3 s to the TLS handshake: does it use TLS?", ""),
    ],
)
async def test_a_server_without_tls_is_recognized(
    words: bytes | None, reason: str, hint: str, anyio_backend_name: str
) -> None:
    with answering(words) as address:
        error = await refusal(address, Tls(anonymous=True), 0.3 if words is None else SOON_S)
    assert reason in str(error)
    assert hint in error.hint


async def test_a_broker_without_tls_closes_a_tls_connection(
    cluster: TlsProxy, tmp_path: Path, anyio_backend_name: str
) -> None:
    with started(tmp_path, "broker", "start", "--sc-port", "0", "--spu-port", "0") as broker:
        error = await refusal(ready_line(broker)[0], Tls(anonymous=True))
    assert "connect without TLS" in error.hint


async def test_a_server_with_tls_is_recognized_by_a_client_without_it(
    anyio_backend_name: str,
) -> None:
    with answering(bytes.fromhex("15030300020246")) as address:
        error = await refusal(address, None)
    assert "it accepts only TLS" in str(error)
    assert "--tls" in error.hint
    assert not error.retryable


async def test_a_server_that_closes_without_a_response_may_require_tls(
    certificate: trustme.LeafCert, anyio_backend_name: str
) -> None:
    """OpenSSL sends no response if the first bytes are not TLS."""
    with TlsProxy(certificate) as proxy:
        error = await refusal(proxy.sc_address, None)
    assert "closed the connection without a response: does it require TLS" in str(error)
    assert "--tls" in error.hint
    assert error.retryable


# --- Wrong options -------------------------------------------------------------------------


def test_files_are_read_when_the_client_is_created(
    tmp_path: Path, own_certificate: ClientCertificate
) -> None:
    missing = tmp_path / "none.pem"
    with pytest.raises(ConfigError, match=f"cannot read the CA certificate {missing}: No such"):
        Client.connect("127.0.0.1:1", tls=Tls(ca_cert=missing))
    with pytest.raises(ConfigError, match=f"cannot read the client key {tmp_path}: Is a dir"):
        Client.connect(
            "127.0.0.1:1", tls=Tls(client_cert=own_certificate.cert_file, client_key=str(tmp_path))
        )


def test_an_invalid_or_mismatched_certificate_or_key_is_refused(
    tmp_path: Path, authority: Authority, own_certificate: ClientCertificate
) -> None:
    (tmp_path / "words").write_text("words")
    with pytest.raises(ConfigError, match=r"CA certificate .*words contains no CERTIFICATE in PEM"):
        Tls(ca_cert=tmp_path / "words").context()
    with pytest.raises(ConfigError, match=r"client key .* contains no PRIVATE KEY"):
        Tls(client_cert=own_certificate.cert, client_key=own_certificate.cert_file).context()
    with pytest.raises(ConfigError, match=r"CA certificate \(given as text\) is damaged"):
        Tls(ca_cert=authority.pem.replace("M", "Q")).context()
    with pytest.raises(ConfigError, match="do not match"):
        Tls(client_cert=authority.pem, client_key=own_certificate.key).context()
    with pytest.raises(ConfigError, match="cannot be used"):
        Tls(
            client_cert=own_certificate.cert, client_key=own_certificate.key.replace("M", "Q")
        ).context()


def test_an_encrypted_key_is_refused_without_a_password_prompt(
    own_certificate: ClientCertificate,
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(own_certificate.key.encode(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ConfigError, match="the client key is encrypted") as caught:
        Tls(client_cert=own_certificate.cert, client_key=encrypted.decode()).context()
    assert "openssl pkey" in caught.value.hint


def test_comments_in_any_language_are_allowed_between_certificates(authority: Authority) -> None:
    text = f"# Zertifikat für Übung\n{authority.pem}"
    assert Tls(ca_cert=text).context().get_ca_certs()


def test_options_that_would_have_no_effect_are_refused(
    authority: Authority, own_certificate: ClientCertificate
) -> None:
    with pytest.raises(UsageError, match="does not check certificates"):
        Tls(anonymous=True, ca_cert=authority.pem)
    with pytest.raises(UsageError, match="client_cert is given without client_key"):
        Tls(client_cert=own_certificate.cert)
    with pytest.raises(UsageError, match="client_key is given without client_cert"):
        Tls(client_key=own_certificate.key)
    for domain in ("", "a b", ".test", "host:9003", "a..b"):
        with pytest.raises(UsageError, match="is not a valid host name"):
            Tls(domain=domain)
    with pytest.raises(UsageError, match="tls is given without an address"):
        Client.connect(tls=Tls())
    with pytest.raises(UsageError, match="tls is given without an address"):
        Client.connect(profile="p", tls=Tls())


def test_a_printed_tls_object_does_not_show_the_key(own_certificate: ClientCertificate) -> None:
    assert own_certificate.key not in repr(
        Tls(client_cert=own_certificate.cert, client_key=own_certificate.key)
    )


# --- The socket ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_secured", [True, False])
async def test_the_socket_options_are_the_same_with_and_without_tls(
    cluster: TlsProxy,
    own_broker: BrokerProcess,
    monkeypatch: pytest.MonkeyPatch,
    is_secured: bool,
    anyio_backend_name: str,
) -> None:
    streams: list[anyio.abc.SocketStream] = []
    connect = anyio.connect_tcp

    async def recording_connect(host: str, port: int) -> anyio.abc.SocketStream:
        streams.append(await connect(host, port))
        return streams[-1]

    monkeypatch.setattr(anyio, "connect_tcp", recording_connect)
    address = cluster.sc_address if is_secured else own_broker.address
    tls = Tls(anonymous=True) if is_secured else None
    async with Client.connect(address, tls=tls):
        (stream,) = streams
        raw = stream.extra(SocketAttribute.raw_socket)
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


async def test_a_tls_stream_gives_access_to_its_socket(
    cluster: TlsProxy, anyio_backend_name: str
) -> None:
    host, _, port = cluster.sc_address.rpartition(":")
    tls = ServerTls(Tls(anonymous=True).context(), DOMAIN, False)
    async with await anyio.connect_tcp(host, int(port)) as plain:
        stream = await tls.secured(plain, "here")
        raw = stream.extra(SocketAttribute.raw_socket)
        assert raw is plain.extra(SocketAttribute.raw_socket)
