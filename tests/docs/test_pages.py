"""Every snippet of README and docs runs, and prints what the page says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Page, difference


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    Page(path, tmp_path).run()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_no_mark_that_leaves_something_out(path: Path) -> None:
    assert not re.search(r"<!-+;?\s*(skip|pytest|invisible)", path.read_text())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_installs_only_extras_that_are_there(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"pip install '\.\[([a-z,]+)\]'", path.read_text()):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_names_only_scripts_that_are_there(path: Path) -> None:
    for name in re.findall(r"`(scripts/\w+)", path.read_text()):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} is no program"


def test_three_points_stand_for_any_lines_or_any_part_of_one() -> None:
    assert difference("a\n...\nb ... c\n", "a\n1\n2\nb 3 c\n") is None
    assert difference("a\n...\nb\n", "a\nb\n") is None
    assert difference("a ...\n", "a 1\n2\n") is not None


def test_what_the_clock_decides_is_not_compared() -> None:
    shown = "3 records produced to rides in 0.003 s (910/s)"
    assert difference(shown, "3 records produced to rides in 1.2 s (1,100/s)") is None
    assert difference(shown, "4 records produced to rides in 0.003 s (910/s)") is not None
