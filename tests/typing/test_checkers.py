"""Type checkers accept the right programs and refuse the wrong ones, each on its line."""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

from tests.typing.checkers import (
    HERE,
    Finding,
    Place,
    copy_programs,
    expected_words,
    pyright_is_here,
    run_mypy,
    run_pyright,
)
from tests.typing.right import first


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_programs(tmp_path_factory.mktemp("typing"))


def test_mypy_accepts_the_right_programs_and_refuses_the_wrong_ones(programs: Path) -> None:
    expected = {place: word for place, word, _ in expected_words(programs)}
    assert differences(expected, run_mypy(programs)) == []


def test_pyright_accepts_the_right_programs_and_refuses_the_wrong_ones(programs: Path) -> None:
    if not pyright_is_here():
        pytest.skip("needs an optional package: pyright, and Node to run it without a network")
    expected = {place: word for place, _, word in expected_words(programs)}
    assert differences(expected, run_pyright(programs)) == []


def test_every_wrong_program_lists_an_expected_error(programs: Path) -> None:
    files = {file for (file, _), _, _ in expected_words(programs)}
    wrong = {path.relative_to(programs).as_posix() for path in programs.glob("wrong/[!_]*.py")}
    assert files == wrong


@pytest.mark.parametrize("program", sorted(path.stem for path in HERE.glob("right/[!_]*.py")))
def test_right_programs_also_run(program: str) -> None:
    module = import_module(f"tests.typing.right.{program}")
    assert module.app.topology.nodes


def test_the_first_program_passes_its_own_test() -> None:
    first.test_only_late_flights_pass()


def differences(expected: dict[Place, str], found: list[Finding]) -> list[str]:
    """Return a line for each place where a checker reports something unexpected."""
    reported: dict[Place, str] = defaultdict(str)
    for each in found:
        reported[each.place] += each.text + "\n"
    return [
        f"{file}:{line}: expected {expected.get((file, line), 'no error')!r}, "
        f"but got {reported.get((file, line), 'no error')!r}"
        for file, line in sorted(expected.keys() | reported.keys())
        if expected.get((file, line), "\0") not in reported.get((file, line), "")
    ]
