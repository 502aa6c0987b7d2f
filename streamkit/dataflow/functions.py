"""Inspects a user's function: its kind, its types, and its file and line."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

from streamkit.dataflow.callers import caller_location
from streamkit.dataflow.context import Context
from streamkit.dataflow.state_handle import State
from streamkit.dataflow.topology import Location, stage_name
from streamkit.errors import TopologyError

Kind = Literal["map", "flat_map", "async", "async_flat_map"]
_ITERATORS = (Iterator, Generator)
_ASYNC_ITERATORS = (AsyncIterator, AsyncGenerator)


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """The facts about a function.

    ``value_type`` is the annotation of its first parameter. ``result_type`` is the type of one
    result, without None. ``key_type`` is that of the context. Each is None without an annotation.
    """

    name: str
    kind: Kind
    value_type: Any
    result_type: Any
    takes_context: bool
    key_type: Any
    state_type: Any
    returns_none: bool
    location: Location


def facts_of(
    function: Callable[..., Any], scope: dict[str, Any] | None = None, *, batch: bool = False
) -> FunctionFacts:
    """Inspect a function without calling it.

    With ``batch``, it gets a list: ``value_type`` is the type of its items, and ``result_type``
    that of the items of the result.

    Args:
        function: The decorated function.
        scope: Local names of the caller, for annotations with classes defined in a function.

    Raises:
        TopologyError: The function cannot be a stage; the message shows its file and line.
    """
    location = location_of(function)
    name = name_of(function)
    _check_function(function, name, location)
    hints = _hints(function, scope or {}, location)
    parameters = _positional(function)
    _check_bound(name, location, hints, parameters)
    others = [unwrapped(hints.get(each.name)) for each in parameters[1:3]]
    has_state = bool(others) and _is_state(others[0])
    context = next(iter(others[1:] if has_state else others[:1]), None)
    _check_places(name, location, hints, parameters)
    result = hints.get("return")
    kind = _kind(function, result, name, location)
    value_type = hints.get(parameters[0].name) if parameters else None
    result_type = _one_result(result, kind)
    if batch:
        kind = _batch_kind(kind, result)
        value_type, result_type = _items(value_type), _items(result)
    return FunctionFacts(
        name=name,
        kind=kind,
        value_type=value_type,
        result_type=result_type,
        takes_context=_is_context(context),
        key_type=get_args(context)[0] if get_args(context) else None,
        state_type=(get_args(others[0]) or (Any,))[0] if has_state else None,
        returns_none=result is type(None),
        location=location,
    )


def _check_function(function: Any, name: str, location: Location) -> None:
    if isinstance(function, type) or not callable(function):
        what = "a class" if isinstance(function, type) else "not callable"
        raise TopologyError(
            f"{name!r} is {what}, but a decorator needs a function",
            at=str(location),
            hint="decorate a function; to create an object from each value, use .map(...)",
        )


def _check_bound(
    name: str, location: Location, hints: dict[str, Any], parameters: list[inspect.Parameter]
) -> None:
    if parameters and parameters[0].name in ("self", "cls") and parameters[0].name not in hints:
        raise TopologyError(
            f"{name!r} is an unbound method: its first parameter is {parameters[0].name!r}",
            at=str(location),
            hint="decorate a plain function, or call the decorator on a bound method",
        )


def resume_type_of(function: Callable[..., Any], scope: dict[str, Any] | None = None) -> Any:
    """Return the annotation of a source's parameter ``resume``; Any if it has none."""
    return _hints(function, scope or {}, location_of(function)).get("resume", Any)


def check_parameters(function: Callable[..., Any], facts: FunctionFacts, what: str) -> None:
    """Refuse a function that cannot be called with a value, or with a value and its context.

    Raises:
        TopologyError: The function has other parameters; the message shows its file and line.
    """
    given = (None,) * (1 + facts.takes_context + (facts.state_type is not None))
    problem = call_problem(function, given)
    if not problem:
        return
    required = [each.name for each in _positional(function) if each.default is each.empty]
    text, hint = f"cannot be called with a value: {problem}", "give its other parameters defaults"
    if not _positional(function):
        text, hint = "has no parameters, but it is called with the value", "add one parameter"
    elif len(required) == 2 and len(given) == 1:
        text = f"has a second parameter {required[1]!r}, which is not a Context or State"
        hint = f"annotate it as {required[1]}: Context[str], or give it a default"
    raise TopologyError(f"the {what} {facts.name!r} {text}", at=str(facts.location), hint=hint)


def check_callable(function: Any, verb: str, *, values: int = 1, gives_many: bool = False) -> None:
    """Refuse a function that a method such as ``map`` cannot call with a value.

    Raises:
        TopologyError: It is async, is a generator although one value is expected, or has other
            parameters.
    """
    if not callable(function):
        raise _refused(verb, f"got {function!r}, which is not callable")
    name = name_of(function)
    plain = _plain(function)
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        raise _refused(
            verb,
            f"got the async function {name!r}",
            "use a plain function here, or make the calls in a stage: @app.stage(stream)",
        )
    if inspect.isgeneratorfunction(plain) and not gives_many:
        raise _refused(
            verb, f"got the generator {name!r} where one value is expected", "use flat_map"
        )
    problem = call_problem(function, (None,) * values)
    if problem:
        raise _refused(verb, f"got {name!r}, which cannot be called with a value: {problem}")


def verb_name(verb: str, function: Any) -> str:
    """Return the name of a stage: that of its function, or ``verb`` if it is a lambda."""
    given = getattr(function, "__name__", "")
    return verb if given in ("", "<lambda>") else stage_name(given)


def result_of(
    function: Callable[..., Any], scope: dict[str, Any], *, gives_many: bool = False
) -> Any:
    """Return the annotated type of the values that a function for ``map`` returns, or None."""
    if isinstance(function, type):
        return None if gives_many else function
    try:
        result = _hints(function, scope, Location()).get("return")
    except TopologyError:  # an annotation that only type checkers can resolve is allowed here
        return None
    if not gives_many:
        return result
    origin, arguments = get_origin(result), get_args(result)
    if not isinstance(origin, type) or not arguments or issubclass(origin, tuple | Mapping):
        return None
    return arguments[0] if issubclass(origin, Iterable) else None


def parameter_type(function: Callable[..., Any], scope: dict[str, Any], place: int) -> Any:
    """Return the annotated type of a parameter, without None; None if it is not known.

    Raises:
        TopologyError: An annotation cannot be resolved at run time.
    """
    parameters = _positional(function)
    if len(parameters) <= place:
        return None
    hints = _hints(function, scope, location_of(function))
    return unwrapped(hints.get(parameters[place].name))


def call_problem(function: Callable[..., Any], given: tuple[Any, ...]) -> str:
    """Return why a function cannot be called with some values; empty if it can, or is unknown."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a C callable without a signature, such as attrgetter
        return ""
    try:
        signature.bind(*given)
    except TypeError as error:
        return str(error)
    return ""


@contextmanager
def errors_at(location: Location) -> Iterator[None]:
    """Add the user's file and line to errors of the block that have none."""
    try:
        yield
    except TopologyError as error:
        if error.at:
            raise
        raise TopologyError(str(error), at=str(location), hint=error.hint) from None


def is_generator(function: Any) -> bool:
    """Return whether a function is a generator, whose code does not run in the call itself."""
    plain = _plain(function)
    return inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)


def name_of(function: Any) -> str:
    """Return the name of a function."""
    return str(getattr(_plain(function), "__name__", type(function).__name__))


def location_of(function: Callable[..., Any]) -> Location:
    """Return where a function is defined, or used if it is a class or not Python code."""
    code = getattr(_plain(function), "__code__", None)
    if code is None or isinstance(function, type):
        return caller_location()
    return Location(code.co_filename, code.co_firstlineno)


def without_none(annotation: Any) -> Any:
    """Return a type without its None."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        return rest[0] if len(rest) == 1 else typing.Union[tuple(rest)]  # noqa: UP007
    return annotation


def _refused(verb: str, text: str, hint: str = "") -> TopologyError:
    return TopologyError(f"{verb} {text}", at=str(caller_location()), hint=hint)


def unwrapped(annotation: Any) -> Any:
    """Return a type without None and without Annotated."""
    annotation = without_none(annotation)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_context(annotation: Any) -> bool:
    found = unwrapped(annotation)
    return found is Context or get_origin(found) is Context


def _is_state(annotation: Any) -> bool:
    found = unwrapped(annotation)
    return found is State or get_origin(found) is State


def _check_places(
    name: str, location: Location, hints: dict[str, Any], parameters: list[inspect.Parameter]
) -> None:
    """Refuse a State or Context in a parameter that does not get it."""
    places = [each.name for each in parameters[1:3]]
    for parameter, hint in hints.items():
        if parameter == "return" or not (_is_state(hint) or _is_context(hint)):
            continue
        is_second = places[:1] == [parameter]
        is_after_state = places[1:] == [parameter] and _is_state(hints.get(places[0]))
        if not is_second and not (is_after_state and _is_context(hint)):
            what = "State" if _is_state(hint) else "Context"
            raise TopologyError(
                f"{name!r} has the {what} in the parameter {parameter!r}",
                at=str(location),
                hint="the order is: the value, then a State if there is one, then a Context",
            )


def _plain(function: Callable[..., Any]) -> Any:
    """Return the function inside partials, wrappers, methods and callable objects."""
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
        return []  # a C callable without a signature, such as attrgetter
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
            f"the annotations of {getattr(plain, '__name__', plain)!r} use {error.name!r}, "
            "which does not exist at run time",
            at=str(location),
            hint="import it outside `if TYPE_CHECKING`, and define classes before using them",
        ) from None
    except (TypeError, AttributeError, SyntaxError) as error:
        raise TopologyError(
            f"the annotations of {getattr(plain, '__name__', plain)!r} are not valid: {error}",
            at=str(location),
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
            hint="annotate Iterator[...] with the type of the values it yields",
        )
    if is_generator or origin in _ITERATORS:
        return "flat_map"
    if origin in _ASYNC_ITERATORS:
        return "async_flat_map"
    return "map"


def _batch_kind(kind: Kind, result: Any) -> Kind:
    """Return the kind of a function of batches: any number of results, or one for each record."""
    if (get_origin(result) or result) is Iterable:
        return "async_flat_map" if kind == "async" else "flat_map"
    return kind


def _items(annotation: Any) -> Any:
    """Return the type of the items of a list or iterable; None if it is not known."""
    arguments = get_args(unwrapped(annotation))
    return without_none(arguments[0]) if arguments else None


def _one_result(result: Any, kind: Kind) -> Any:
    if result is None:
        return None
    if kind in ("flat_map", "async_flat_map"):
        arguments = get_args(result)
        return arguments[0] if arguments else None
    return without_none(result)
