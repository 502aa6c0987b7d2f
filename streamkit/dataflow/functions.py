"""What a user's function says of itself: its kind, its types, where it stands."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_origin

from streamkit.dataflow.context import Context
from streamkit.dataflow.topology import Location
from streamkit.errors import TopologyError

Kind = Literal["map", "flat_map", "async", "async_flat_map"]
_PACKAGE = __name__.split(".", maxsplit=1)[0]
_ITERATORS = (Iterator, Generator)
_ASYNC_ITERATORS = (AsyncIterator, AsyncGenerator)


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """What is known of a function.

    ``value_type`` is the annotation of its first parameter, ``result_type`` what one result
    is, without None; None where nothing is annotated. ``key_type`` is that of a context.
    """

    name: str
    kind: Kind
    value_type: Any
    result_type: Any
    takes_context: bool
    key_type: Any
    parameters: int
    returns_none: bool
    location: Location


def facts_of(function: Callable[..., Any], scope: dict[str, Any] | None = None) -> FunctionFacts:
    """Look at a function without calling it.

    Args:
        function: What was decorated.
        scope: Names of the caller, for annotations of classes defined in a function.

    Raises:
        TopologyError: It cannot be a stage; the text says why, with its file and line.
    """
    location = location_of(function)
    name = getattr(_plain(function), "__name__", type(function).__name__)
    hints = _hints(function, scope or {}, location)
    parameters = _positional(function)
    if parameters and parameters[0].name in ("self", "cls") and parameters[0].name not in hints:
        raise TopologyError(
            f"{name!r} is a method of a class body: its first parameter is {parameters[0].name!r}",
            at=str(location),
            hint="decorate a plain function, or call the decorator on a bound method",
        )
    second = hints.get(parameters[1].name) if len(parameters) > 1 else None
    takes_context = second is Context or get_origin(second) is Context
    result = hints.get("return")
    kind = _kind(function, result, name, location)
    return FunctionFacts(
        name=name,
        kind=kind,
        value_type=hints.get(parameters[0].name) if parameters else None,
        result_type=_one_result(result, kind),
        takes_context=takes_context,
        key_type=get_args(second)[0] if get_args(second) else None,
        parameters=len(parameters),
        returns_none=result is type(None),
        location=location,
    )


def location_of(function: Callable[..., Any]) -> Location:
    """Return where a function is written; nothing for one that is not Python's."""
    code = getattr(_plain(function), "__code__", None)
    if code is None:
        return Location()
    return Location(code.co_filename, code.co_firstlineno)


def caller_location() -> Location:
    """Return the line outside this package that led here."""
    frame = _outer_frame()
    return Location() if frame is None else Location(frame.f_code.co_filename, frame.f_lineno)


def caller_module() -> str:
    """Return the name of the module that called this package."""
    frame = _outer_frame()
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def caller_scope() -> dict[str, Any]:
    """Return the names that are local where the package was called."""
    frame = _outer_frame()
    return {} if frame is None else dict(frame.f_locals)


def without_none(annotation: Any) -> Any:
    """Return a type without its None."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        return rest[0] if len(rest) == 1 else typing.Union[tuple(rest)]  # noqa: UP007
    return annotation


def _outer_frame() -> types.FrameType | None:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != _PACKAGE and not module.startswith(f"{_PACKAGE}."):
            return frame
        frame = frame.f_back
    return None


def _plain(function: Callable[..., Any]) -> Any:
    """Return the function behind partials, wrappers, methods and callable objects."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if hasattr(function, "__code__"):
        return function
    called = type(function).__call__
    return called if hasattr(called, "__code__") else function


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []  # a callable of C's, such as attrgetter, that does not say
    return [
        each
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]


def _hints(
    function: Callable[..., Any], scope: dict[str, Any], location: Location
) -> dict[str, Any]:
    plain = _plain(function)
    if getattr(plain, "__annotations__", None) in (None, {}):
        return {}
    closure = inspect.getclosurevars(plain).nonlocals if inspect.isfunction(plain) else {}
    try:
        return typing.get_type_hints(plain, localns={**scope, **closure}, include_extras=True)
    except NameError as error:
        raise TopologyError(
            f"the annotations of {getattr(plain, '__name__', plain)!r} name {error.name!r}, "
            "which is not known when the program runs",
            at=str(location),
            hint="import it outside `if TYPE_CHECKING`, and define classes before their use",
        ) from None


def _kind(function: Callable[..., Any], result: Any, name: str, location: Location) -> Kind:
    plain = _plain(function)
    origin = get_origin(result) or result
    is_generator = inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(plain)
    if inspect.isasyncgenfunction(plain):
        return "async_flat_map"
    if inspect.iscoroutinefunction(plain):
        return "async"
    if is_generator and result is not None and origin not in _ITERATORS:
        raise TopologyError(
            f"the generator {name!r} is annotated as {result}",
            at=str(location),
            hint="annotate Iterator[...]: what it yields are the values",
        )
    if is_generator or origin in _ITERATORS:
        return "flat_map"
    if origin in _ASYNC_ITERATORS:
        return "async_flat_map"
    return "map"


def _one_result(result: Any, kind: Kind) -> Any:
    if result is None:
        return None
    if kind in ("flat_map", "async_flat_map"):
        arguments = get_args(result)
        return arguments[0] if arguments else None
    return without_none(result)
