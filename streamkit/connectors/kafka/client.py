"""What the Kafka source and sink share: options of librdkafka, errors, looking up the topic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from streamkit.connectors.own_thread import OwnThread
from streamkit.errors import ConfigError, StreamKitError, UsageError
from streamkit.settings.secret import Secret

if TYPE_CHECKING:
    import confluent_kafka

# Returns a token and when it ends, in seconds since 1970; for ``oauth_cb``.
TokenOf = Callable[[str], tuple[Any, ...]]
Config = Mapping[str, "str | int | float | bool | Secret | TokenOf"]

MESSAGE_MAX_BYTES: Final = 1_000_000  # the default of librdkafka
# The limits of librdkafka for ``message.max.bytes``.
_SIZE_MIN: Final = 1_000
_SIZE_MAX: Final = 1_000_000_000
# What a batch of one record has besides key and value.
RECORD_OVERHEAD_BYTES: Final = 100
LOOKUP_S: Final = 1.0
_AGAIN_S: Final = 0.2
# After how many attempts without an answer the user gets a message.
_UNREADY_MAX: Final = 10
# How long a connection was in which state, at the end of an error of librdkafka.
_STATE: Final = re.compile(r" \(after \d+ms in state \w+.*\)$")

_OURS: Final = {
    "bootstrap.servers": "servers",
    "metadata.broker.list": "servers",
    "enable.auto.commit": "",
    "enable.auto.offset.store": "",
    "enable.partition.eof": "",
    "auto.offset.reset": "start",
    "enable.idempotence": "",
    "acks": "",
    "request.required.acks": "",
    "delivery.report.only.error": "",
    "transactional.id": "",
    "default.topic.config": "",
}
_SECRETS: Final = (
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.config",
)


_LOGIN_HINT: Final = "check security.protocol and the sasl. or ssl. options in config="
_GONE_HINT: Final = "the topic was deleted, or its records need a partition that it does not have"
_HINTS: Final = {
    "_AUTHENTICATION": _LOGIN_HINT,
    "_SSL": _LOGIN_HINT,
    "_UNKNOWN_TOPIC": _GONE_HINT,
    "_UNKNOWN_PARTITION": _GONE_HINT,
    "UNKNOWN_TOPIC_OR_PART": _GONE_HINT,
    "INVALID_TIMESTAMP": "see message.timestamp.after.max.ms and .before.max.ms of the topic",
}


class _HasTopics(Protocol):
    def list_topics(self, topic: str = ..., timeout: float = ...) -> Any: ...


def is_secret(name: str) -> bool:
    """Return whether an option of librdkafka holds a secret."""
    return name in _SECRETS


def checked_config(servers: str, topic: str, config: Config) -> None:
    """Check the options that users give.

    Raises:
        UsageError: An option is set by streamkit, or a password is not a `Secret`.
    """
    for name, text in (("servers", servers), ("topic", topic)):
        if not isinstance(text, str) or not text:
            raise UsageError(f"{name}={text!r} must be a text that is not empty")
    for key in config:
        if key in _OURS or (callable(config[key]) and key != "oauth_cb"):
            instead = _OURS.get(key)
            hint = f"use {instead}=" if instead else "remove it from config="
            raise UsageError(f"the option {key!r} is set by streamkit", hint=hint)
        if is_secret(key) and not isinstance(config[key], Secret):
            raise UsageError(
                f"the option {key!r} must be a Secret",
                hint="use streamkit.Secret(...), or a setting of the type Secret",
            )


def max_record_bytes(config: Config, batch_bytes_max: int | None = None) -> int:
    """Return how many bytes key, value and headers of a record may have together.

    Args:
        batch_bytes_max: How many bytes a batch of the topic may have; None if that is not known.

    Raises:
        UsageError: ``message.max.bytes`` is not a number.
    """
    return _message_bytes_max(config, batch_bytes_max) - RECORD_OVERHEAD_BYTES


def sizes_of(config: Config, batch_bytes_max: int | None) -> dict[str, int]:
    """Return the options of a producer for the sizes of records and batches.

    Kafka refuses a batch that is too large, although each of its records may be small enough.
    """
    batch = min(_number(config, "batch.size", MESSAGE_MAX_BYTES), batch_bytes_max or _SIZE_MAX)
    message = _message_bytes_max(config, batch_bytes_max)
    return {"batch.size": batch, "message.max.bytes": min(max(message, _SIZE_MIN), _SIZE_MAX)}


def _message_bytes_max(config: Config, batch_bytes_max: int | None) -> int:
    if batch_bytes_max is None:
        return _number(config, "message.max.bytes", MESSAGE_MAX_BYTES)
    codec = config.get("compression.type", config.get("compression.codec", "none"))
    if codec == "none":
        return min(_number(config, "message.max.bytes", batch_bytes_max), batch_bytes_max)
    # How large it is when it is compressed is known only afterwards.
    return _number(config, "message.max.bytes", max(batch_bytes_max, MESSAGE_MAX_BYTES))


def _number(config: Config, name: str, default: int) -> int:
    size = config.get(name, default)
    try:
        return int(str(size))
    except ValueError:
        raise UsageError(f"{name}={size!r} is not a number of bytes") from None


def library() -> Any:
    """Import confluent-kafka.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise ConfigError(
            "Kafka needs `pip install 'fluvio-streamkit[kafka]'`", hint=str(error)
        ) from error
    return confluent_kafka


class Watch:
    """Keeps what librdkafka reports from its callbacks: failures, and messages for the user.

    Args:
        where: The topic and its servers, for messages.
        secrets: Texts that messages must not contain.
    """

    def __init__(self, where: str, config: Config) -> None:
        self._where = where
        self._secrets = [
            each.reveal() for each in config.values() if isinstance(each, Secret) and each
        ]
        self.failure: StreamKitError | None = None
        self.messages: list[str] = []
        self._is_away = False
        self._is_down = False
        self._back = ""
        self._unready = 0
        self._reason = ""

    def on_error(self, error: confluent_kafka.KafkaError) -> None:
        """Take an error of a client; only some stop the job, librdkafka retries the others."""
        name = error.name()
        if error.fatal() or name in ("_AUTHENTICATION", "_SSL", "_FATAL", "_AUTO_OFFSET_RESET"):
            self.fail(error)
            return
        if name == "_ALL_BROKERS_DOWN":
            self._is_down = True
        else:
            self._reason = self.text(error)
        # Without a reason, a broker has only closed connections that were idle.
        if self._is_down and self._reason:
            self._leaves(f"is not reachable; retrying: {self._reason}", "is reachable again")

    def fail(self, error: object) -> None:
        """Fail with an error, unless there is one already."""
        if self.failure is None:
            hint = _HINTS.get(getattr(error, "name", str)(), "")
            self.failure = StreamKitError(f"{self._where}: {self.text(error)}", hint=hint)

    def is_unready(self) -> None:
        """Learn that the topic cannot be used yet, for example because it has no leader."""
        self._unready += 1
        if self._unready == _UNREADY_MAX:
            self._leaves("is not ready; retrying", "is reachable again")

    def is_silent(self, unacknowledged: int, seconds: float) -> None:
        """Learn that a broker has acknowledged nothing for some time."""
        self._leaves(
            f"has acknowledged nothing for {seconds:.0f} s; {unacknowledged} record(s) wait. "
            "Perhaps too few replicas are in sync (min.insync.replicas)",
            "acknowledges records again",
        )

    def is_back(self) -> None:
        """Learn that a broker has answered."""
        self._is_down = False
        self._reason = ""
        if self._is_away:
            self._is_away = False
            self.messages.append(f"{self._where} {self._back}")

    def _leaves(self, what: str, back: str) -> None:
        # A server that is reachable again may still acknowledge nothing, which is another state.
        if not self._is_away or self._back != back:
            self._is_away = True
            self._back = back
            self.messages.append(f"{self._where} {what}")

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise self.failure

    def text(self, error: object) -> str:
        """Return the text of an error of the library without secrets."""
        text = error.str() if hasattr(error, "str") else str(error)
        text = _STATE.sub("", text)
        for each in self._secrets:
            text = text.replace(each, "***")
        return text

    def show(self, note: Callable[[str], None]) -> None:
        """Show the messages that were kept; in the event loop."""
        while self.messages:
            note(self.messages.pop(0))


def client_config(servers: str, config: Config, watch: Watch) -> dict[str, Any]:
    """Return the options of a client, with secrets revealed."""
    plain = {k: v.reveal() if isinstance(v, Secret) else v for k, v in config.items()}
    return {"log_level": 0, **plain, "bootstrap.servers": servers, "error_cb": watch.on_error}


def is_away(error: Any) -> bool:
    """Return whether an error of librdkafka means that no broker has answered."""
    return error.name() in (
        "_TRANSPORT",
        "_TIMED_OUT",
        "_ALL_BROKERS_DOWN",
        "_RESOLVE",
        "_WAIT_COORD",
        "LEADER_NOT_AVAILABLE",
        "NOT_LEADER_FOR_PARTITION",
        "REQUEST_TIMED_OUT",
        # A leader that was elected a moment ago does not know its end yet.
        "OFFSET_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH",
        "REPLICA_NOT_AVAILABLE",
        "KAFKA_STORAGE_ERROR",
        "NETWORK_EXCEPTION",
    )


def partitions_now(client: _HasTopics, topic: str) -> list[int] | None:
    """Return the partitions of a topic; None if no broker has answered in a second.

    Raises:
        ConfigError: The topic does not exist, or may not be read.
    """
    kafka = library()
    try:
        found = client.list_topics(topic, timeout=LOOKUP_S).topics[topic]
    except kafka.KafkaException as error:
        if is_away(error.args[0]):
            return None
        raise
    if found.error is None:
        return sorted(found.partitions)
    if is_away(found.error):
        return None
    if found.error.name() in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
        raise ConfigError(
            f"the Kafka topic {topic!r} does not exist",
            hint="create it with the tools of Kafka; streamkit creates only Fluvio topics",
        )
    raise ConfigError(f"the Kafka topic {topic!r} cannot be used: {found.error.str()}")


def not_valid(where: str, watch: Watch, error: Any) -> ConfigError:
    """Return the error for options that the library has refused."""
    return ConfigError(f"{where}: config= is not valid: {watch.text(error.args[0])}")


async def when_there(
    thread: OwnThread, call: Callable[[], Any], watch: Watch, note: Callable[[str], None]
) -> Any:
    """Repeat a call until it returns something; it returns None while no broker answers.

    Raises:
        StreamKitError: The client has failed for good.
    """
    kafka = library()
    try:
        while (result := await thread.call(call)) is None:
            watch.is_unready()
            watch.show(note)
            watch.check()
            await anyio.sleep(_AGAIN_S)
    except kafka.KafkaException as error:
        watch.fail(error.args[0])
        watch.check()
    watch.is_back()
    watch.show(note)
    return result
