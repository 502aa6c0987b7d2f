"""A real Kafka broker on a free port of loopback, which a test may stop, kill and restart."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.guarded_server import ROOT, GuardedServer
from tests.kafka.topics import Topics
from tests.ports import HeldPort

USER: Final = "ann"
PASSWORD: Final = "wide-open-4711"
_HOST: Final = "127.0.0.1"
_CLUSTER_ID: Final = "4L6g3nShT-eMCtK--X86sw"
_JAVA_MIN: Final = 17
# A start of the JVM must be cheap; the speed of a long run does not matter.
_JAVA: Final = (
    "java",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xmx384m",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)
_PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": (
        "PLAIN:PLAINTEXT,LOGIN:SASL_PLAINTEXT,TLS:SASL_SSL,CONTROLLER:PLAINTEXT"
    ),
    "inter.broker.listener.name": "PLAIN",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
    **{
        f"listener.name.{name}.{mechanism}.sasl.jaas.config": module
        for name in ("login", "tls")
        for mechanism, module in (
            ("plain", f'{_PLAIN} required user_{USER}="{PASSWORD}";'),
            ("scram-sha-512", f"{_SCRAM} required;"),
        )
    },
    "listener.name.tls.ssl.keystore.type": "PEM",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # clients of the port without a login
    "allow.everyone.if.no.acl.found": "true",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill, the controller waits for the end of the session of the broker.
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
    "controller.quorum.election.timeout.ms": "200",
    "controller.quorum.election.backoff.max.ms": "200",
    # Compaction and retention within a second instead of minutes.
    "log.cleaner.backoff.ms": "200",
    "log.retention.check.interval.ms": "300",
    "log.initial.task.delay.ms": "100",
    "log.segment.delete.delay.ms": "100",
}


def jars() -> Path | None:
    """Return the folder with the jars of the broker; None without them, or without Java 17."""
    folder = Path(os.environ.get("STREAMKIT_TEST_KAFKA_JARS") or ROOT / ".kafka" / "jars")
    has_jars = any(folder.glob("kafka_*.jar"))
    return folder if has_jars and _java_version() >= _JAVA_MIN else None


@cache
def _java_version() -> int:
    """Return the version of Java; 0 without Java."""
    if shutil.which("java") is None:
        return 0
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found[1]) if found else 0


class KafkaServer(GuardedServer):
    """A broker in KRaft mode in a temporary folder, while the ``with`` block runs.

    Args:
        settings: Settings of the broker that differ from those of the tests.

    Attributes:
        topics: Creates, writes and reads topics.
    """

    def __init__(self, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        folder = jars()
        assert folder is not None, "Kafka or Java is not installed"
        super().__init__("Kafka", "Kafka Server started")
        self._own_settings = settings
        self._java = (*_JAVA, "-cp", f"{folder}/*")
        self._listeners = {name: HeldPort() for name in ("PLAIN", "LOGIN", "TLS", "CONTROLLER")}
        self._ports += self._listeners.values()
        self.topics = Topics(self.servers)

    @property
    def port(self) -> int:
        """The port without a login, the same after every start."""
        return self._listeners["PLAIN"].number

    @property
    def servers(self) -> str:
        """The bootstrap servers for clients without a login."""
        return self._listeners["PLAIN"].address

    @property
    def login_servers(self) -> str:
        """The bootstrap servers for the login of `USER` with SASL, without TLS."""
        return self._listeners["LOGIN"].address

    @property
    def tls_servers(self) -> str:
        """The bootstrap servers for the login of `USER` with SASL over TLS; see `ca_file`."""
        return self._listeners["TLS"].address

    @property
    def ca_file(self) -> Path:
        """The certificate of the CA to trust."""
        return self._folder / "ca.pem"

    def _command(self) -> list[str]:
        return [*self._java, "kafka.Kafka", str(self._settings)]

    @property
    def _settings(self) -> Path:
        return self._folder / "server.properties"

    def _create(self) -> None:
        listeners = {name: f"{name}://{port.address}" for name, port in self._listeners.items()}
        settings = {
            **_SETTINGS,
            **self._own_settings,
            "log.dirs": str(self._folder / "data"),
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(
                each for name, each in listeners.items() if name != "CONTROLLER"
            ),
            "listener.name.tls.ssl.keystore.location": str(self._certified()),
            "controller.quorum.voters": f"1@{self._listeners['CONTROLLER'].address}",
        }
        self._settings.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        done = subprocess.run(
            [
                *(*self._java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID),
                *("-c", str(self._settings), "--add-scram", scram),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"the folder was not formatted: {done.stdout}{done.stderr}"

    def _certified(self) -> Path:
        """Create a CA and a file with the key and the certificate of the broker."""
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(self.ca_file))
        issued = ca.issue_cert(_HOST)
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        # Java reads keys only in this form.
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self._folder / "broker.pem"
        path.write_bytes(pem + b"".join(each.bytes() for each in issued.cert_chain_pems))
        return path
