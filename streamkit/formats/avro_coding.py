"""Reads and writes Avro with fastavro, which only this module imports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import fastavro
import fastavro.schema
from fastavro import _read_py, _write_py

from streamkit.errors import UsageError
from streamkit.formats.avro_checks import check_of
from streamkit.formats.avro_types import Schema
from streamkit.record import Value

ReadDatum = Callable[[BytesIO], Value]
WriteDatum = Callable[[BytesIO, Value], None]
# Pairs of the schemas of other records and of this one, as texts.
Named = dict[str, Any]


_BYTES: Final = frozenset({"bytes", "fixed"})
# The types that fastavro writes itself, and where.
_NATIVE: Final[dict[type, frozenset[str]]] = {
    datetime: frozenset(
        f"{prefix}timestamp-{unit}" for prefix in ("", "local-") for unit in ("millis", "micros")
    ),
    date: frozenset({"date"}),
    time: frozenset({"time-millis", "time-micros"}),
    Decimal: frozenset({"decimal"}),
    UUID: frozenset({"uuid"}),
    bytes: _BYTES,
    bytearray: _BYTES,
    memoryview: _BYTES,
}


class TrailingBytes(ValueError):
    """Bytes follow after a value."""


def parsed(schema: Schema, references: Mapping[str, str] | None = None) -> Schema:
    """Return a schema as fastavro uses it.

    Args:
        schema: A text, or the objects of its JSON.
        references: Texts of other schemas that it names, those that they name before them.

    Raises:
        UsageError: The schema is not valid.
    """
    named: Named = {}
    try:
        for text in (references or {}).values():
            fastavro.parse_schema(json.loads(text), named_schemas=named)
        found = fastavro.parse_schema(_objects(schema), named_schemas=dict(named))
        return fastavro.parse_schema(_inlined(_without_marks(found), named)) if named else found
    except Exception as error:  # fastavro raises several kinds for schemas that are not valid
        raise UsageError(f"the Avro schema is not valid: {error}") from error


def loaded(path: str | Path) -> Schema:
    """Read a schema from a file; types that it does not define are in files with their names.

    Raises:
        UsageError: The file cannot be read, or its schema is not valid.
    """
    try:
        return fastavro.schema.load_schema(str(path))
    except Exception as error:  # fastavro raises several kinds for files that are not valid
        raise UsageError(f"the Avro schema in {path} cannot be used: {error}") from error


def text_of(schema: Schema) -> str:
    """Return the text of a schema, complete in itself."""
    return json.dumps(_without_marks(schema), separators=(",", ":"), ensure_ascii=False)


def text_in(path: str | Path) -> str:
    """Return the text of the schema in a file, with the types from other files if it names any."""
    text = Path(path).read_text(encoding="utf-8")
    try:
        fastavro.parse_schema(json.loads(text))
    except fastavro.schema.UnknownType:
        return text_of(loaded(path))
    return text


def name_of(schema: Schema) -> str:
    """Return the full name of a record; for other schemas, that of their type."""
    found = schema.get("name", schema["type"]) if isinstance(schema, dict) else schema
    return str(found) if isinstance(found, str) else "union"


def native_types(schema: Schema) -> tuple[type, ...]:
    """Return the types that fastavro writes itself; values of other types are given as texts."""
    names = {
        name
        for part in _parts(schema)
        for name in ((part,) if isinstance(part, str) else _names_in(part))
    }
    return tuple(kind for kind, logical in _NATIVE.items() if not names.isdisjoint(logical))


def _names_in(schema: Schema) -> tuple[Any, ...]:
    if isinstance(schema, list):
        return ()
    return tuple(each for each in (schema["type"], schema.get("logicalType")) if type(each) is str)


def datum_reader(writer: Schema, reader: Schema | None = None) -> ReadDatum:
    """Return a function that reads the rest of a stream as one value.

    Args:
        writer: The schema that values were written with.
        reader: The schema that they are resolved to.

    Raises:
        UsageError: Values of the schema could take any amount of memory.
    """
    for item in _endless(writer):
        raise UsageError(
            f"the Avro schema has an array of {item}, whose items need no bytes: a few bytes could "
            "fill the memory"
        )
    # The C code of fastavro does not limit how deeply a value is nested: it would crash.
    read = _read_py.schemaless_reader if _is_recursive(writer) else fastavro.schemaless_reader

    def read_datum(stream: BytesIO) -> Value:
        datum = read(stream, writer, reader)
        rest = stream.read(8)
        if rest:
            raise TrailingBytes(f"trailing bytes after the value: {rest.hex(' ')}...")
        return datum

    return read_datum


def blocks_of(file: Any) -> Iterator[Any]:
    """Return the blocks of an Avro file, of which each gives its records.

    The header is read at once. ``file`` needs only ``read`` and ``tell``.

    Raises:
        Exception: The header is not valid. fastavro has no common class.
    """
    found = fastavro.block_reader(file)
    if _is_recursive(found.writer_schema):
        # The C code of fastavro does not limit how deeply a value is nested: it would crash.
        raise ValueError("its records contain themselves, which is not supported")
    return cast("Iterator[Any]", found)


def datum_writer(schema: Schema, *, is_strict: bool) -> WriteDatum:
    """Return a function that writes a value to a stream.

    Args:
        schema: The schema of the values.
        is_strict: Refuse fields that the schema does not have.
    """
    check = check_of(schema)
    write: Callable[..., None] = fastavro.schemaless_writer
    if _is_recursive(schema):
        write = cast("Callable[..., None]", _write_py.schemaless_writer)

    def write_datum(stream: BytesIO, datum: Value) -> None:
        if check is not None:
            check(datum)
        write(stream, schema, datum, strict_allow_default=is_strict)

    return write_datum


def _objects(schema: Schema) -> Schema:
    """Return a schema as the objects of its JSON; a text may also be the name of a type."""
    if not isinstance(schema, str) or schema.strip().isalnum():
        return schema
    return json.loads(schema)


def _inlined(schema: Schema, named: Named) -> Schema:
    """Return a schema that contains the types that it names; ``named`` gives them up."""
    if isinstance(schema, str):
        return _inlined(_without_marks(named.pop(schema)), named) if schema in named else schema
    if isinstance(schema, list):
        return [_inlined(each, named) for each in schema]
    found = dict(schema)
    for name in ("items", "values", "type"):
        if name in found:
            found[name] = _inlined(found[name], named)
    if "fields" in found:
        found["fields"] = [
            {**each, "type": _inlined(each["type"], named)} for each in found["fields"]
        ]
    return found


def _without_marks(schema: Schema) -> Schema:
    """Return a schema without what fastavro adds when it parses."""
    if isinstance(schema, list):
        return [_without_marks(each) for each in schema]
    if isinstance(schema, dict):
        return {
            name: _without_marks(part) for name, part in schema.items() if not name.startswith("__")
        }
    return schema


def _inner(schema: Schema) -> list[Schema]:
    """Return the schemas that a schema consists of."""
    if isinstance(schema, list):
        return schema
    if isinstance(schema, str):
        return []
    inner = [schema[each] for each in ("items", "values") if each in schema]
    inner += [each["type"] for each in schema.get("fields", ())]
    return inner if isinstance(schema["type"], str) else [*inner, schema["type"]]


def _parts(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and all schemas in it, each definition once."""
    yield schema
    for each in _inner(schema):
        yield from _parts(each)


def _is_recursive(schema: Schema, within: tuple[str, ...] = ()) -> bool:
    """Return whether a record contains itself."""
    if isinstance(schema, str):
        return schema in within
    if isinstance(schema, dict) and "fields" in schema:
        within = (*within, schema["name"])
    return any(_is_recursive(each, within) for each in _inner(schema))


def _endless(schema: Schema) -> Iterator[str]:
    """Yield the items of arrays that need no bytes."""
    named = {each["name"]: each for each in _parts(schema) if _has_name(each)}
    for part in _parts(schema):
        is_array = isinstance(part, dict) and part["type"] == "array"
        if is_array and _needs_no_bytes(part["items"], named):
            yield name_of(part["items"])


def _has_name(schema: Schema) -> bool:
    return isinstance(schema, dict) and "name" in schema


def _needs_no_bytes(schema: Schema, named: dict[str, Schema], depth: int = 0) -> bool:
    if isinstance(schema, str):
        schema = named.get(schema, schema)
    if isinstance(schema, str):
        return schema == "null"
    if isinstance(schema, list) or depth > len(named):
        return False
    if "fields" in schema:
        return all(_needs_no_bytes(e["type"], named, depth + 1) for e in schema["fields"])
    return bool(schema.get("size") == 0 or schema["type"] == "null")
