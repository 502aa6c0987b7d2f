"""Reads and writes pydantic models. pydantic is not imported: the user's code has imported it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, get_args

from streamkit.serde.kinds import bare, classes_in, is_pydantic


def holds_pydantic(kind: Any) -> bool:
    """Return whether a type is a pydantic model, or contains one."""
    if "pydantic" not in sys.modules:
        return False
    kind = bare(kind)
    if is_pydantic(kind) or any(map(holds_pydantic, get_args(kind))):
        return True
    try:
        return any(map(is_pydantic, classes_in(kind)))
    except Exception:  # the error is reported later, where the type is used
        return False


def pydantic_loads(kind: Any) -> Callable[[bytes], Any]:
    """Return a function that reads values of a type from JSON."""
    loads: Callable[[bytes], Any] = _adapter(kind).validate_json
    return loads


def pydantic_dumps(kind: Any) -> Callable[[Any], bytes]:
    """Return a function that writes values of a type as JSON that `pydantic_loads` can read.

    Raises:
        TypeError: A field of a model is written in a form that cannot be read back.
    """
    for problem in _problems(kind, set()):
        raise TypeError(problem)
    # By alias and without computed fields, because validation accepts only that form; a value
    # of another type is an error, not a warning.
    return partial(_adapter(kind).dump_json, by_alias=True, round_trip=True, warnings="error")


def dump_model(value: Any) -> bytes:
    """Write one model as JSON."""
    kind: Any = type(value)
    return _dumps_of(kind)(value)


@cache
def _dumps_of(kind: Any) -> Callable[[Any], bytes]:
    return pydantic_dumps(kind)


def _adapter(kind: Any) -> Any:
    return sys.modules["pydantic"].TypeAdapter(kind)


def _problems(kind: Any, seen: set[Any]) -> Iterator[str]:
    """Yield the fields of models that are not read back as they were written."""
    for argument in get_args(kind):
        yield from _problems(argument, seen)
    if not is_pydantic(kind) or kind in seen:
        return
    seen.add(kind)
    fields = getattr(kind, "__pydantic_fields__", {})
    serialized = _names_with_serializers(kind)
    for name, field in fields.items():
        problem = _problem(kind, name, field) if name not in serialized else ""
        if problem:
            yield f"the field {name!r} of {kind.__name__} {problem}"
        yield from _problems(field.annotation, seen)


def _problem(kind: Any, name: str, field: Any) -> str:
    if field.exclude:
        return "is excluded from JSON, but is required" if field.is_required() else ""
    written = field.serialization_alias or name
    readable = _readable_names(kind, name, field)
    if written not in readable:
        return f"is written as {written!r}, but is read from {', '.join(sorted(readable))!r}"
    if any(map(_is_secret, (field.annotation, *get_args(field.annotation)))):
        return "is a secret, which pydantic writes as asterisks: add a field_serializer"
    return ""


def _readable_names(kind: Any, name: str, field: Any) -> set[str]:
    """Return the names from which validation reads a field."""
    alias = field.validation_alias
    choices = getattr(alias, "choices", [alias])
    first = [getattr(each, "path", [each])[0] for each in choices]
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", {})
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    names = {each for each in first if isinstance(each, str)}
    return names | {name} if by_name or not names else names


def _names_with_serializers(kind: Any) -> set[str]:
    serializers = getattr(kind, "__pydantic_decorators__", None)
    found = getattr(serializers, "field_serializers", {}).values()
    return {name for each in found for name in each.info.fields}


def _is_secret(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "get_secret_value")
