"""Runs a generated test file in a separate pytest, with the conftest of these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_SETTINGS: Final = "[pytest]\nmarkers = peers\nfilterwarnings = error\n"
# The generated tests need no plugins, and loading the installed ones would take most of the time.
_QUICK: Final = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_tests(folder: Path, source: str, *, more_conftest: str = "", **variables: str) -> str:
    """Run one test file and return what pytest reports."""
    conftest = (ROOT / "tests" / "conftest.py").read_text()
    (folder / "conftest.py").write_text(conftest + more_conftest)
    (folder / "pytest.ini").write_text(_SETTINGS)
    (folder / "test_it.py").write_text(source)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAMKIT", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**kept, **_QUICK, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout
