"""The official Python client over TLS, with profiles that streamkit wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import trustme

from streamkit import Client
from streamkit.client import Tls
from streamkit.client.profile.profile_file import ProfileFile
from tests.cli import processes
from tests.peers import peer
from tests.tls_proxy import TlsProxy

pytestmark = pytest.mark.peers

DOMAIN: Final = "fluvio.test"
SCRIPT: Final = """
import json, os
from fluvio import Fluvio, FluvioAdmin, Offset

fluvio = Fluvio.connect()
FluvioAdmin.connect().create_topic("shared")
producer = fluvio.topic_producer("shared")
producer.send(b"k", b"theirs")
producer.send(b"k", b"theirs, too")
producer.flush()
stream = fluvio.partition_consumer("shared", 0).stream(Offset.beginning())
print(json.dumps([next(stream).value_string() for _ in range(2)]), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("form", ["files", "text", "anonymous"])
async def test_the_official_client_accepts_the_profile_and_both_use_the_same_server_names(
    peer_python: str, tmp_path: Path, form: str
) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("client@fluvio.test", common_name="client")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = Tls(
        domain=DOMAIN,
        ca_cert=tmp_path / "ca.pem",
        client_cert=tmp_path / "cert.pem",
        client_key=tmp_path / "key.pem",
    )
    if form == "text":
        tls = tls.as_text()
    if form == "anonymous":
        tls = Tls(anonymous=True)
    certificate = ca.issue_cert(DOMAIN, f"*.{DOMAIN}")
    options = ("--sc-port", "0", "--spu-port", "0", "--spu-public-address")
    with (
        TlsProxy(certificate, clients_of=None if form == "anonymous" else ca) as proxy,
        processes.started(tmp_path, "broker", "start", *options, proxy.spu_address) as broker,
    ):
        sc, spu = (int(each.rpartition(":")[2]) for each in processes.ready_line(broker))
        proxy.forward_to(sc, spu)
        file = ProfileFile(tmp_path / "config")
        file.add("there", proxy.sc_address, tls=tls, installation="cloud")
        # Even in its anonymous mode, the official client verifies the certificate chain.
        variables = {
            "FLV_PROFILE_PATH": str(file.path),
            "FLV_SOCKET_WAIT": "20",
            "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        }
        command = (peer_python, "-c", SCRIPT)
        async with peer.started(command, tmp_path / "peer.log", variables) as theirs:
            assert await theirs.answer() == ["theirs", "theirs, too"]
        names = {side: set(requested) for side, requested in proxy.names.items()}
        async with Client.connect(proxy.sc_address, tls=tls) as client:
            consumer = client.consumer("shared", until_end=True)
            assert [record.value async for record in consumer] == [b"theirs", b"theirs, too"]
        if form != "anonymous":
            # streamkit has requested only server names that the official client has requested too.
            assert {side: set(requested) for side, requested in proxy.names.items()} == names
            assert set(proxy.clients["sc"]) == set(proxy.clients["spu"]) == {"client"}
