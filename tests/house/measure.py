"""Measures the source: lines of files, functions and classes, parameters, uses of `Any`.

Run it to print the figures of the package: ``python -m tests.house.measure``.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "streamkit"


@dataclass(slots=True)
class Figures:
    """Sizes by name: ``streamkit/app.py`` of a file, ``streamkit/app.py App.run`` of a member.

    The lines of a function are those without its docstring, so that documentation costs nothing.
    """

    files: dict[str, int] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    any_count: int = 0

    @property
    def any_per_1000_lines(self) -> float:
        return 1_000 * self.any_count / sum(self.files.values())


def measure(package: Path = PACKAGE) -> Figures:
    """Return the figures of every Python file below a folder."""
    figures = Figures()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package.parent).as_posix()
        source = path.read_text()
        tree = ast.parse(source)
        figures.files[name] = source.count("\n")
        figures.any_count += sum(
            isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree)
        )
        for qualified, node in _definitions(tree, ""):
            _note(figures, f"{name} {qualified}", node)
    return figures


def _note(
    figures: Figures, name: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> None:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if isinstance(node, ast.ClassDef):
        figures.classes[name] = lines
        return
    # Overloads share a name with their implementation: the largest counts.
    figures.functions[name] = max(figures.functions.get(name, 0), lines - _docstring_lines(node))
    figures.parameters[name] = max(figures.parameters.get(name, 0), _parameter_count(node))


def _definitions(
    tree: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name, node
            yield from _definitions(node, f"{prefix}{node.name}.")
        else:
            yield from _definitions(node, prefix)


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is None:
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def _parameter_count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count parameters without self; ``*args`` and ``**options`` are one each."""
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    if names and names[0] in ("self", "cls"):
        del names[0]
    return len(names) + (node.args.vararg is not None) + (node.args.kwarg is not None)


def _print_figures() -> None:
    figures = measure()
    sizes = sorted(figures.functions.values())
    lines = list(figures.files.values())
    rows = {
        "files; median; largest": f"{len(lines)}; {statistics.median(lines):.0f}; {max(lines)}",
        "function lines: median; p90; max": (
            f"{statistics.median(sizes):.0f}; {sizes[len(sizes) * 9 // 10]}; {sizes[-1]}"
        ),
        "most parameters": max(figures.parameters.values()),
        "largest class": max(figures.classes.values()),
        "Any per 1,000 lines": f"{figures.any_per_1000_lines:.1f}",
    }
    for name, value in rows.items():
        sys.stdout.write(f"{name:34} {value}\n")


if __name__ == "__main__":
    _print_figures()
