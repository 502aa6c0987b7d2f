"""What a child process needs to import the user's modules as this process did."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

# The child runs the file of `__main__` under this name, as multiprocessing does: the guard
# `if __name__ == "__main__"` is false there.
MAIN_IN_CHILD: Final = "__mp_main__"

# The folders of loaded files, and the modules that were loaded to find the App; `loading` adds
# to both.
loaded_folders: list[str] = []
loaded_modules: list[tuple[str, str]] = []


@dataclass(slots=True)
class ThisProcess:
    """Whether this process is a child that carries out calls."""

    is_child: bool = False


this_process: Final = ThisProcess()


@dataclass(frozen=True, slots=True)
class MainFile:
    """The file that Python runs as ``__main__``."""

    file: str
    package: str


@dataclass(frozen=True, slots=True)
class ChildImports:
    """The modules of the user, as a child process imports them.

    ``modules`` are names and files in the order of their imports.
    """

    argv: tuple[str, ...]
    path: tuple[str, ...]
    folders: tuple[str, ...]
    modules: tuple[tuple[str, str], ...]
    main: MainFile | None


def child_imports(modules: list[tuple[str, str]]) -> ChildImports:
    """Return what a child imports: the modules of the App, then those given here."""
    return ChildImports(
        argv=tuple(sys.argv),
        path=tuple(_search_path()),
        folders=tuple(loaded_folders),
        # The first modules come first: a module that they import may import them in turn.
        modules=tuple(dict.fromkeys([*loaded_modules, *modules])),
        main=main_file(),
    )


def main_file() -> MainFile | None:
    """Return the file of ``__main__``; None in an interactive session and for ``python -c``."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not isinstance(file, str) or not os.path.exists(file):
        return None
    return MainFile(os.path.abspath(file), getattr(main, "__package__", None) or "")


def first_search_path() -> list[str]:
    """Return where a child finds the modules of streamkit.

    The folders of loaded files are missing: a file in them may have the name of a standard module.
    """
    return [each for each in _search_path() if each not in loaded_folders]


def _search_path() -> list[str]:
    """Return where this process finds modules; the current folder is an absolute path."""
    return [os.path.abspath(each) for each in sys.path if isinstance(each, str)]
