"""Runs the code blocks of a page from top to bottom in one folder, as a reader would.

| block | treatment |
|---|---|
| any language with ``title="name"`` | saved under that name |
| ``python`` | run; all Python blocks of a page form one module |
| ``bash`` | run; it must succeed |
| ``text``, ``mermaid`` | compared with the output of the block above |
| ``sh`` | installs something, so it is only compared with `INSTALLS` |

Any other block is an error, so that every block is tested. In expected output, ``...`` matches
anything, and numbers that differ from run to run are not compared.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

# Commands for the reader that a test does not run, because they would change the machine.
INSTALLS: Final = re.compile(
    r"python3 -m venv \S+|\. \S+/bin/activate|pip install '\.\[[a-z,]+\]'|cd \S+"
)
_BROKER: Final = "streamkit broker start"
_READY: Final = re.compile(r"ready sc=(\S+) spu=(\S+)")
_STANDARD_ADDRESSES: Final = ("127.0.0.1:9103", "127.0.0.1:9110")
_BLOCK_S_MAX: Final = 60.0
_INFO: Final = re.compile(r"(?P<info>[^\n]*)\n")
_TITLED: Final = re.compile(r'(?P<language>[a-z]+)(?: title="(?P<title>[^"]+)")?')
# Output that depends on the time, the chosen ports or the size of the first chunk.
_VARYING: Final = tuple(
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"\b\d+(\.\d+)? ?s\b", "N s"),
        (r"[\d,]+/s\b", "N/s"),
        (r"[\d,]+ records/s", "N records/s"),
        (r"p99 \d+ ms", "p99 N ms"),
        (r"\b\d+ commits?\b", "N commits"),
        (r"127\.0\.0\.1:\d+", "HOST:PORT"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "TIME"),
        (r"^flushing: unacknowledged records: .*$", "flushing"),
    )
)


class Page:
    """Runs the blocks of one page in ``folder``."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._module = types.ModuleType("page")
        self._output: str | None = None
        self._brokers: list[subprocess.Popen[str]] = []
        self._addresses: dict[str, str] = {}
        self._sources: dict[int, str] = {}
        self._saved: dict[str, int] = {}

    def run(self) -> None:
        """Run every block.

        Raises:
            SybilFailure: A block failed or printed something else; the message names its line.
        """
        document = Sybil([self._regions], path=str(self._path.parent)).parse(self._path)
        with self._as_a_module():
            try:
                for example in document.examples():
                    example.evaluate()
            finally:
                self._stop_brokers()
        unused = [name for name in self._saved if not self._is_used(name)]
        assert not unused, f"{self._path.name}: saved, but never used: {unused}"

    def _regions(self, document: Document) -> Iterable[Region]:
        for region in RawFencedCodeBlockLexer(_INFO)(document):
            region.parsed = region.lexemes["source"]
            region.evaluator = self._evaluate
            yield region

    def _evaluate(self, example: Example) -> str | None:
        found = _TITLED.fullmatch(example.region.lexemes["info"].strip())
        if found is None:
            return f"unknown kind of block: {example.region.lexemes['info']!r}"
        language, title = found["language"], found["title"]
        source = str(example.parsed)
        self._sources[example.line] = source
        if title is not None:
            self._save(title, source, example.line)
            return None
        match language:
            case "python":
                self._output = self._python(source, f"{self._path.name}:{example.line}")
            case "bash":
                return self._bash(source)
            case "text" | "mermaid":
                expected, self._output = self._output, None
                return difference(source, expected)
            case "sh":
                return _only_installs(source)
            case _:
                return f"a {language} block needs a title, or a rule in tests/docs/pages.py"
        return None

    # --- one block -------------------------------------------------------------------

    def _save(self, name: str, source: str, line: int) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._with_addresses(source))
        self._saved[name] = line

    def _is_used(self, name: str) -> bool:
        """Return whether another block names a file or imports it."""
        file = Path(name)
        if file.name in ("streamkit.toml", "pyproject.toml"):
            return True  # streamkit reads them automatically
        module = re.compile(rf"\b{re.escape('.'.join(file.with_suffix('').parts))}\b")
        return any(
            file.name in source or module.search(source)
            for line, source in self._sources.items()
            if line != self._saved[name]
        )

    def _python(self, source: str, name: str) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(self._with_addresses(source), name, "exec"), vars(self._module))
        return printed.getvalue()

    def _bash(self, source: str) -> str | None:
        if source.strip() == _BROKER:
            self._output = self._start_broker()
            return None
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._with_addresses(source)],
            cwd=self._folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_BLOCK_S_MAX,
            check=False,
        )
        self._output = done.stdout
        if done.returncode:
            return f"exit code {done.returncode}:\n{done.stdout}"
        return None

    # --- a broker that runs until the page ends ----------------------------------------

    def _start_broker(self) -> str:
        broker = subprocess.Popen(
            ["streamkit", "broker", "start", "--sc-port", "0", "--spu-port", "0"],
            cwd=self._folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._brokers.append(broker)
        assert broker.stdout is not None, "stdout is a pipe"
        line = broker.stdout.readline()
        ready = _READY.fullmatch(line.strip())
        assert ready is not None, f"the broker printed {line!r}"
        self._addresses = dict(zip(_STANDARD_ADDRESSES, ready.groups(), strict=True))
        return line

    def _with_addresses(self, source: str) -> str:
        """Replace the default addresses in a block with those of this page's broker."""
        for standard, chosen in self._addresses.items():
            source = source.replace(standard, chosen)
        return source

    def _stop_brokers(self) -> None:
        for broker in self._brokers:
            broker.send_signal(signal.SIGTERM)
        for broker in self._brokers:
            broker.communicate()

    @contextlib.contextmanager
    def _as_a_module(self) -> Iterator[None]:
        """Change to the page's folder and import from it, until the end of the block."""
        modules_before = set(sys.modules)
        folder_before = Path.cwd()
        os.chdir(self._folder)
        sys.path.insert(0, str(self._folder))
        sys.modules["page"] = self._module
        try:
            yield
        finally:
            os.chdir(folder_before)
            sys.path.remove(str(self._folder))
            for name in set(sys.modules) - modules_before:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(self._folder)):
                    del sys.modules[name]
            sys.modules.pop("page", None)


def environment() -> dict[str, str]:
    """Return variables that make ``streamkit`` and ``python`` those of the running test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    scripts = str(Path(sys.executable).parent)
    return kept | {"PATH": f"{scripts}{os.pathsep}{kept['PATH']}", "NO_COLOR": "1"}


def difference(expected: str, printed: str | None) -> str | None:
    """Return how an output differs from what a page shows; None if it does not."""
    if printed is None:
        return "the page shows output, but no block above it was run"
    shown, got = _steady(expected), _steady(printed)
    lines = [
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in shown.splitlines()
    ]
    if re.fullmatch("".join(lines), got):
        return None
    return f"the page shows\n{shown}\nbut this was printed\n{got}"


def _steady(text: str) -> str:
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return "".join(line.rstrip() + "\n" for line in text.strip("\n").splitlines())


def _only_installs(source: str) -> str | None:
    others = [line for line in source.splitlines() if not INSTALLS.fullmatch(line)]
    return f"lines that install nothing belong in a bash block: {others}" if others else None
