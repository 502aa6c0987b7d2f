"""An edge that a type checker accepts is never refused when the graph is checked."""

from __future__ import annotations

import ast
import contextlib
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from streamkit import App
from streamkit.dataflow.topology import clashes
from streamkit.errors import TopologyError
from tests.typing import kinds
from tests.typing.checkers import run_mypy

SOURCE = Path(kinds.__file__).read_text()
(LISTED,) = (each.value for each in ast.parse(SOURCE).body if isinstance(each, ast.AnnAssign))
assert isinstance(LISTED, ast.List)
BY_TEXT = dict(zip(map(ast.unparse, LISTED.elts), kinds.KINDS, strict=True))


def test_no_edge_that_mypy_accepts_is_refused(tmp_path: Path) -> None:
    pairs = list(product(BY_TEXT, BY_TEXT))
    lines = [
        f"def f{number}(value: {given}, take: Callable[[{expected}], None]) -> None: take(value)"
        for number, (given, expected) in enumerate(pairs)
    ]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "__init__.py").touch()
    (programs / "edges.py").write_text(SOURCE + "\n".join(lines))
    first = SOURCE.count("\n") + 1
    refused = {each.line - first for each in run_mypy(programs) if "[arg-type]" in each.text}
    assert len(refused) > len(pairs) / 4, "mypy must have checked the pairs"
    clashing = {row for row, pair in enumerate(pairs) if clashes(*(BY_TEXT[each] for each in pair))}
    assert [pairs[row] for row in clashing - refused] == []
    assert len(clashing) > len(refused) / 5, "plain classes must be compared"


def test_no_annotation_makes_the_check_raise_an_unexpected_error() -> None:
    for given, expected in product(BY_TEXT.values(), BY_TEXT.values()):
        app = App("edges")
        numbers = app.stream("numbers", int)

        def one(value: Any) -> Any: ...

        def two(value: Any) -> Any: ...

        one.__annotations__ = {"value": int, "return": given}
        two.__annotations__ = {"value": expected, "return": Any}
        app.stage(app.stage(numbers)(one))(two).to("out")
        with contextlib.suppress(TopologyError):
            app.check()


@pytest.mark.parametrize("given", ["Any", "HasX", "Airport", "object", "Code", "A | C", "Dynamic"])
def test_possibly_compatible_types_are_not_refused(given: str) -> None:
    assert not any(
        clashes(BY_TEXT[given], expected) for expected in BY_TEXT.values() if given != "object"
    )
    if given != "Code":
        assert not any(
            clashes(each, BY_TEXT[given]) for each in BY_TEXT.values() if given != "Dynamic"
        )


@pytest.mark.parametrize(
    ("given", "expected"),
    [("int", "str"), ("float", "int"), ("A", "C"), ("A", "B"), ("Plain", "A")],
)
def test_incompatible_classes_are_refused(given: str, expected: str) -> None:
    assert clashes(BY_TEXT[given], BY_TEXT[expected])
