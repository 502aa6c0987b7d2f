"""Every code block of the README and the docs runs, and prints what the page shows."""

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
def test_a_page_has_no_comment_that_skips_a_block(path: Path) -> None:
    assert not re.search(r"<!-+;?\s*(skip|pytest|invisible)", path.read_text())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_installs_only_existing_extras(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"pip install '\.\[([a-z,]+)\]'", path.read_text()):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_names_only_existing_scripts(path: Path) -> None:
    for name in re.findall(r"`(scripts/\w+)", path.read_text()):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} is not executable"


def test_an_ellipsis_matches_any_lines_or_any_part_of_a_line() -> None:
    assert difference("a\n...\nb ... c\n", "a\n1\n2\nb 3 c\n") is None
    assert difference("a\n...\nb\n", "a\nb\n") is None
    assert difference("a ...\n", "a 1\n2\n") is not None


def test_times_and_rates_are_not_compared() -> None:
    shown = "3 records produced to rides in 0.003 s (910/s)"
    assert difference(shown, "3 records produced to rides in 1.2 s (1,100/s)") is None
    assert difference(shown, "4 records produced to rides in 0.003 s (910/s)") is not None
