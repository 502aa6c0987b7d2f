"""Makes each file one module, even if it is imported under several names.

The file ``jobs/etl.py`` may be imported as ``etl``, as ``jobs.etl``, or under a longer name if
``jobs`` is in a package. Two modules of one file would be two Apps, each with a part of the
graph. So an import of a loaded file by any name returns the same module.
"""

from __future__ import annotations

import ast
import importlib
import os
import site
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

from streamkit.runtime.child_imports import MAIN_IN_CHILD, loaded_folders

_MAIN: Final = ("__main__", MAIN_IN_CHILD)
# Each import compares the paths of all modules.
_real_path: Final = lru_cache(maxsize=None)(os.path.realpath)


@dataclass(slots=True)
class Imports:
    """What a file imports: top-level packages, and the most dots of its relative imports."""

    packages: set[str] = field(default_factory=set)
    levels: int = 0


def imports_of(path: Path) -> Imports:
    """Return what a file imports, and the modules in ``include=``, without running it."""
    imports = Imports()
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return imports  # the import reports the error later
    for each in ast.walk(tree):
        names: list[object] = []
        if isinstance(each, ast.ImportFrom):
            imports.levels = max(imports.levels, each.level)
            names = [each.module] if each.level == 0 else []
        elif isinstance(each, ast.Import):
            names = [alias.name for alias in each.names]
        elif isinstance(each, ast.keyword) and each.arg == "include":
            names = [part.value for part in ast.walk(each) if isinstance(part, ast.Constant)]
        imports.packages.update(name.partition(".")[0] for name in names if isinstance(name, str))
    return imports


def package_of(path: Path, levels: int) -> tuple[str, Path]:
    """Return the package of a file, and the folder that contains its top-level package.

    A folder is a package if it has an ``__init__.py``, or if a relative import with ``levels``
    dots needs it.
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
    """Return a module name that no other module has, for a file outside packages."""
    while name in sys.stdlib_module_names or name in sys.modules:
        name += "_"
    return name


def add_folders(*folders: Path, first: bool = True) -> None:
    """Add folders to `sys.path`, and make each file in them one module."""
    for folder in reversed(folders):
        name = str(folder)
        if first and name in sys.path:
            sys.path.remove(name)
        if name not in sys.path:
            sys.path.insert(0 if first else len(sys.path), name)
        if name not in loaded_folders:
            loaded_folders.append(name)
    _find_loaded_files()


def add_loaded_folders(folders: Sequence[str]) -> None:
    """Make each file in some folders one module; the folders are on `sys.path` already."""
    if folders:
        loaded_folders[:] = folders
        _find_loaded_files()


def _find_loaded_files() -> None:
    if not any(isinstance(each, _OneModulePerFile) for each in sys.meta_path):
        sys.meta_path.insert(0, _OneModulePerFile())
    importlib.invalidate_caches()


def module_of_file(file: str) -> ModuleType | None:
    """Return the module of a file, under any name; None if the file is not imported."""
    real = _real_path(file)
    for name, module in list(sys.modules.items()):
        other = getattr(module, "__file__", None)
        if name not in _MAIN and isinstance(other, str) and _real_path(other) == real:
            return module
    return None


class _OneModulePerFile(MetaPathFinder):
    """Finds loaded files under any name, and modules of the standard library first.

    A user's file may have the name of a standard module. streamkit and its libraries still get
    the standard module when they import that name later.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None and fullname in sys.stdlib_module_names:
            others = [each for each in sys.path if each and each not in loaded_folders]
            return PathFinder.find_spec(fullname, others)
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None or not _is_ours(spec.origin):
            return None
        module = module_of_file(spec.origin)
        return None if module is None else ModuleSpec(fullname, _Loaded(module), origin=spec.origin)


def _is_ours(file: str) -> bool:
    """Return whether a file belongs to the user, and not to an installed library."""
    return _is_below(file, loaded_folders) and not _is_below(file, site.getsitepackages())


def _is_below(file: str, folders: Sequence[str]) -> bool:
    return any(file.startswith(os.path.join(folder, "")) for folder in folders)


class _Loaded(Loader):
    """A loader that returns a module that is already imported."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import has replaced it


def hidden_file(module: str | None) -> str | None:
    """Return the user's file that a standard module hides; None if there is none."""
    top = (module or "").partition(".")[0]
    if top not in sys.stdlib_module_names:
        return None
    places = (Path(folder) / name for folder in loaded_folders for name in (f"{top}.py", top))
    return next((str(each) for each in places if each.exists()), None)
