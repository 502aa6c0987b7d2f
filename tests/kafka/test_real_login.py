"""Logins and permissions, against a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from streamkit import Secret
from streamkit.connectors.kafka import KafkaSink, KafkaSource
from streamkit.connectors.kafka.reader import KafkaReader
from streamkit.connectors.kafka.writer import KafkaWriter
from streamkit.errors import ConfigError, StreamKitError
from tests.cli.processes import run
from tests.kafka.conftest import PATIENCE_S, Notes, env_of, opened_writer, write
from tests.kafka.server import PASSWORD, USER, KafkaServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def login(mechanism: str, password: str = PASSWORD) -> dict[str, Any]:
    return {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": mechanism,
        "sasl.username": USER,
        "sasl.password": Secret(password),
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_login_with_a_password(kafka: KafkaServer, tmp_path: Path, mechanism: str) -> None:
    topic = kafka.topics.new()
    writer = await opened_writer(tmp_path, kafka.login_servers, topic, **login(mechanism))
    await write(writer, [b"1"])
    await writer.close()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    wrong = login("SCRAM-SHA-512", "not-the-password")
    for kind in (KafkaSink, KafkaSource):
        made = kind(kafka.login_servers, topic, config=wrong)
        env = env_of(tmp_path, [])
        port = made.reader(env) if isinstance(made, KafkaSource) else made.writer(env)
        with anyio.fail_after(PATIENCE_S), pytest.raises(StreamKitError) as failed:
            await port.open({})
        await port.close()
        assert "uthentication" in str(failed.value)
        assert "not-the-password" not in f"{failed.value!r}"


def test_a_url_with_a_password_copies_over_tls(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b'{"id": 1}')])
    url = f"kafka://{USER}:{PASSWORD}@{kafka.tls_servers}/{topic}"
    options = f"?sasl.mechanism=SCRAM-SHA-512&ssl.ca.location={kafka.ca_file}"
    done = run(tmp_path, "copy", f"{url}{options}", "out.jsonl", "--embedded")
    assert done.code == 0, done.err
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"id":1}\n'
    assert PASSWORD not in done.err


async def test_a_certificate_that_is_not_trusted_is_an_error(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    topic = kafka.topics.new()
    config = {**login("PLAIN"), "security.protocol": "sasl_ssl"}
    notes = Notes()
    reader = KafkaSource(kafka.tls_servers, topic, config=config).reader(env_of(tmp_path, notes))
    with anyio.fail_after(PATIENCE_S), pytest.raises(StreamKitError) as failed:
        await reader.open({})
    await reader.close()
    assert "certificate verify failed" in str(failed.value)
    assert "ssl. options" in failed.value.hint


# --- permissions ----------------------------------------------------------------------


def port_of(kafka: KafkaServer, kind: Any, topic: str, folder: Path) -> KafkaReader | KafkaWriter:
    made = kind(kafka.login_servers, topic, config=login("PLAIN"))
    env = env_of(folder, [])
    port: KafkaReader | KafkaWriter
    port = made.reader(env) if isinstance(made, KafkaSource) else made.writer(env)
    return port


async def test_a_user_who_may_only_write_can_write(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = kafka.topics.new()
    kafka.topics.allow(topic, USER, "WRITE")  # but not describe its options
    writer = port_of(kafka, KafkaSink, topic, tmp_path)
    assert isinstance(writer, KafkaWriter)
    await writer.open({})
    await write(writer, [b"1"])
    await writer.close()
    assert kafka.topics.values(topic) == [b"1"]
    reader = port_of(kafka, KafkaSource, topic, tmp_path)
    assert isinstance(reader, KafkaReader)
    await reader.open({})
    with anyio.fail_after(PATIENCE_S), pytest.raises(StreamKitError, match="authorization failed"):
        await reader.next()
    await reader.close()


async def test_a_user_who_may_only_read_can_read(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = kafka.topics.new()
    kafka.topics.write(topic, [(0, b"1")])
    kafka.topics.allow(topic, USER, "READ")
    reader = port_of(kafka, KafkaSource, topic, tmp_path)
    assert isinstance(reader, KafkaReader)
    await reader.open({})
    chunk = await reader.next()
    assert chunk is not None
    assert chunk.values == [b"1"]
    await reader.close()
    writer = port_of(kafka, KafkaSink, topic, tmp_path)
    assert isinstance(writer, KafkaWriter)
    await writer.open({})
    with pytest.raises(StreamKitError, match="authorization failed"):
        await write(writer, [b"2"])
    await writer.close()


@pytest.mark.parametrize("kind", [KafkaSource, KafkaSink])
async def test_a_user_who_may_do_nothing_is_refused(
    kafka: KafkaServer, tmp_path: Path, kind: type[KafkaSource | KafkaSink]
) -> None:
    topic = kafka.topics.new()
    kafka.topics.allow(topic, "somebody-else", "READ")
    port = port_of(kafka, kind, topic, tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be used: .*authorization failed"):
        await port.open({})
    await port.close()
