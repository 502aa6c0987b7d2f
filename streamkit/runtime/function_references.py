"""Sends a user's function to another process: as the name by which it is found there."""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

from streamkit.dataflow.decorated_function import DecoratedFunction
from streamkit.dataflow.functions import location_of, name_of
from streamkit.errors import TopologyError
from streamkit.runtime.child_imports import ChildImports, child_imports, main_file

_HINT = "define the function at the top level of a module"


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """A pickled function, and what a process imports before it loads the function."""

    pickled: bytes
    imports: ChildImports


def reference_to(function: Callable[..., object], name: str) -> FunctionReference:
    """Return a reference to a function that another process can find.

    A function is found by its module and name. A partial, a bound method or a callable object is
    sent as a copy.

    Raises:
        TopologyError: Another process cannot find it, for example because it is a lambda.
    """
    out = io.BytesIO()
    pickler = _FunctionPickler(out)
    try:
        pickler.dump(function)
    except _NotFound as error:
        raise _refused(function, name, str(error), error.hint) from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise _refused(function, name, reason, f"{_HINT}, and make its object picklable") from error
    return FunctionReference(out.getvalue(), child_imports(pickler.modules))


class _NotFound(Exception):
    def __init__(self, text: str, hint: str = _HINT) -> None:
        super().__init__(text)
        self.hint = hint


def _refused(function: Callable[..., object], name: str, reason: str, hint: str) -> TopologyError:
    return TopologyError(
        f"{name!r} cannot run in other processes: {reason}",
        at=str(location_of(function)),
        hint=hint,
    )


class _FunctionPickler(pickle.Pickler):
    """Pickles functions as references, and records their modules."""

    def __init__(self, out: io.BytesIO) -> None:
        super().__init__(out, protocol=pickle.HIGHEST_PROTOCOL)
        self.modules: list[tuple[str, str]] = []

    def reducer_override(self, value: Any) -> Any:
        is_function = isinstance(value, FunctionType | DecoratedFunction)
        if not is_function or value is find_function:
            return NotImplemented
        module, name = _place_of(value)
        depth = _depth(module, name, value)
        file = getattr(sys.modules[module], "__file__", None)
        if module != "__main__" and isinstance(file, str):
            self.modules.append((module, os.path.abspath(file)))
        return find_function, (module, name, depth)


def find_function(module: str, name: str, depth: int) -> object:
    """Return a function of an imported module, inside ``depth`` decorators."""
    found: object = sys.modules[module]
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AttributeError(f"the module {module} has no {name!r} here") from None
    for _ in range(depth):
        found = cast("Any", found).__wrapped__
    return found


def _place_of(value: Any) -> tuple[str, str]:
    module, name = str(value.__module__), str(value.__qualname__)
    if "<lambda>" in name:
        raise _NotFound("a lambda has no name by which another process can find it")
    if "<locals>" in name:
        outer = name.split(".<locals>")[0]
        raise _NotFound(f"{name_of(value)!r} is defined inside the function {outer!r}")
    if module not in sys.modules:
        raise _NotFound(f"its module {module!r} is not imported")
    if module == "__main__" and main_file() is None:
        raise _NotFound(
            f"{name!r} is defined in an interactive session, which other processes cannot import",
            "put the function into a file and import it",
        )
    return module, name


def _depth(module: str, name: str, value: object) -> int:
    """Return how many decorators are around a function that a module has under a name."""
    depth = 0
    try:
        found = find_function(module, name, 0)
        while found is not value:
            found = cast("Any", found).__wrapped__
            depth += 1
    except AttributeError:
        raise _NotFound(
            f"{module}.{name} is not the function, or does not exist",
            "do not replace or delete the name of the function; decorators need functools.wraps",
        ) from None
    return depth
