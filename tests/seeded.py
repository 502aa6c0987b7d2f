"""Seeded bugs: changes the source of a function while a test runs, to see its check fail."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Edit:
    """A change of the source of a function: ``text`` is replaced with ``becomes``."""

    owner: Any
    name: str
    text: str
    becomes: str

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        function = getattr(self.owner, self.name)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.text) == 1, f"{self.name} has changed: update this bug"
        flags = __future__.annotations.compiler_flag
        code = compile(source.replace(self.text, self.becomes), self.name, "exec", flags)
        found: dict[str, Any] = {}
        exec(code, function.__globals__, found)
        patch.setattr(self.owner, self.name, found[self.name])
