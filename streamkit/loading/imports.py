"""Import what a user wrote: no job runs meanwhile, and what goes wrong becomes words."""

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

from streamkit.errors import ConfigError, StreamKitError
from streamkit.loading.names import hidden_file
from streamkit.observe.streams import say
from streamkit.runtime.failures import users_line

if TYPE_CHECKING:
    from streamkit.app import App

_GUARD: Final = 'put app.run() under `if __name__ == "__main__":`'


class LoadingStopped(SystemExit):
    """A file that is being loaded has called `App.run`, so what it holds is all there.

    As a SystemExit it ends a file as the end of the program would, in a thread of its own too.
    """

    def __init__(self, app: App) -> None:
        super().__init__(0)
        self.app = app


@dataclass(slots=True)
class _Loading:
    """How many loads are going on, one within another."""

    depth: int = 0


_loading = _Loading()


def is_loading() -> bool:
    """Tell whether a file is being loaded to find its App, so that no job may run."""
    return _loading.depth > 0


@contextmanager
def loading() -> Iterator[None]:
    """Let no job run while files are imported in the block."""
    _loading.depth += 1
    try:
        yield
    finally:
        _loading.depth -= 1


def import_named(name: str, shown: str) -> None:
    """Import a module, whose errors become words.

    Args:
        name: The whole name of the module.
        shown: What to call it in an error.

    Raises:
        ConfigError: It raises, or ends the program; the text has the user's file and line.
    """
    with in_words(shown):
        file = getattr(find_module(name), "origin", None)
    with in_words(shown, file):
        importlib.import_module(name)


def is_missing(name: str) -> bool:
    """Tell whether there is no module of that name; one that cannot be imported is there."""
    with loading():
        try:
            return name not in sys.modules and find_module(name) is None
        except (Exception, SystemExit):  # importing it says what is wrong
            return False


def find_module(name: str) -> ModuleSpec | None:
    """Find a module; this imports its packages."""
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and _is_part(error.name, name):
            return None
        raise


def _is_part(name: str, of: str) -> bool:
    return of == name or of.startswith(f"{name}.")


def execute(spec: ModuleSpec, shown: str) -> tuple[ModuleType, App | None]:
    """Run a module's code. One that was stopped stays, since others may import it."""
    if spec.loader is None:
        return importlib.import_module(spec.name), None  # a folder has no code
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with in_words(shown, spec.origin) as stopped:
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    parent, _, child = spec.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module, stopped.app


@dataclass(slots=True)
class _Stopped:
    app: App | None = None


@contextmanager
def in_words(shown: str, file: str | None = None) -> Iterator[_Stopped]:
    """Turn whatever an import raises into words with the user's file and line.

    Only ``file`` may stop by running its app: of one that imports another, what comes after that
    would be missing.
    """
    stopped = _Stopped()
    with loading():
        try:
            yield stopped
        except LoadingStopped as stop:
            stopped.app = stop.app
            if file is None or _stopping_file(stop) != os.path.realpath(file):
                raise ConfigError(
                    f"{_where(stop, shown)}\n  runs a job while its file is imported", hint=_GUARD
                ) from None
            say(f"note: {_where(stop, shown)}\n  was not run while the graph is loaded; {_GUARD}")
        except SyntaxError as error:
            raise ConfigError(
                f"{error.filename or shown}:{error.lineno or 1}: {error.msg}", hint=f"mend {shown}"
            ) from error
        except StreamKitError:
            raise  # it says where by itself
        except SystemExit as error:
            raise ConfigError(
                f"{_where(error, shown)}\n  ended the program while it was loaded: {error.code!r}",
                hint='put what the program does under `if __name__ == "__main__":`',
            ) from error
        except Exception as error:
            raise ConfigError(
                f"{_where(error, shown)}\n  {type(error).__name__}: {error}",
                hint=_hint(error, shown),
            ) from error


def _stopping_file(stop: LoadingStopped) -> str:
    """Return the file whose import has come to run an app."""
    frames = traceback.extract_tb(stop.__traceback__)
    files = [frame.filename for frame in frames if frame.name == "<module>"]
    return os.path.realpath(files[-1]) if files else ""


def _where(error: BaseException, shown: str) -> str:
    return users_line(traceback.extract_tb(error.__traceback__)) or shown


def _hint(error: Exception, shown: str) -> str:
    if isinstance(error, ImportError):
        hidden = hidden_file(error.name)
        if hidden is not None:
            return f"{hidden} has the name of a module of Python's, which is found first: rename it"
    if isinstance(error, ModuleNotFoundError):
        return "a missing module must be installed where streamkit is"
    return f"mend {shown}: it is run once to find the App"
