"""Declared messages: frozen Structs whose annotations are the wire layout.

A field is declared as ``partition: U32``; a field that exists only in some versions adds
`since`. `struct` turns such a class into a `Wire`, so reading and writing use one declaration.

Source: docs/protocol/types.md.
"""

from __future__ import annotations

import struct as _struct
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Protocol, TypeVar, get_type_hints

import msgspec

from streamkit.errors import LocalProtocolError, RemoteProtocolError
from streamkit.limits import MAP_ENTRIES_MAX, NESTING_MAX, STRING_BYTES_MAX

T = TypeVar("T")
K = TypeVar("K")


class Reader:
    """Read the bytes of one message in order; ``at`` is the position of the next byte."""

    __slots__ = ("at", "data", "depth", "end")

    def __init__(self, data: bytes | memoryview, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end
        self.depth = 0

    def take(self, count: int) -> bytes:
        """Read ``count`` bytes.

        Raises:
            RemoteProtocolError: Fewer are left.
        """
        start = self.skip(count)
        return bytes(self.data[start : self.at])

    def skip(self, count: int) -> int:
        """Skip ``count`` bytes and return the position where they start.

        Raises:
            RemoteProtocolError: Fewer are left.
        """
        start = self.at
        if not 0 <= count <= self.end - start:
            raise RemoteProtocolError(f"{count} bytes announced, {self.end - start} left", at=start)
        self.at = start + count
        return start

    def remaining(self) -> int:
        return self.end - self.at


class Wire(Protocol[T]):
    """The wire layout of one type."""

    def read(self, reader: Reader, version: int) -> T:
        """Read a value.

        Raises:
            RemoteProtocolError: The bytes are not a valid value.
        """

    def write(self, out: bytearray, value: T, version: int) -> None:
        """Append a value.

        Raises:
            LocalProtocolError: The value does not fit the layout.
        """


class Fixed:
    """A number of fixed width, big endian."""

    def __init__(self, code: str) -> None:
        self._struct = _struct.Struct(">" + code)
        self._size = self._struct.size

    def read(self, reader: Reader, version: int) -> int:
        at = reader.skip(self._size)
        value: int = self._struct.unpack_from(reader.data, at)[0]
        return value

    def write(self, out: bytearray, value: int, version: int) -> None:
        try:
            out += self._struct.pack(value)
        except _struct.error as error:
            raise LocalProtocolError(f"{value!r} does not fit: {error}") from None


class _Bool:
    def read(self, reader: Reader, version: int) -> bool:
        at = reader.skip(1)
        byte = reader.data[at]
        if byte > 1:
            raise RemoteProtocolError(f"invalid boolean {byte}", at=at)
        return byte == 1

    def write(self, out: bytearray, value: bool, version: int) -> None:
        out.append(1 if value else 0)


class _String:
    def read(self, reader: Reader, version: int) -> str:
        at = reader.skip(2)
        length = int.from_bytes(reader.data[at : at + 2], "big", signed=True)
        if length < 0:
            raise RemoteProtocolError(f"invalid string length {length}", at=at)
        try:
            return reader.take(length).decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("string is not UTF-8", at=at + 2) from None

    def write(self, out: bytearray, value: str, version: int) -> None:
        try:
            data = value.encode()
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"{value!r} is not text: {error.reason}") from None
        if len(data) > STRING_BYTES_MAX:
            raise LocalProtocolError(f"string of {len(data)} bytes, {STRING_BYTES_MAX} allowed")
        out += len(data).to_bytes(2, "big")
        out += data


class _Bytes:
    """A u32 length and the bytes. A length that is negative as an i32 means empty."""

    def read(self, reader: Reader, version: int) -> bytes:
        return reader.take(read_count(reader))

    def write(self, out: bytearray, value: bytes, version: int) -> None:
        out += len(value).to_bytes(4, "big")
        out += value


def read_count(reader: Reader) -> int:
    """Read the count of a list; a negative count means empty."""
    at = reader.skip(4)
    return max(0, int.from_bytes(reader.data[at : at + 4], "big", signed=True))


BOOL = _Bool()
STRING = _String()
BYTES = _Bytes()

Bool = Annotated[bool, BOOL]
I8 = Annotated[int, Fixed("b")]
U8 = Annotated[int, Fixed("B")]
I16 = Annotated[int, Fixed("h")]
U16 = Annotated[int, Fixed("H")]
I32 = Annotated[int, Fixed("i")]
U32 = Annotated[int, Fixed("I")]
I64 = Annotated[int, Fixed("q")]
U64 = Annotated[int, Fixed("Q")]
Str = Annotated[str, STRING]
Bytes = Annotated[bytes, BYTES]


class option(Generic[T]):
    """A flag, then the value if the flag is 1."""

    def __init__(self, inner: Any) -> None:
        self._inner: Wire[T] = wire_of(inner)

    def read(self, reader: Reader, version: int) -> T | None:
        return self._inner.read(reader, version) if BOOL.read(reader, version) else None

    def write(self, out: bytearray, value: T | None, version: int) -> None:
        BOOL.write(out, value is not None, version)
        if value is not None:
            self._inner.write(out, value, version)


class vec(Generic[T]):
    """A u32 count, then the elements."""

    def __init__(self, inner: Any) -> None:
        self._inner: Wire[T] = wire_of(inner)

    def read(self, reader: Reader, version: int) -> tuple[T, ...]:
        at = reader.at
        count = read_count(reader)
        # Every element has at least one byte, so a count above the bytes left is invalid.
        if count > reader.remaining():
            left = reader.remaining()
            raise RemoteProtocolError(f"{count} elements announced, {left} bytes left", at=at)
        inner = self._inner
        return tuple([inner.read(reader, version) for _ in range(count)])

    def write(self, out: bytearray, value: tuple[T, ...], version: int) -> None:
        out += len(value).to_bytes(4, "big")
        for element in value:
            self._inner.write(out, element, version)


class mapping(Generic[K, T]):
    """A u16 count, then keys and values, written in ascending order of the keys."""

    def __init__(self, key: Any, value: Any) -> None:
        self._key: Wire[K] = wire_of(key)
        self._value: Wire[T] = wire_of(value)

    def read(self, reader: Reader, version: int) -> dict[K, T]:
        at = reader.skip(2)
        count = int.from_bytes(reader.data[at : at + 2], "big")
        return {
            self._key.read(reader, version): self._value.read(reader, version) for _ in range(count)
        }

    def write(self, out: bytearray, value: Mapping[K, T], version: int) -> None:
        if len(value) > MAP_ENTRIES_MAX:
            raise LocalProtocolError(f"map of {len(value)} entries, {MAP_ENTRIES_MAX} allowed")
        out += len(value).to_bytes(2, "big")

        def wire_order(key: K) -> Any:
            return key.encode(errors="surrogatepass") if isinstance(key, str) else key

        for key in sorted(value, key=wire_order):
            self._key.write(out, key, version)
            self._value.write(out, value[key], version)


class sized(Generic[T]):
    """A u32 length, then that many bytes. The value may be shorter; the rest is ignored."""

    def __init__(self, inner: Any) -> None:
        self._inner: Wire[T] = wire_of(inner)

    def read(self, reader: Reader, version: int) -> T:
        length = read_count(reader)
        start = reader.skip(length)
        inside = Reader(reader.data, start, reader.at)
        inside.depth = reader.depth
        return self._inner.read(inside, version)

    def write(self, out: bytearray, value: T, version: int) -> None:
        BYTES.write(out, encode(self._inner, value, version), version)


class since(msgspec.Struct, frozen=True):
    """The versions in which a field exists; in other versions it has its default."""

    first: int
    last: int = 32_767

    def holds(self, version: int) -> bool:
        return self.first <= version <= self.last


ALWAYS = since(-32_768)


class struct(Generic[T]):
    """The fields of a `msgspec.Struct` in order."""

    def __init__(self, cls: type[T]) -> None:
        self.cls = cls
        hints = get_type_hints(cls, include_extras=True)
        assert issubclass(cls, msgspec.Struct)
        self._fields: list[tuple[str, Wire[Any], since]] = []
        for name in cls.__struct_fields__:
            marks = hints[name].__metadata__
            wires = [mark for mark in marks if not isinstance(mark, since)]
            gates = [mark for mark in marks if isinstance(mark, since)] or [ALWAYS]
            self._fields.append((name, wires[-1], gates[0]))

    def read(self, reader: Reader, version: int) -> T:
        reader.depth += 1
        if reader.depth > NESTING_MAX:
            raise RemoteProtocolError(f"nested deeper than {NESTING_MAX}", at=reader.at)
        values = {
            name: wire.read(reader, version)
            for name, wire, gate in self._fields
            if gate.holds(version)
        }
        reader.depth -= 1
        return self.cls(**values)

    def write(self, out: bytearray, value: T, version: int) -> None:
        for name, wire, gate in self._fields:
            if gate.holds(version):
                wire.write(out, getattr(value, name), version)


class union(Generic[T]):
    """A u8 tag, then the fields of the variant with that tag."""

    def __init__(self, variants: Mapping[int, type[Any]]) -> None:
        self._by_tag: dict[int, Wire[Any]] = {tag: struct(cls) for tag, cls in variants.items()}
        self._tag_of = {cls: tag for tag, cls in variants.items()}

    def read(self, reader: Reader, version: int) -> T:
        at = reader.skip(1)
        tag = reader.data[at]
        if tag not in self._by_tag:
            raise RemoteProtocolError(f"unknown tag {tag}", at=at)
        value: T = self._by_tag[tag].read(reader, version)
        return value

    def write(self, out: bytearray, value: T, version: int) -> None:
        tag = self._tag_of[type(value)]
        out.append(tag)
        self._by_tag[tag].write(out, value, version)


class converted(Generic[T]):
    """A value with another type on the wire, such as an enum sent as its number."""

    def __init__(self, inner: Any, load: Callable[[Any], T], dump: Callable[[T], Any]) -> None:
        self._inner: Wire[Any] = wire_of(inner)
        self._load = load
        self._dump = dump

    def read(self, reader: Reader, version: int) -> T:
        at = reader.at
        raw = self._inner.read(reader, version)
        try:
            return self._load(raw)
        except ValueError as error:
            raise RemoteProtocolError(str(error), at=at) from None

    def write(self, out: bytearray, value: T, version: int) -> None:
        self._inner.write(out, self._dump(value), version)


def wire_of(kind: Any) -> Wire[Any]:
    """Return the layout of an annotated alias, a Struct, or a layout itself."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return struct(kind)
    metadata = getattr(kind, "__metadata__", None)
    wire: Wire[Any] = metadata[-1] if metadata else kind
    return wire


def decode(wire: Wire[T], data: bytes, version: int, at: int = 0) -> T:
    """Decode one message. Bytes after it are ignored, as in every Fluvio client and server.

    Raises:
        RemoteProtocolError: The bytes are not a valid message.
    """
    return wire.read(Reader(data, at), version)


def encode(wire: Wire[T], value: T, version: int) -> bytes:
    """Encode one message.

    Raises:
        LocalProtocolError: A value does not fit the layout.
    """
    out = bytearray()
    wire.write(out, value, version)
    return bytes(out)
