"""Logins that the broker refuses, and connections without TLS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from confluent_kafka import KafkaError

from streamkit import Secret
from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.connectors.kafka.client import Watch
from streamkit.errors import StreamKitError
from tests.kafka.cluster import Cluster
from tests.kafka.conftest import Notes, env_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.mark.parametrize("kind", [KafkaSource, KafkaSink])
async def test_a_login_that_the_broker_refuses_is_an_error_without_the_password(
    cluster: Cluster, tmp_path: Path, kind: type[KafkaSource | KafkaSink]
) -> None:
    cluster.create("t")
    config: dict[str, str | Secret] = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "ann",
        "sasl.password": Secret("hunter2"),
    }
    made = kind(cluster.servers, "t", config=config)
    env = env_of(tmp_path, [])
    port = made.reader(env) if isinstance(made, KafkaSource) else made.writer(env)
    with pytest.raises(StreamKitError, match="SASL Handshake not supported by broker") as failed:
        await port.open({})
    await port.close()
    assert "security.protocol" in failed.value.hint
    assert "hunter2" not in f"{failed.value!r} {made!r}"


async def test_a_broker_that_speaks_no_tls_is_waited_for_with_the_reason(
    cluster: Cluster, tmp_path: Path
) -> None:
    notes = Notes()
    source = KafkaSource(cluster.servers, "t", config={"security.protocol": "ssl"})
    reader = source.reader(env_of(tmp_path, notes))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.open, {})
        await notes.wait_for("is not reachable; retrying: ssl://")
        tasks.cancel_scope.cancel()
    await reader.close()


async def test_a_function_returns_tokens_for_the_login(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("t")
    asked: list[str] = []

    def token(given: str) -> tuple[str, float]:
        asked.append(given)
        return "token-of-ann", time.time() + 600

    config: dict[str, Any] = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.config": Secret("principal=ann"),
        "oauth_cb": token,
    }
    reader = KafkaSource(cluster.servers, "t", config=config).reader(env_of(tmp_path, []))
    with pytest.raises(StreamKitError, match="SASL Handshake not supported by broker"):
        await reader.open({})
    await reader.close()
    assert asked[0] == "principal=ann"


def test_connections_that_were_closed_while_idle_are_not_an_outage() -> None:
    watch = Watch("Kafka topic t", {})
    watch.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))  # as a broker closes idle connections
    assert watch.messages == []
    watch.on_error(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    watch.is_back()
    watch.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert watch.messages == [
        "Kafka topic t is not reachable; retrying: Connection refused",
        "Kafka topic t is reachable again",
    ]
