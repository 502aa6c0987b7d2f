"""Decorators that give a method the parameters of an async method, without repeating them.

A decorated method passes its arguments on, so it declares ``*args: Any, **options: Any``. Type
checkers, editors and ``help`` show the parameters of the async method.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def parameters_of(
    original: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., R]], Callable[Concatenate[S, P], R]]:
    """Give a method the parameters of another class's method."""
    return _with_signature(inspect.signature(original))


def parameters_of_call(
    original: Callable[P, object],
) -> Callable[[Callable[..., R]], Callable[Concatenate[S, P], R]]:
    """Give a class method the parameters of a callable, such as another class method."""
    shown = inspect.signature(original)
    first = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY)
    return _with_signature(shown.replace(parameters=[first, *shown.parameters.values()]))


def _with_signature(
    shown: inspect.Signature,
) -> Callable[[Callable[..., R]], Callable[Concatenate[S, P], R]]:
    def decorate(method: Callable[..., R]) -> Callable[Concatenate[S, P], R]:
        returned = inspect.signature(method).return_annotation
        # Every function may have this attribute, but the type `Callable` does not declare it.
        vars(method)["__signature__"] = shown.replace(return_annotation=returned)
        return cast("Callable[Concatenate[S, P], R]", method)

    return decorate
