"""Finds what fastavro would change in silence when it writes: fractions, 32 bits, time zones.

A check is made once for a schema. It gets what fastavro gets: dicts, lists and simple values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, Final

from streamkit.formats.avro_types import Schema

Check = Callable[[Any], None]
_INT_MAX: Final = 2**31 - 1
_FLOAT_MAX: Final = 3.4028235677973366e38  # larger numbers are rounded to infinity


class Changed(ValueError):
    """A value would be written as another one; ``path`` leads to it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.path = ""

    def __str__(self) -> str:
        return f"{self.text} - at `${self.path}`" if self.path else self.text


def check_of(schema: Schema) -> Check | None:
    """Return a check for values of a schema; None if fastavro itself refuses all wrong values.

    Args:
        schema: As fastavro parses it.
    """
    return _Checks().of(schema)


class _Checks:
    """Makes the checks of one schema; named types may contain themselves."""

    def __init__(self) -> None:
        self._named: dict[str, Check] = {}

    def of(self, schema: Schema) -> Check | None:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return _SIMPLE.get(schema) or self._by_name(schema)
        logical = schema.get("logicalType", "")
        if logical in _LOGICAL:
            return _LOGICAL[logical]
        match schema["type"]:
            case "record" | "error":
                return self._record(schema)
            case "array":
                return self._items(schema["items"])
            case "map":
                return self._values(schema["values"])
            case "enum" | "fixed":
                self._named[schema["name"]] = _nothing
                return None
            case inner:
                return None if logical == "decimal" else self.of(inner)

    def _by_name(self, name: str) -> Check | None:
        if self._named.get(name) is _nothing or name in ("string", "bytes"):
            return None
        return lambda value: self._named.get(name, _nothing)(value)

    def _record(self, schema: Schema) -> Check:
        checks: list[tuple[str, Check]] = []

        def check(record: Any) -> None:
            if not isinstance(record, dict):
                raise Changed(f"{type(record).__name__} is not a record")
            for name, of_field in checks:
                if name in record:
                    try:
                        of_field(record[name])
                    except Changed as error:
                        error.path = f".{name}{error.path}"
                        raise

        self._named[schema["name"]] = check
        for each in schema["fields"]:
            found = self.of(each["type"])
            if found is not None:
                checks.append((each["name"], found))
        return check

    def _items(self, schema: Schema) -> Check | None:
        of_item = self.of(schema)
        if of_item is None:
            return None

        def check(values: Any) -> None:
            for number, each in enumerate(values):
                try:
                    of_item(each)
                except Changed as error:
                    error.path = f"[{number}]{error.path}"
                    raise

        return check

    def _values(self, schema: Schema) -> Check | None:
        of_value = self.of(schema)
        if of_value is None:
            return None

        def check(values: Any) -> None:
            for key, each in values.items():
                try:
                    of_value(each)
                except Changed as error:
                    error.path = f"[{key!r}]{error.path}"
                    raise

        return check

    def _union(self, schema: list[Schema]) -> Check | None:
        """Check the branch of a value; fastavro itself refuses values of no branch."""
        branches = [self.of(each) for each in schema if each != "null"]
        if len(branches) == 1:
            (only,) = branches
            return None if only is None else lambda value: None if value is None else only(value)
        known = [each for each in branches if each is not None]
        if not known:
            return None
        is_complete = len(known) == len(branches)

        def check(value: Any) -> None:
            problem = None
            for each in known if value is not None else ():
                try:
                    each(value)
                except Changed as error:
                    problem = error  # that of the last branch, which is often the most special
                else:
                    return
            if problem is not None and (is_complete or isinstance(value, _CHANGEABLE)):
                raise problem

        return check


# Values of a type that has a check, so a union without a branch for them must refuse them.
_CHANGEABLE: Final = (bool, int, float, date, time, dict)


def _nothing(value: Any) -> None:
    return None


def _whole(value: Any) -> None:
    if type(value) is not int:
        raise Changed(f"{value!r} is not a whole number")


def _int(value: Any) -> None:
    if type(value) is not int:
        raise Changed(f"{value!r} is not a whole number")
    if not -_INT_MAX - 1 <= value <= _INT_MAX:
        raise Changed(f"{value} does not fit into 32 bits")


def _double(value: Any) -> None:
    if type(value) is not float and (type(value) is not int or float(value) != value):
        raise Changed(f"{value!r} is not a floating-point number")


def _float(value: Any) -> None:
    _double(value)
    if abs(value) >= _FLOAT_MAX and math.isfinite(value):
        raise Changed(f"{value} does not fit into a float of 32 bits")


def _boolean(value: Any) -> None:
    if type(value) is not bool:
        raise Changed(f"{value!r} is not a boolean")


def _null(value: Any) -> None:
    if value is not None:
        raise Changed(f"{value!r} is not null")


def _moment(value: Any) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Changed(f"{value} has no time zone, but the schema has a point in time")
    else:
        _whole(value)


def _local_time(value: Any) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise Changed(f"{value} has a time zone, but the schema has a local time")
    else:
        _whole(value)


def _date(value: Any) -> None:
    if isinstance(value, datetime) or not isinstance(value, date | int):
        raise Changed(f"{value!r} is not a date")
    if not isinstance(value, date):
        _int(value)


def _time(value: Any) -> None:
    if isinstance(value, time):
        if value.tzinfo is not None:
            raise Changed(f"{value} has a time zone, which the schema does not have")
    else:
        _whole(value)


_SIMPLE: Final[dict[str, Check]] = {
    "int": _int,
    "long": _whole,
    "float": _float,
    "double": _double,
    "boolean": _boolean,
    "null": _null,
}
_LOGICAL: Final[dict[str, Check]] = {
    "timestamp-millis": _moment,
    "timestamp-micros": _moment,
    "local-timestamp-millis": _local_time,
    "local-timestamp-micros": _local_time,
    "date": _date,
    "time-millis": _time,
    "time-micros": _time,
}
