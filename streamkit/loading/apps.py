"""Finds the App for a target of the command line, such as ``app.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from streamkit.errors import ConfigError
from streamkit.loading.imports import as_config_errors, execute, find_module
from streamkit.loading.names import add_folders, free_name, imports_of, module_of_file, package_of

if TYPE_CHECKING:
    from streamkit.app import App


def load_app(target: str) -> App:
    """Find an app: ``app.py``, ``app.py:name`` or ``package.module:name``.

    Raises:
        ConfigError: The file or module does not exist, or has no app.
    """
    place, attribute = _parts(target)
    is_file = place.endswith(".py") or "/" in place or os.sep in place or Path(place).is_file()
    module, stopped = load_file(Path(place)) if is_file else _load_module(place)
    apps = _apps_of(module)
    if attribute is not None:
        found: Any = getattr(module, attribute, None)
        if not _is_app(found):
            hint = f"its Apps are: {', '.join(apps)}" if apps else "the file has no App"
            raise ConfigError(f"{place} has no App named {attribute!r}", hint=hint)
        return cast("App", found)
    if not apps and stopped is not None:
        return stopped  # an App that a function created
    if not apps:
        raise ConfigError(
            f"{place} has no App", hint='add app = App("my-job") at the top of the file'
        )
    if len(apps) > 1:
        raise ConfigError(
            f"{place} has {len(apps)} Apps: {', '.join(apps)}",
            hint=f"choose one, for example {place}:{next(iter(apps))}",
        )
    return next(iter(apps.values()))


def load_file(path: Path) -> tuple[ModuleType, App | None]:
    """Import a file under its full name within its packages; see `import_named`.

    Raises:
        ConfigError: The file does not exist, or its import raises.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", hint="give the path of the file that has your App")
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist", hint="give the path of the file that has your App"
        )
    path = path.absolute()
    imports = imports_of(path)
    package, root = package_of(path, imports.levels)
    add_folders(root, path.parent, path.resolve().parent)
    above = [each.parent for each in path.parents if each.name in imports.packages]
    add_folders(*above, Path.cwd(), first=False)
    if package:
        _import_package(package, path.parent)
    loaded = module_of_file(str(path))
    if loaded is not None:
        return loaded, None
    stem = path.stem.replace(".", "_")
    name = f"{package}.{stem}" if package else free_name(stem)
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "a loader is given"
    return execute(spec, str(path))


def _load_module(name: str) -> tuple[ModuleType, App | None]:
    add_folders(Path.cwd())
    top = name.partition(".")[0]
    if not top or importlib.util.find_spec(top) is None:
        raise ConfigError(f"no module {name!r}", hint="if it is a file, add its .py")
    with as_config_errors(name):
        spec = find_module(name)
    if spec is None:
        raise ConfigError(f"no module {name!r}", hint=f"{top!r} exists, but has no such submodule")
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded, None
    return execute(spec, name)


def _import_package(package: str, folder: Path) -> None:
    with as_config_errors(package):
        module = importlib.import_module(package)
    places = [os.path.realpath(each) for each in getattr(module, "__path__", ())]
    if os.path.realpath(folder) not in places:
        where = getattr(module, "__file__", None) or "elsewhere"
        raise ConfigError(
            f"the package {package!r} should be {folder}, but Python finds it at {where}",
            hint="rename the folder",
        )


def _parts(target: str) -> tuple[str, str | None]:
    if Path(target).is_file():
        return target, None
    place, colon, attribute = target.rpartition(":")
    if not colon:
        place, attribute = target, ""
    if not place or (colon and not attribute):
        raise ConfigError(
            f"{target!r} is not a valid target",
            hint="use app.py, app.py:name or package.module:name",
        )
    return place, attribute if colon else None


def _is_app(found: object) -> bool:
    from streamkit.app import App  # imported late, because it imports this module

    return isinstance(found, App)


def _apps_of(module: ModuleType) -> dict[str, App]:
    found: dict[int, tuple[str, Any]] = {}
    for name, each in vars(module).items():
        if _is_app(each):
            found.setdefault(id(each), (name, each))
    return dict(found.values())
