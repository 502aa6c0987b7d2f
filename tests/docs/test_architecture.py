"""ARCHITECTURE.md names every file, and only existing ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import streamkit
from tests.docs.pages import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGE = Path(streamkit.__file__).parent
NAMED = sorted(set(re.findall(r"`((?:streamkit|tests|examples|docs|scripts)/[\w./-]*)`", TEXT)))


@pytest.mark.parametrize("name", NAMED)
def test_a_path_that_is_named_exists(name: str) -> None:
    folder, _, rest = name.partition("/")
    assert ((PACKAGE if folder == "streamkit" else ROOT / folder) / rest).exists()


def test_every_file_is_named() -> None:
    files = {
        f"streamkit/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.suffix in (".py", ".pxd") and path.parent != PACKAGE and path.stem != "__init__"
    }
    modules = {f"streamkit/{path.name}" for path in PACKAGE.glob("*.py")}
    assert files | modules <= set(NAMED)


def test_every_member_that_is_named_exists() -> None:
    for member, module in re.findall(
        r"`(\w+)(?:\.\w+)?` (?:of|in|and a row of `\w+` in) `(streamkit/[\w/]+\.py)`", TEXT
    ):
        assert re.search(rf"\b{member}\b", (PACKAGE.parent / module).read_text()), member


def test_the_drawing_has_the_layers_of_the_linter() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    checked = [
        {
            name
            for name in re.findall(r"\((\w+)\)", layer)
            if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
        }
        for layer in project["tool"]["importlinter"]["contracts"][0]["layers"]
    ]
    drawing = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert drawing is not None
    lines = [line[:31] for line in drawing[1].splitlines() if line.strip() not in ("|", "v")]
    assert [set(re.findall(r"\w+", line)) for line in lines] == checked
