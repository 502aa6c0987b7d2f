"""ARCHITECTURE.md names what is there, and leaves out no room."""

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
def test_what_is_named_is_there(name: str) -> None:
    folder, _, rest = name.partition("/")
    assert ((PACKAGE if folder == "streamkit" else ROOT / folder) / rest).exists()


def test_every_room_is_named() -> None:
    rooms = {f"streamkit/{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    modules = {
        f"streamkit/{path.name}" for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")
    }
    assert rooms | modules <= set(NAMED)


def test_a_file_without_its_folder_is_in_the_room_of_its_line() -> None:
    for room, rest in re.findall(r"^\| `(streamkit/\w+/)` \| (.*) \|$", TEXT, re.MULTILINE):
        for name in re.findall(r"`(\w+\.py)`", rest):
            assert (PACKAGE / room.removeprefix("streamkit/") / name).exists(), f"{room}{name}"


def test_the_floors_are_those_that_the_linter_keeps() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    kept = [
        {
            name
            for name in re.findall(r"\((\w+)\)", floor)
            if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
        }
        for floor in project["tool"]["importlinter"]["contracts"][0]["layers"]
    ]
    drawing = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert drawing is not None
    drawn = [set(re.findall(r"\w+", line[:28])) for line in drawing[1].splitlines()]
    assert drawn == kept
