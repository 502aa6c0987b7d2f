"""Which module a file is: each file is one, whatever name leads to it.

An app file may be imported under several names: its own, that within its package, the one it has
after the folder it lies in. Two modules of one file would be two Apps with a part of the graph
each, so whatever name leads to a file that is loaded gets the module that is there.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# The folders that the files being loaded lie in, which this put on `sys.path`.
_folders: list[str] = []


@dataclass(slots=True)
class Imports:
    """What a file imports: packages by name, and how many folders up from where it lies."""

    packages: set[str] = field(default_factory=set)
    levels: int = 0


def imports_of(path: Path) -> Imports:
    """Read what a file imports, included modules too, without running it."""
    wanted = Imports()
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return wanted  # importing it says what is wrong
    for each in ast.walk(tree):
        names: list[object] = []
        if isinstance(each, ast.ImportFrom):
            wanted.levels = max(wanted.levels, each.level)
            names = [each.module] if each.level == 0 else []
        elif isinstance(each, ast.Import):
            names = [alias.name for alias in each.names]
        elif isinstance(each, ast.keyword) and each.arg == "include":
            names = [part.value for part in ast.walk(each) if isinstance(part, ast.Constant)]
        wanted.packages.update(name.partition(".")[0] for name in names if isinstance(name, str))
    return wanted


def package_of(path: Path, levels: int) -> tuple[str, Path]:
    """Return the package that a file belongs to, and the folder that holds its outermost part.

    What it imports from ``levels`` folders up are its packages, with or without an
    ``__init__.py``.
    """
    root = path.parent
    names: list[str] = []
    while (root / "__init__.py").is_file() or len(names) < levels:
        if root.parent == root:
            break
        names.append(root.name)
        root = root.parent
    return ".".join(reversed(names)), root


def free_name(name: str) -> str:
    """Return a name for a file of no package, that of no other module."""
    while name in sys.stdlib_module_names or name in sys.modules:
        name += "_"
    return name


def add_folders(*folders: Path, first: bool = True) -> None:
    """Put folders on the path of imports, and find files that are loaded from here on."""
    for folder in reversed(folders):
        name = str(folder)
        if first and name in sys.path:
            sys.path.remove(name)
        if name not in sys.path:
            sys.path.insert(0 if first else len(sys.path), name)
        if name not in _folders:
            _folders.append(name)
    if not any(isinstance(each, _OneModulePerFile) for each in sys.meta_path):
        sys.meta_path.insert(0, _OneModulePerFile())
    importlib.invalidate_caches()


def module_of_file(file: str) -> ModuleType | None:
    """Return the module that was made of a file, under whatever name it was imported."""
    real = os.path.realpath(file)
    for name, module in list(sys.modules.items()):
        other = getattr(module, "__file__", None)
        if name != "__main__" and isinstance(other, str) and os.path.realpath(other) == real:
            return module
    return None


class _OneModulePerFile(MetaPathFinder):
    """Finds files that are loaded, under whatever name; and Python's own modules first.

    A file of the user's that is called as one of those stands in nobody's way: what streamkit
    and its libraries import later is what they mean.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None and fullname in sys.stdlib_module_names:
            others = [each for each in sys.path if each and each not in _folders]
            return PathFinder.find_spec(fullname, others)
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None or not _is_ours(spec.origin):
            return None
        module = module_of_file(spec.origin)
        return None if module is None else ModuleSpec(fullname, _Loaded(module), origin=spec.origin)


def _is_ours(file: str) -> bool:
    return any(file.startswith(os.path.join(folder, "")) for folder in _folders)


class _Loaded(Loader):
    """Gives a module that is there already."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import has put its own there


def hidden_file(module: str | None) -> str | None:
    """Return the user's file that a module of Python's was found instead of."""
    top = (module or "").partition(".")[0]
    if top not in sys.stdlib_module_names:
        return None
    places = (Path(folder) / name for folder in _folders for name in (f"{top}.py", top))
    return next((str(each) for each in places if each.exists()), None)
