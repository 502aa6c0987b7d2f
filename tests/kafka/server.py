"""A real Kafka broker on a free port of loopback, which a test may stop, kill and restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.kafka.topics import Topics
from tests.ports import HeldPort
from tests.server_guard import LOG_NAME, READY, STOP

USER: Final = "ann"
PASSWORD: Final = "wide-open-4711"
_ROOT: Final = Path(__file__).parents[2]
_HOST: Final = "127.0.0.1"
_READY_MARK: Final = "Kafka Server started"
_CLUSTER_ID: Final = "4L6g3nShT-eMCtK--X86sw"
_END_S_MAX: Final = 60.0
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
    "listener.security.protocol.map": "PLAIN:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAIN",
    "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
    "listener.name.login.plain.sasl.jaas.config": f'{_PLAIN} required user_{USER}="{PASSWORD}";',
    "listener.name.login.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
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
    """Return the folder with the jars of the broker; None without them, or without Java."""
    folder = Path(os.environ.get("STREAMKIT_KAFKA_JARS") or _ROOT / ".kafka" / "jars")
    has_jars = any(folder.glob("kafka_*.jar"))
    return folder if has_jars and shutil.which("java") else None


class KafkaServer:
    """A broker in KRaft mode in a temporary folder, while the ``with`` block runs.

    Args:
        settings: Settings of the broker that differ from those of the tests.

    Attributes:
        topics: Creates, writes and reads topics.
    """

    def __init__(self, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        folder = jars()
        assert folder is not None, "Kafka or Java is not installed"
        self._own_settings = settings
        self._java = (*_JAVA, "-cp", f"{folder}/*")
        self._ports = {name: HeldPort() for name in ("PLAIN", "LOGIN", "CONTROLLER")}
        self._folder = Path(tempfile.mkdtemp(prefix="streamkit-kafka-"))
        self._guard: subprocess.Popen[str] | None = None
        self._pid = 0
        self.topics = Topics(self.servers)

    @property
    def port(self) -> int:
        """The port without a login, the same after every start."""
        return self._ports["PLAIN"].number

    @property
    def servers(self) -> str:
        """The bootstrap servers for clients without a login."""
        return self._ports["PLAIN"].address

    @property
    def login_servers(self) -> str:
        """The bootstrap servers for the login of `USER` with SASL, without TLS."""
        return self._ports["LOGIN"].address

    @property
    def log(self) -> str:
        """What the broker has logged."""
        return (self._folder / LOG_NAME).read_text(errors="replace")

    def start(self) -> None:
        """Start the broker; return when it accepts connections. Blocks."""
        assert self._guard is None, "it runs already"
        command = [*self._java, "kafka.Kafka", str(self._settings)]
        self._guard = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.server_guard"),
                *(str(self._folder), "", _READY_MARK, *command),
            ],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must not reach it
        )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        word = self._guard.stdout.readline().strip()
        assert word == READY, f"Kafka did not start: {self.log[-2000:]}"

    def stop(self) -> None:
        """End the broker as an operator does. Blocks."""
        guard, self._guard = self._guard, None
        assert guard is not None, "it does not run"
        guard.communicate(STOP, _END_S_MAX)

    def kill(self) -> None:
        """End the broker with SIGKILL, and wait for its end. Blocks."""
        os.kill(self._pid, signal.SIGKILL)
        self.stop()

    def __enter__(self) -> KafkaServer:
        try:
            self._create()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._guard is not None:
            self.kill()  # nothing of it is needed any more
        for port in self._ports.values():
            port.close()
        shutil.rmtree(self._folder)

    @property
    def _settings(self) -> Path:
        return self._folder / "server.properties"

    def _create(self) -> None:
        listeners = {name: f"{name}://{port.address}" for name, port in self._ports.items()}
        settings = {
            **_SETTINGS,
            **self._own_settings,
            "log.dirs": str(self._folder / "data"),
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join((listeners["PLAIN"], listeners["LOGIN"])),
            "controller.quorum.voters": f"1@{self._ports['CONTROLLER'].address}",
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
