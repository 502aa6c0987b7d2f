"""Detects an app that exists twice because its file was both run and imported."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from streamkit.errors import TopologyError

if TYPE_CHECKING:
    from streamkit.app import App


def refuse_second_import(app: App) -> None:
    """Refuse an app whose file was imported a second time under another module name.

    Raises:
        TopologyError: The app exists twice; the message shows both module names.
    """
    for name, module in list(sys.modules.items()):
        if not _is_of_file(module, app.location.file):
            continue
        for other in list(vars(module).values()):
            if isinstance(other, type(app)) and _is_same_app(app, other):
                raise TopologyError(
                    f"the app {app.name!r} exists twice, in {app.module} and in {name}: "
                    "its file was both run and imported, and each App has a part of the graph",
                    at=str(app.location),
                    hint=f"run it by its module name: streamkit run {name}",
                )


def _is_same_app(app: App, other: App) -> bool:
    return (
        other.name == app.name
        and other.module != app.module
        and os.path.realpath(other.location.file) == os.path.realpath(app.location.file)
    )


def _is_of_file(module: object, file: str) -> bool:
    other = getattr(module, "__file__", None)
    # A program has thousands of modules, and `realpath` reads the disk, so names come first.
    if not isinstance(other, str) or os.path.basename(other) != os.path.basename(file):
        return False
    return os.path.realpath(other) == os.path.realpath(file)
