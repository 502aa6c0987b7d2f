"""ARCHITECTURE.md names only existing files, and every package and module."""

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
def test_a_named_file_exists(name: str) -> None:
    folder, _, rest = name.partition("/")
    assert ((PACKAGE if folder == "streamkit" else ROOT / folder) / rest).exists()


def test_every_package_and_module_is_named() -> None:
    packages = {f"streamkit/{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    modules = {
        f"streamkit/{path.name}" for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")
    }
    assert packages | modules <= set(NAMED)


def test_a_file_named_without_its_folder_is_in_the_package_of_its_row() -> None:
    for package, rest in re.findall(r"^\| `(streamkit/\w+/)` \| (.*) \|$", TEXT, re.MULTILINE):
        folder = PACKAGE / package.removeprefix("streamkit/")
        for name in re.findall(r"`(\w+\.py)`", rest):
            assert (folder / name).exists(), f"{package}{name}"


def test_the_drawn_layers_are_those_that_the_linter_checks() -> None:
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
    drawn = [set(re.findall(r"\w+", line[:28])) for line in drawing[1].splitlines()]
    assert drawn == checked
