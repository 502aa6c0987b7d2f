"""Methods that take what those of the async client take, without naming it again.

A method so dressed hands on what it gets, so it says ``*args: Any, **options: Any`` itself;
checkers, editors and ``help`` see the parameters of the other one.
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
    return _dressed_as(inspect.signature(original))


def parameters_of_call(
    original: Callable[P, object],
) -> Callable[[Callable[..., R]], Callable[Concatenate[S, P], R]]:
    """Give a class method the parameters of a call, such as that of a class method."""
    shown = inspect.signature(original)
    first = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY)
    return _dressed_as(shown.replace(parameters=[first, *shown.parameters.values()]))


def _dressed_as(
    shown: inspect.Signature,
) -> Callable[[Callable[..., R]], Callable[Concatenate[S, P], R]]:
    def dress(method: Callable[..., R]) -> Callable[Concatenate[S, P], R]:
        returned = inspect.signature(method).return_annotation
        # Every function may have this; the stub of `Callable` does not know.
        vars(method)["__signature__"] = shown.replace(return_annotation=returned)
        return cast("Callable[Concatenate[S, P], R]", method)

    return dress
