"""Every error streamkit raises on purpose.

StreamKitError
  ConfigError
    TopologyError
    UsageError
  TransportError
    ConnectFailed
      TooManyConnections
    ConnectionLost
    RequestTimedOut
  ProtocolError
    LocalProtocolError
    RemoteProtocolError
    UnsupportedServer
  DataError
    CorruptBatch
    RecordTooLarge
    RowError
  BrokerError
    TopicNotFound
    TopicAlreadyExists
    OffsetEvicted
    OffsetOutOfRange
    NotLeader
    TopicDeleted
    SmartModuleError
      SmartModuleNotFound
  StageError
  StateError
    DataFolderInUse
    StateInUse
    StateMismatch
  NotFlushed

The tree is cut by what the caller can do next: fix the program (ConfigError), try again
(TransportError), report a broken peer (ProtocolError), look at one record or batch
(DataError, StageError), read the broker's answer (BrokerError), free or restore what is
on disk (StateError).
"""

from __future__ import annotations

from typing import ClassVar


class StreamKitError(Exception):
    """Root of the tree; catch it to catch everything streamkit means to raise.

    ``hint`` says what to do next, where that is known; a traceback shows it below the error.
    """

    exit_code: ClassVar[int] = 1
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class ConfigError(StreamKitError):
    """The settings or the program cannot work; nothing was started."""

    exit_code = 2


class TopologyError(ConfigError):
    """The graph of stages is not a runnable graph. ``at`` is the user's ``file:line``."""

    def __init__(self, message: str, *, at: str = "", hint: str = "") -> None:
        super().__init__(f"{at}: {message}" if at else message, hint=hint)
        self.at = at


class UsageError(ConfigError):
    """A call or an option that cannot be meant as given."""


class TransportError(StreamKitError):
    """The network failed. ``sent`` tells whether the broker may have acted."""

    retryable = True

    def __init__(self, message: str, *, sent: bool, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sent = sent


class ConnectFailed(TransportError):
    """No connection could be opened, so nothing was sent.

    Not retryable where one side does not trust the other, or they speak different protocols.
    """

    def __init__(
        self,
        address: str,
        reason: str,
        *,
        hint: str = "is the broker running there? `streamkit broker start` starts one",
        retryable: bool = True,
    ) -> None:
        super().__init__(f"cannot connect to {address}: {reason}", sent=False, hint=hint)
        self.address = address
        self.retryable = retryable


class TooManyConnections(ConnectFailed):
    """The server has as many connections as it accepts, from this address or in all."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            address,
            reason,
            hint="close clients and consumers that are not needed: a client has a connection for "
            "administration and one for records, and each of its consumers has one more",
            retryable=False,
        )


class ConnectionLost(TransportError):
    """The connection ended with requests unanswered."""


class RequestTimedOut(TransportError):
    """No answer in time; the request may still be carried out."""


class ProtocolError(StreamKitError):
    """Bytes or calls that break the protocol."""


class LocalProtocolError(ProtocolError):
    """streamkit, or code that uses the protocol layer, broke it."""


class RemoteProtocolError(ProtocolError):
    """The peer broke it. ``at`` is the position in the message, in bytes."""

    def __init__(self, message: str, *, at: int) -> None:
        super().__init__(f"{message} (byte {at})")
        self.at = at


class UnsupportedServer(ProtocolError):
    """What answers is no Fluvio server, or one too old to talk to."""


class DataError(StreamKitError):
    """Stored or offered data cannot be used as it is."""


class CorruptBatch(DataError):
    """A batch is not what its checksum or its counts say."""

    def __init__(
        self, message: str, *, topic: str = "", partition: int = 0, offset: int = 0
    ) -> None:
        where = f" at {topic}-{partition} offset {offset}" if topic else ""
        super().__init__(f"corrupt batch{where}: {message}")
        self.reason = message
        self.topic, self.partition, self.offset = topic, partition, offset


class RecordTooLarge(DataError):
    """One record that no request could carry."""


class BrokerError(StreamKitError):
    """The broker answered, and the answer was no. ``code`` is Fluvio's number for it."""

    def __init__(self, code: int, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retryable = retryable


class TopicNotFound(BrokerError):
    """No topic has that name."""

    def __init__(self, topic: str, *, hint: str = "") -> None:
        super().__init__(2001, f"topic not found: {topic}", hint=hint)
        self.topic = topic


class TopicAlreadyExists(BrokerError):
    """The name is in use."""

    def __init__(self, topic: str, *, about: str = "", hint: str = "") -> None:
        super().__init__(2002, f"topic {topic!r} already exists{about}", hint=hint)
        self.topic = topic


class OffsetEvicted(BrokerError):
    """Retention removed ``offset``; ``next_available`` is the first one left."""

    def __init__(self, offset: int, next_available: int) -> None:
        super().__init__(71, f"offset {offset} is gone, the log starts at {next_available}")
        self.offset = offset
        self.next_available = next_available


class OffsetOutOfRange(BrokerError):
    """The offset lies beyond the end of the log."""


class NotLeader(BrokerError):
    """The server does not lead the partition, or has not loaded it yet."""


class TopicDeleted(BrokerError):
    """The topic went away while it was read."""


class SmartModuleError(BrokerError):
    """A SmartModule cannot be used, or failed on a record.

    ``offset``, ``key`` and ``value`` are those of the record, where the server names one;
    ``reason`` is what the module, or the server, said of it.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str,
        offset: int | None = None,
        key: bytes | None = None,
        value: bytes | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(code, message, hint=hint)
        self.reason = reason
        self.offset = offset
        self.key, self.value = key, value


class SmartModuleNotFound(SmartModuleError):
    """The cluster knows no SmartModule of that name, or the SPU does not yet."""

    def __init__(self, name: str, *, about: str = "", hint: str = "") -> None:
        where = f"{about}: " if about else ""
        super().__init__(
            6001,
            f"{where}SmartModule not found: {name}",
            reason="not found",
            hint=hint
            or "an SPU knows a new one after about half a second; "
            "a list of SmartModules shows what there is",
        )
        self.name = name


class RowError(DataError):
    """Raised by a sink of one's own that gets lists: this row failed, those before it are written.

    Args:
        row: Which row of the list, from 0.
        message: What is wrong with it.
    """

    def __init__(self, row: int, message: str = "the row cannot be written") -> None:
        super().__init__(message)
        self.row = row


class StageError(StreamKitError):
    """A function of the user's raised; what it raised is the cause."""

    def __init__(
        self, message: str, *, stage: str, topic: str, partition: int, offset: int | None
    ) -> None:
        super().__init__(message)
        self.stage = stage
        self.topic, self.partition, self.offset = topic, partition, offset


class StateError(StreamKitError):
    """Saved state cannot be used."""


class DataFolderInUse(StateError):
    """Another broker owns the data folder."""


class StateInUse(StateError):
    """Another run of this job owns its store."""

    exit_code = 4


class StateMismatch(StateError):
    """The store belongs to something else, or does not fit what the broker has."""


class NotFlushed(StreamKitError):
    """The deadline passed with records unacknowledged. The job can be resumed."""

    exit_code = 3


def shown(value: object) -> str:
    """Return a value for an error text: short, and whatever its `repr` does."""
    try:
        written = repr(value)
    except Exception:
        return f"<a {type(value).__name__}>"
    return written if len(written) <= 80 else f"{written[:77]}..."
