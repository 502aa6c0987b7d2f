"""Runs type checkers on programs, and reads the errors that the programs expect."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
_MARKER: Final = re.compile(r"# error: (?P<mypy>.+?)(?: / (?P<pyright>.+))?$")
# mypy reports this in addition if a decorator is wrong.
_NOISE: Final = "untyped-decorator"

Place = tuple[str, int]
Checker = Callable[[Path], "list[Finding]"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One error: its file and line, and the text of the checker."""

    file: str
    line: int
    text: str

    @property
    def place(self) -> Place:
        return self.file, self.line


def copy_programs(folder: Path) -> Path:
    """Copy the programs to a folder where the settings of this repository do not apply."""
    programs = folder / "programs"
    for name in ("right", "wrong"):
        shutil.copytree(HERE / name, programs / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "rows.py", programs)
    (programs / "__init__.py").touch()
    return programs


def expected_words(programs: Path) -> Iterator[tuple[Place, str, str]]:
    """Yield the place of each line with ``# error: word``, and the words for both checkers.

    ``# error: one / another`` has the word of mypy and the word of pyright.
    """
    for path in sorted(programs.rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if found := _MARKER.search(line):
                place = path.relative_to(programs).as_posix(), number
                yield place, found["mypy"], found["pyright"] or found["mypy"]


def run_mypy(programs: Path) -> list[Finding]:
    """Check with ``mypy --strict`` and no other settings."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--output=json", "--config-file=",
         "--follow-imports=silent", f"--cache-dir={programs.parent / 'cache'}", "programs"],
        cwd=programs.parent,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [
        Finding(
            each["file"].removeprefix("programs/"),
            each["line"],
            f"{each['message']} {each['hint'] or ''} [{each['code']}]",
        )
        for each in errors
        if each["severity"] == "error" and each["code"] != _NOISE
    ]


def pyright_is_here() -> bool:
    """Return whether pyright runs; without Node on this machine it needs the network."""
    if find_spec("pyright") is None:
        return False
    try:
        return _pyright("--version", timeout_s=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def run_pyright(programs: Path) -> list[Finding]:
    """Check with pyright and its default settings, as an editor does."""
    settings = {"extraPaths": [str(ROOT)], "include": ["programs"]}
    (programs.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    project = str(programs.parent)
    done = _pyright("--outputjson", "--pythonpath", sys.executable, "--project", project)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [
        Finding(
            Path(each["file"]).relative_to(programs.resolve()).as_posix(),
            each["range"]["start"]["line"] + 1,
            f"{each['message']} [{each.get('rule', '')}]",
        )
        for each in json.loads(done.stdout)["generalDiagnostics"]
        if each["severity"] == "error"
    ]


def _pyright(*arguments: str, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyright", *arguments],
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},  # no check for a new version
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
