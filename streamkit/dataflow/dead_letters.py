"""Dead letters: a record that failed, with its error, as another place stores it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

import msgspec

from streamkit.dataflow.topology import NAME_BYTES_MAX, Node
from streamkit.errors import DataError
from streamkit.record import Kind, Record
from streamkit.serde.binding import BoundFormat
from streamkit.serde.json_values import encode_json
from streamkit.serde.kinds import in_record, is_message
from streamkit.serde.values import encoder_for, format_for


class Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One dead letter.

    ``topic``, ``partition`` and ``offset`` are where the record came from. ``value`` is the input
    of the stage that failed, as text; ``value_base64`` is it if it is not text. If
    ``is_replayable`` is false, ``value`` only shows it: it could not be written and read back.
    """

    app: str
    stage: str
    topic: str
    partition: int
    offset: int
    error_type: str
    error: str
    attempts: int
    failed_at_ms: int
    version: str = ""
    timestamp_ms: int = -1
    key: str | None = None
    key_base64: str | None = None
    value: str | None = None
    value_base64: str | None = None
    is_replayable: bool = True
    stack: str = ""

    @property
    def key_bytes(self) -> bytes | None:
        """The key of the record."""
        return _bytes_of(self.key, self.key_base64)

    @property
    def value_bytes(self) -> bytes:
        """The input of the stage, encoded."""
        return _bytes_of(self.value, self.value_base64) or b""


encode_letter = msgspec.json.Encoder().encode
_decode_letter = msgspec.json.Decoder(Letter).decode


def decode_letter(data: bytes) -> Letter:
    """Read a dead letter.

    Raises:
        DataError: The bytes are not one.
    """
    try:
        letter = _decode_letter(data)
        for text in (letter.key_base64, letter.value_base64):
            b64decode(text or "")
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise DataError(f"this is not a dead letter: {error}") from None
    return letter


def replay_source(topic: str) -> str:
    """Return the name of the source that replays a topic; it owns the positions of the replays."""
    return f"replay-{topic}"[:NAME_BYTES_MAX]


def text_fields(name: str, data: bytes | None) -> dict[str, str]:
    """Return the field of a letter that holds some bytes: as text, or in base64."""
    if data is None:
        return {}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def _bytes_of(text: str | None, in_base64: str | None) -> bytes | None:
    if in_base64 is not None:
        return b64decode(in_base64)
    return None if text is None else text.encode()


@dataclass(frozen=True, slots=True)
class InputFormat:
    """How the inputs of a stage are written into letters and read again."""

    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any] | None
    as_record: bool

    def written(self, value: Any) -> bytes | None:
        """Return a value as bytes; None if it could not be read back."""
        try:
            data = self.dumps(value)
            inner = value.value if isinstance(value, Record) else value
            read = data if self.loads is None else self.loads(data)
            return data if type(data) is bytes and read == inner else None
        except Exception:  # of the format, or of a class of the user
            return None


def input_kind(node: Node) -> Any:
    """Return the type of the inputs of a node; None if it is not known."""
    if node.kind == "source":
        return bytes
    kinds = [each.value_type for each in node.inputs]
    if len(kinds) == 1:
        return node.input_type if node.input_type is not None else kinds[0]
    return None if None in kinds else Union[tuple(kinds)]  # noqa: UP007


def input_format(node: Node) -> InputFormat:
    """Return how the inputs of a stage are written and read."""
    kind = input_kind(node)
    try:
        found = format_for(kind, _message_format(in_record(kind)))
        dumps = encode_json if kind is None else _dumps_of(in_record(kind))
    except Exception:  # values of this type have no format: letters only show them
        return InputFormat(_refuse, None, False)
    if not found.as_record:
        return InputFormat(dumps, found.loads, False)
    return InputFormat(lambda record: dumps(record.value), found.loads, True)


def _message_format(kind: Kind) -> BoundFormat | None:
    """Return the format of messages of Protobuf, which have no other; None for other types."""
    if not is_message(kind):
        return None
    return BoundFormat(kind.FromString, lambda message: bytes(message.SerializeToString()))


def _dumps_of(kind: Kind) -> Callable[[Any], bytes]:
    form = _message_format(kind)
    return encoder_for(kind).dumps if form is None else form.dumps


def _refuse(value: Any) -> bytes:
    raise TypeError(f"values of type {type(value).__name__} have no format")
