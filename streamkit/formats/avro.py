"""Avro in its binary form, with a schema of its own, of a file, of a type, or of a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamkit.errors import ConfigError, DataError, RegistryError, TopologyError, UsageError
from streamkit.formats import framing
from streamkit.formats import registry as registries
from streamkit.formats.avro_types import Schema, misfits, schema_of, shape_of
from streamkit.formats.format import (
    Format,
    described,
    missing_library,
    shown_type,
    unreadable,
    unwritable,
)
from streamkit.record import Kind, Value
from streamkit.serde.binding import BoundFormat, Usage

if TYPE_CHECKING:
    from types import ModuleType

    from streamkit.formats.avro_coding import ReadDatum, WriteDatum


@dataclass(frozen=True)
class Avro(Format):
    """Avro in its binary form. Needs fastavro: ``pip install 'fluvio-streamkit[avro]'``.

    Without a schema, that of the type is used. With a registry, values begin with the id of their
    schema; without one, they have been written with ``writer_schema``, or else with the schema.

    Args:
        type: The type of the values; by default the annotated one. For ``dict`` and ``Any``, a
            value is what fastavro reads.
        schema: The schema, as a text or as the objects of its JSON.
        schema_file: A file with the schema, usually ``.avsc``. Types that it does not define are
            read from files next to it: ``com.shop.Item`` from ``com.shop.Item.avsc``.
        writer_schema: The schema of stored values, if it is another one: a text, objects or a
            `pathlib.Path`. Values are resolved to the schema, as Avro defines it.
        registry: Where schemas are found by their ids, and registered.

    Raises:
        UsageError: The schema is not valid, a file cannot be read, or fastavro is not installed.
    """

    _: KW_ONLY
    schema: Schema = None
    schema_file: str | Path | None = None
    writer_schema: Schema = None
    registry: registries.SchemaRegistry | None = None

    def __post_init__(self) -> None:
        if self.schema is not None and self.schema_file is not None:
            raise UsageError("an Avro format has either schema= or schema_file=")
        if self.writer_schema is not None and self.registry is not None:
            raise UsageError(
                "writer_schema= has no effect with a registry, which knows the schema of each value"
            )
        coding()  # an error here has the line of the user

    def for_use(self, usage: Usage) -> BoundFormat:
        kind = self._kind(usage)
        schemas = _Schemas(self, kind if _is_typed(kind) else None, usage)
        if self.registry is None:
            return _unframed(schemas)
        reader = _FramedReader(self.registry, schemas)
        return BoundFormat(reader.loads, _FramedWriter(self.registry, schemas).dumps)


def written_schema(form: Avro, usage: Usage) -> str:
    """Return the schema that a format writes values with, as JSON.

    Raises:
        TopologyError: There is none.
    """
    kind = form._kind(usage)
    return _Schemas(form, kind if _is_typed(kind) else None, usage).text


class _Schemas:
    """The type and the schema of one use of a format.

    Args:
        form: The format.
        kind: The type of the values; None if they are what fastavro reads.
        usage: Where they are used.

    Raises:
        TopologyError: Neither gives a schema, or they do not fit.
    """

    def __init__(self, form: Avro, kind: Kind, usage: Usage) -> None:
        self._form = form
        self.kind = kind
        self.usage = usage
        self.what = described("Avro", kind)
        self.given = _given_schema(form)
        self.stored = None if form.writer_schema is None else _parsed(form.writer_schema)
        # A type without a schema is written with the latest one of its subject.
        self.uses_latest = (
            form.registry is not None
            and self.given is None
            and (kind is None or not form.registry.registers)
        )
        self.convert = _converter_of(kind)
        if usage.is_written and not self.uses_latest:
            self.refuse_misfit(self.own)

    @cached_property
    def own(self) -> Schema:
        """The schema that values are written with, unless a registry says it."""
        if self.given is None and self.kind is not None:
            return coding().parsed(schema_of(self.kind))
        found = self.stored if self.given is None else self.given
        if found is None:
            raise TopologyError(
                "Avro needs a schema or a type",
                hint="use Avro(Order), Avro(schema_file=...), or annotate the type of the values",
            )
        return found

    @property
    def text(self) -> str:
        """The schema that values are written with, as the user has written it if he has."""
        if self._form.schema_file is not None:
            return str(coding().text_in(self._form.schema_file))
        if isinstance(self._form.schema, str) and self._form.schema.lstrip()[:1] in ("{", "["):
            return self._form.schema
        return str(coding().text_of(self._form.schema or self.own))

    def refuse_misfit(self, schema: Schema) -> None:
        """Refuse a schema that the type does not fit.

        Raises:
            TopologyError: Values of the type cannot be written with it.
        """
        if self.kind is None:
            return
        problem = next(misfits(shape_of(self.kind), schema), None)
        if problem is not None:
            raise TopologyError(f"values of {shown_type(self.kind)} cannot be written: {problem}")

    def writer(self, schema: Schema) -> WriteDatum:
        """Return a function that writes values with a schema."""
        native = coding().native_types(schema)
        write = coding().datum_writer(schema, is_strict=self.kind is None)

        def write_converted(stream: BytesIO, value: Value) -> None:
            write(stream, msgspec.to_builtins(value, builtin_types=native, str_keys=True))

        def write_as_it_is(stream: BytesIO, value: Value) -> None:
            start = stream.tell()
            try:
                write(stream, value)
            except Exception:  # perhaps only because it contains an enum or a Struct
                stream.seek(start)
                stream.truncate()
                write_converted(stream, value)

        return write_converted if self.kind is not None else write_as_it_is


def _unframed(schemas: _Schemas) -> BoundFormat:
    """Return the format of values without the id of a schema."""
    what, convert, stored = schemas.what, schemas.convert, schemas.stored
    read = (
        coding().datum_reader(schemas.own)
        if stored is None
        else coding().datum_reader(stored, schemas.given)
    )
    write: WriteDatum | None = None

    def loads(data: bytes) -> Value:
        try:
            return convert(read(BytesIO(data)))
        except Exception as error:
            raise unreadable(_clear(error), what) from error

    def dumps(value: Value) -> bytes:
        nonlocal write
        stream = BytesIO()
        try:
            if write is None:
                schemas.refuse_misfit(schemas.own)
                write = schemas.writer(schemas.own)
            write(stream, value)
        except Exception as error:
            raise unwritable(error, what) from error
        return stream.getvalue()

    return BoundFormat(loads, dumps)


class _FramedReader:
    """Reads values that begin with the id of their schema."""

    def __init__(self, registry: registries.SchemaRegistry, schemas: _Schemas) -> None:
        self._registry = registry
        self._schemas = schemas
        # The readers by the first bytes of a value, which contain the id.
        self._readers: dict[bytes, ReadDatum] = {}

    def loads(self, data: bytes) -> Value:
        try:
            read = self._readers.get(data[: framing.FRAME_BYTES])
            if read is None:
                read = self._found(data)
            stream = BytesIO(data)
            stream.seek(framing.FRAME_BYTES)
            return self._schemas.convert(read(stream))
        except Exception as error:
            raise unreadable(_clear(error), self._schemas.what) from error

    def _found(self, data: bytes) -> ReadDatum:
        schema_id = framing.schema_id(data)
        schema = _avro(self._registry.schema(schema_id), f"the schema with the id {schema_id}")
        writer = coding().parsed(schema.text, _referred(self._registry, schema))
        read: ReadDatum = coding().datum_reader(writer, self._schemas.given)
        self._readers[data[: framing.FRAME_BYTES]] = read
        return read


class _FramedWriter:
    """Writes values after the id of their schema, which the first value asks for."""

    def __init__(self, registry: registries.SchemaRegistry, schemas: _Schemas) -> None:
        self._registry = registry
        self._schemas = schemas
        self._frame = b""
        self._write: WriteDatum | None = None

    def dumps(self, value: Value) -> bytes:
        try:
            write = self._write or self._found()
            stream = BytesIO(self._frame)
            stream.seek(framing.FRAME_BYTES)
            write(stream, value)
            return stream.getvalue()
        except Exception as error:
            raise unwritable(error, self._schemas.what) from error

    def _found(self) -> WriteDatum:
        schema_id, schema = self._latest() if self._schemas.uses_latest else self._registered()
        self._frame = framing.frame(schema_id)
        self._write = self._schemas.writer(schema)
        return self._write

    def _registered(self) -> tuple[int, Schema]:
        own = self._schemas.own
        self._schemas.refuse_misfit(own)
        subject = self._registry.subject_of(self._schemas.usage, lambda: coding().name_of(own))
        return self._registry.id_of(subject, registries.Schema(self._schemas.text)), own

    def _latest(self) -> tuple[int, Schema]:
        subject = self._registry.subject_of(
            self._schemas.usage, lambda: _record_name(self._schemas.kind)
        )
        schema_id, found = self._registry.latest(subject)
        what = f"the latest schema of the subject {subject!r}"
        try:
            schema = coding().parsed(_avro(found, what).text, _referred(self._registry, found))
            self._schemas.refuse_misfit(schema)
        except (ConfigError, DataError) as error:  # which is not the fault of a record
            raise RegistryError(f"{what} cannot be used: {error}") from error
        return schema_id, schema


@cache
def coding() -> ModuleType:
    """Return the module that uses fastavro.

    Raises:
        UsageError: fastavro is not installed.
    """
    try:
        from streamkit.formats import avro_coding  # only users of Avro need its library
    except ImportError:
        raise missing_library("fastavro", "avro", "Avro") from None
    return avro_coding


def _given_schema(form: Avro) -> Schema:
    if form.schema_file is not None:
        return coding().loaded(form.schema_file)
    return None if form.schema is None else _parsed(form.schema)


def _parsed(schema: Schema) -> Schema:
    return coding().loaded(schema) if isinstance(schema, Path) else coding().parsed(schema)


def _is_typed(kind: Kind) -> bool:
    """Return whether values are converted to a type after fastavro has read them."""
    return kind not in (None, Any, dict, dict[str, Any])


def _record_name(kind: Kind) -> str:
    if kind is None:
        raise UsageError(
            "the subject of a schema depends on the record, which is not known without a type",
            hint='name the type, or use SchemaRegistry(..., subject="topic")',
        )
    return shown_type(kind)


def _avro(schema: registries.Schema, what: str) -> registries.Schema:
    if schema.type != "AVRO":
        raise DataError(f"{what} is {schema.type}, not AVRO")
    return schema


def _referred(registry: registries.SchemaRegistry, schema: registries.Schema) -> dict[str, str]:
    """Return the texts of the schemas that a schema names, those that they name before them."""
    found: dict[str, str] = {}

    def collect(outer: registries.Schema) -> None:
        for each in outer.references:
            if each.name not in found:
                inner = registry.referred(each)
                collect(inner)
                found[each.name] = inner.text

    collect(schema)
    return found


def _converter_of(kind: Kind) -> Callable[[Value], Value]:
    if kind is None:
        return lambda datum: datum
    # Otherwise msgspec would read a text as base64 where the type is bytes.
    return lambda datum: msgspec.convert(datum, kind, builtin_types=(bytes,), str_keys=True)


def _clear(error: Exception) -> Exception:
    """Return an error whose text says what is wrong with the bytes."""
    if isinstance(error, EOFError):
        return ValueError(f"truncated: {error}".rstrip(": "))
    if isinstance(error, IndexError):
        return ValueError("truncated, or the number of a branch or symbol is too large")
    return error
