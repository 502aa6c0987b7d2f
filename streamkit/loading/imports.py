"""Imports user code: no job runs meanwhile, and every error shows the user's file and line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Final

from streamkit.errors import ConfigError, StreamKitError, UsageError
from streamkit.loading.names import hidden_file
from streamkit.observe.streams import say
from streamkit.runtime.child_imports import loaded_modules, this_process
from streamkit.runtime.failures import users_frame, users_line

if TYPE_CHECKING:
    from streamkit.app import App

_GUARD: Final = 'put app.run() under `if __name__ == "__main__":`'


class LoadingStopped(SystemExit):
    """Raised by `App.run` while a file is loaded: the graph of the file is complete by then.

    It is a SystemExit, so it stops the file as `sys.exit` does; a thread prints no traceback.
    """

    def __init__(self, app: App) -> None:
        super().__init__(0)
        self.app = app


@dataclass(slots=True)
class _Loading:
    """How many nested loads are in progress."""

    depth: int = 0


_loading = _Loading()


def is_loading() -> bool:
    """Return whether a file is being loaded to find its App; then no job may run."""
    return _loading.depth > 0


@contextmanager
def loading() -> Iterator[None]:
    """Prevent jobs from running while the block imports files."""
    _loading.depth += 1
    try:
        yield
    finally:
        _loading.depth -= 1


def import_named(name: str, shown: str) -> None:
    """Import a module; turn its errors into a `ConfigError`.

    Args:
        name: The full name of the module.
        shown: Its name in an error text.

    Raises:
        ConfigError: The module raises, or ends the program; the message shows file and line.
    """
    with as_config_errors(shown):
        file = getattr(find_module(name), "origin", None)
    with as_config_errors(shown, file):
        importlib.import_module(name)


def is_missing(name: str) -> bool:
    """Return whether a module does not exist; one that fails to import does exist."""
    with loading():
        try:
            return name not in sys.modules and find_module(name) is None
        except (Exception, SystemExit):  # the import reports the error later
            return False


def find_module(name: str) -> ModuleSpec | None:
    """Find a module; this imports its parent packages."""
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and _is_part(error.name, name):
            return None
        raise


def _is_part(name: str, of: str) -> bool:
    return of == name or of.startswith(f"{name}.")


def execute(spec: ModuleSpec, shown: str) -> tuple[ModuleType, App | None]:
    """Run a module's code. If `App.run` stopped it, keep the module: others may import it."""
    if spec.loader is None:
        return importlib.import_module(spec.name), None  # a namespace package has no code
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with as_config_errors(shown, spec.origin) as stopped:
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    parent, _, child = spec.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    if spec.origin is not None:
        loaded_modules.append((spec.name, os.path.abspath(spec.origin)))
    return module, stopped.app


@dataclass(slots=True)
class _Stopped:
    app: App | None = None


@contextmanager
def as_config_errors(shown: str, file: str | None = None) -> Iterator[_Stopped]:
    """Turn errors of an import into a `ConfigError` with the user's file and line.

    Only ``file`` itself may stop at `App.run`. If a file that it imports did, the rest of
    ``file`` would be missing.
    """
    stopped = _Stopped()
    with loading():
        try:
            yield stopped
        except LoadingStopped as stop:
            stopped.app = stop.app
            if file is None or _stopping_file(stop) != os.path.realpath(file):
                raise ConfigError(
                    f"{_where(stop, shown)}\n  runs a job when its file is imported", hint=_GUARD
                ) from None
            if not this_process.is_child:  # the job has shown this already
                where = _where(stop, shown)
                say(f"note: {where}\n  does not run while the file is loaded; {_GUARD}")
        except SyntaxError as error:
            raise ConfigError(
                f"{error.filename or shown}:{error.lineno or 1}: {error.msg}", hint=f"fix {shown}"
            ) from error
        except UsageError as error:
            frame = users_frame(traceback.extract_tb(error.__traceback__))
            place = shown if frame is None else f"{frame.filename}:{frame.lineno}"
            raise ConfigError(f"{place}: {error}", hint=error.hint) from error
        except StreamKitError:
            raise  # its text has the file and line already
        except SystemExit as error:
            raise ConfigError(
                f"{_where(error, shown)}\n"
                f"  exited the program while the file was loaded: {error.code!r}",
                hint='put the main program under `if __name__ == "__main__":`',
            ) from error
        except Exception as error:
            raise ConfigError(
                f"{_where(error, shown)}\n  {type(error).__name__}: {error}",
                hint=_hint(error, shown),
            ) from error


def _stopping_file(stop: LoadingStopped) -> str:
    """Return the file whose import called `App.run`."""
    frames = traceback.extract_tb(stop.__traceback__)
    files = [frame.filename for frame in frames if frame.name == "<module>"]
    return os.path.realpath(files[-1]) if files else ""


def _where(error: BaseException, shown: str) -> str:
    return users_line(traceback.extract_tb(error.__traceback__)) or shown


def _hint(error: Exception, shown: str) -> str:
    if isinstance(error, ImportError):
        hidden = hidden_file(error.name)
        if hidden is not None:
            return f"rename {hidden}: Python has a module with that name, which is found first"
    if isinstance(error, ModuleNotFoundError):
        return "install the missing module in the environment of streamkit"
    return f"fix {shown}: it is imported to find the App"
