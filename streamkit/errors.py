"""The errors that streamkit raises.

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
    NotPicklable
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
    StateTooLarge
  NotFlushed
  RemoteError
  ProcessDied
  ProcessNotStarted
  RegistryError

The tree is grouped by what the caller can do next: fix the program (ConfigError), retry
(TransportError), report a faulty peer (ProtocolError), look at one record or batch
(DataError, StageError), read the broker's response (BrokerError), release or restore the
files on disk (StateError).
"""

from __future__ import annotations

from typing import ClassVar


class StreamKitError(Exception):
    """Root of the tree; catch it to catch every error of streamkit.

    ``hint`` says what to do next, or is empty; a traceback shows it below the error.
    """

    exit_code: ClassVar[int] = 1
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the attributes; the parameters of the class may be others."""
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[StreamKitError], args: tuple[object, ...]) -> StreamKitError:
    return kind.__new__(kind, *args)


class ConfigError(StreamKitError):
    """The settings or the program cannot work; nothing was started."""

    exit_code = 2


class TopologyError(ConfigError):
    """The graph of stages cannot run. ``at`` is the ``file:line`` in the user's code."""

    def __init__(self, message: str, *, at: str = "", hint: str = "") -> None:
        super().__init__(f"{at}: {message}" if at else message, hint=hint)
        self.at = at


class UsageError(ConfigError):
    """An argument or an option is not valid."""


class TransportError(StreamKitError):
    """The network failed. ``sent`` is true if the broker may have received the request."""

    retryable = True

    def __init__(self, message: str, *, sent: bool, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sent = sent


class ConnectFailed(TransportError):
    """No connection could be opened, so nothing was sent.

    Not retryable if TLS verification fails, or if the two sides use different protocols.
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
    """The server has reached its limit of connections, in total or for this address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            address,
            reason,
            hint="close the clients and consumers you do not need: each client has one connection "
            "for administration and one for records, and each consumer has another one",
            retryable=False,
        )


class ConnectionLost(TransportError):
    """The connection closed while requests were waiting for their responses."""


class RequestTimedOut(TransportError):
    """No response arrived in time; the server may still process the request."""


class ProtocolError(StreamKitError):
    """Bytes or calls violate the protocol."""


class LocalProtocolError(ProtocolError):
    """streamkit, or code that uses the protocol layer, violated the protocol."""


class RemoteProtocolError(ProtocolError):
    """The peer violated the protocol. ``at`` is the position in the message, in bytes."""

    def __init__(self, message: str, *, at: int) -> None:
        super().__init__(f"{message} (byte {at})")
        self.at = at


class UnsupportedServer(ProtocolError):
    """The peer is not a Fluvio server, or its version is too old."""


class DataError(StreamKitError):
    """Data that was read or passed in cannot be used."""


class CorruptBatch(DataError):
    """A batch does not match its checksum or its counts."""

    def __init__(
        self, message: str, *, topic: str = "", partition: int = 0, offset: int = 0
    ) -> None:
        where = f" at {topic}-{partition} offset {offset}" if topic else ""
        super().__init__(f"corrupt batch{where}: {message}")
        self.reason = message
        self.topic, self.partition, self.offset = topic, partition, offset


class RecordTooLarge(DataError):
    """One record is larger than the largest request."""


class BrokerError(StreamKitError):
    """The broker refused a request. ``code`` is Fluvio's error code."""

    def __init__(self, code: int, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retryable = retryable


class TopicNotFound(BrokerError):
    """The topic does not exist."""

    def __init__(self, topic: str, *, hint: str = "") -> None:
        super().__init__(2001, f"topic not found: {topic}", hint=hint)
        self.topic = topic


class TopicAlreadyExists(BrokerError):
    """A topic with that name exists."""

    def __init__(self, topic: str, *, about: str = "", hint: str = "") -> None:
        super().__init__(2002, f"topic {topic!r} already exists{about}", hint=hint)
        self.topic = topic


class OffsetEvicted(BrokerError):
    """Retention removed ``offset``; ``next_available`` is the first stored offset."""

    def __init__(self, offset: int, next_available: int) -> None:
        super().__init__(71, f"offset {offset} was removed, the log starts at {next_available}")
        self.offset = offset
        self.next_available = next_available


class OffsetOutOfRange(BrokerError):
    """The offset is after the end of the log."""


class NotLeader(BrokerError):
    """The server is not the leader of the partition, or has not loaded it yet."""


class TopicDeleted(BrokerError):
    """The topic was deleted while it was read."""


class SmartModuleError(BrokerError):
    """A SmartModule cannot be used, or failed on a record.

    ``offset``, ``key`` and ``value`` are those of the failed record, if the server reports it;
    ``reason`` is the error text of the module or of the server.
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
    """The cluster has no SmartModule with that name, or the SPU has not received it yet."""

    def __init__(self, name: str, *, about: str = "", hint: str = "") -> None:
        where = f"{about}: " if about else ""
        super().__init__(
            6001,
            f"{where}SmartModule not found: {name}",
            reason="not found",
            hint=hint
            or "an SPU needs about half a second to receive a new SmartModule; "
            "list the SmartModules to see which exist",
        )
        self.name = name


class RowError(DataError):
    """Raise it in a function that gets lists: this row failed.

    In a sink, the rows before it are written. A stage is called again with the other rows.

    Args:
        row: Index of the row in the list, from 0.
        message: What is wrong with the row.
    """

    # Whether the function was not called yet, so a sink has not written the rows before this one.
    is_before_call = False

    def __init__(self, row: int, message: str = "the row cannot be written") -> None:
        super().__init__(message)
        self.row = row


class NotPicklable(DataError):
    """A value cannot be sent to or from another process. ``what`` is an argument or the result."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"{what} cannot be sent between processes: {reason}",
            hint="use values that pickle supports, or run the function in threads",
        )
        self.what = what
        self.reason = reason


class StageError(StreamKitError):
    """A user function raised an exception, which is the cause."""

    def __init__(
        self,
        message: str,
        *,
        stage: str,
        topic: str,
        partition: int,
        offset: int | None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.stage = stage
        self.topic, self.partition, self.offset = topic, partition, offset


class StateError(StreamKitError):
    """Saved state cannot be used."""


class DataFolderInUse(StateError):
    """Another broker uses the data folder."""


class StateInUse(StateError):
    """Another run of this job uses its state store."""

    exit_code = 4


class StateMismatch(StateError):
    """The state belongs to another app or cluster, or does not match the broker's log."""


class StateTooLarge(StateError):
    """The keyed state of a job takes more memory than ``--state-memory`` allows."""


class NotFlushed(StreamKitError):
    """The deadline passed before all records were acknowledged. The job can be resumed."""

    exit_code = 3


class RemoteError(StreamKitError):
    """A function raised this in another process, with an error that cannot be pickled.

    The text has the type and the text of that error; the cause has its traceback.
    """

    def __init__(self, message: str, *, type_name: str) -> None:
        super().__init__(message)
        self.type_name = type_name


class ProcessDied(StreamKitError):
    """The process that carried out a call ended before the call did.

    ``code`` is the exit code of the process, or the negative number of the signal that killed it.
    """

    def __init__(self, message: str, *, code: int | None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ProcessNotStarted(StreamKitError):
    """No process for the calls of a function can be started, even after several attempts."""


class RegistryError(StreamKitError):
    """A schema registry cannot be reached, or refuses a request.

    It says nothing about a record, so no policy skips a record or puts it aside because of it.
    ``status`` is that of HTTP; None without a response.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool = False, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retryable = retryable


def shown(value: object) -> str:
    """Return a short text of a value for an error text; never raises, even if `repr` does."""
    try:
        written = repr(value)
    except Exception:
        return f"<a {type(value).__name__}>"
    return written if len(written) <= 80 else f"{written[:77]}..."
