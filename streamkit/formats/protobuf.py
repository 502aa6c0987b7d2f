"""Protobuf messages of generated classes. protobuf is not imported: the user's classes do that."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Final

from streamkit.errors import RegistryError, TopologyError
from streamkit.formats import framing
from streamkit.formats.format import (
    Format,
    described,
    reading,
    shown_type,
    unreadable,
    unwritable,
)
from streamkit.formats.registry import Reference, Schema, SchemaRegistry
from streamkit.record import Kind, Value
from streamkit.serde.binding import BoundFormat, Usage
from streamkit.serde.kinds import is_message

# Every registry knows these files.
_KNOWN_FILES: Final = "google/protobuf/"


@dataclass(frozen=True)
class Protobuf(Format):
    """Messages of a class that ``protoc`` has generated.

    Install protobuf with ``pip install 'fluvio-streamkit[protobuf]'``. A field that the class does
    not know is kept, as Protobuf defines it. So bytes of another message may be valid.

    With a registry, values begin with the id of their schema and the place of the message in its
    file. Reading does not ask the registry, because the class is the schema.

    Args:
        type: The class; by default the annotated one.
        registry: Where the schema is registered.
    """

    _: KW_ONLY
    registry: SchemaRegistry | None = None

    def for_use(self, usage: Usage) -> BoundFormat:
        kind = self._kind(usage)
        if not is_message(kind):
            name = "an unknown type" if kind is None else shown_type(kind)
            raise TopologyError(
                f"Protobuf cannot represent values of {name}",
                hint="name a class that protoc has generated: Protobuf(Order), or annotate it",
            )
        what = described("Protobuf", kind)
        # Equal keys must have equal bytes.
        encode = _encoder(kind, what, is_deterministic=usage.part == "key")
        if self.registry is None:
            return BoundFormat(reading(what, kind.FromString), encode)
        decode = _framed_decoder(kind, indexes_of(kind.DESCRIPTOR), what)
        return BoundFormat(decode, _FramedWriter(kind, self.registry, usage, encode).dumps)


def indexes_of(descriptor: Any) -> list[int]:
    """Return the place of a message in its file: its index, after those of the messages around."""
    outer = descriptor.containing_type
    siblings = (
        descriptor.file.message_types_by_name if outer is None else outer.nested_types_by_name
    )
    index = list(siblings.values()).index(descriptor)
    return [index] if outer is None else [*indexes_of(outer), index]


def _encoder(kind: Kind, what: str, *, is_deterministic: bool) -> Callable[[Value], bytes]:
    plain: Callable[..., bytes] = kind.SerializeToString
    serialize = partial(plain, deterministic=True) if is_deterministic else plain

    def dumps(value: Value) -> bytes:
        if type(value) is not kind:
            error = TypeError(f"the value is {type(value).__name__}, not {kind.__name__}")
            raise unwritable(error, what)
        try:
            return serialize(value)
        except Exception as error:
            raise unwritable(error, what) from error

    return dumps


def _framed_decoder(kind: Kind, own: list[int], what: str) -> Callable[[bytes], Value]:
    start = framing.FRAME_BYTES
    expected = framing.indexes(own)
    end = start + len(expected)
    decode = kind.FromString

    def loads(data: bytes) -> Value:
        try:
            if data[:1] == b"\0" and data[start:end] == expected:
                return decode(data[end:])
            return decode(data[_checked_end(data, own) :])
        except Exception as error:
            raise unreadable(error, what) from error

    return loads


def _checked_end(data: bytes, own: list[int]) -> int:
    """Return where the message begins whose indexes are written in another way.

    Raises:
        ValueError: The bytes do not begin with an id and the indexes of the message.
    """
    framing.schema_id(data)
    found, end = framing.read_indexes(data)
    if found != own:
        raise framing.InvalidFrame(f"it is the message {found} of its file, not {own}")
    return end


class _FramedWriter:
    """Writes messages after the id of their schema, which the first one asks for."""

    def __init__(
        self,
        kind: Kind,
        registry: SchemaRegistry,
        usage: Usage,
        encode: Callable[[Value], bytes],
    ) -> None:
        self._kind = kind
        self._registry = registry
        self._usage = usage
        self._encode = encode
        self._prefix = b""

    def dumps(self, value: Value) -> bytes:
        data = self._encode(value)
        try:
            return (self._prefix or self._found()) + data
        except Exception as error:
            raise unwritable(error, described("Protobuf", self._kind)) from error

    def _found(self) -> bytes:
        descriptor, registry = self._kind.DESCRIPTOR, self._registry
        subject = registry.subject_of(self._usage, lambda: str(descriptor.full_name))
        if registry.registers:
            schema_id = registry.id_of(subject, _schema_of(descriptor.file, registry))
        else:
            schema_id, schema = registry.latest(subject)
            if schema.type != "PROTOBUF":
                raise RegistryError(
                    f"the latest schema of the subject {subject!r} is {schema.type}, not PROTOBUF"
                )
        self._prefix = framing.frame(schema_id) + framing.indexes(indexes_of(descriptor))
        return self._prefix


def _schema_of(file: Any, registry: SchemaRegistry) -> Schema:
    """Return the schema of a file, whose imports are registered under their own names."""
    references = []
    for each in file.dependencies:
        if not each.name.startswith(_KNOWN_FILES):
            schema = _schema_of(each, registry)
            registry.id_of(each.name, schema)
            version = registry.version_of(each.name, schema)
            references.append(Reference(each.name, each.name, version))
    return Schema(b64encode(file.serialized_pb).decode(), "PROTOBUF", tuple(references))
