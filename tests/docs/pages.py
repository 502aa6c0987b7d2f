"""Runs the blocks of a page from top to bottom in one folder, as a reader would.

| block | what is done with it |
|---|---|
| any language with ``title="name"`` | saved under that name |
| ``python`` | run; all Python of a page is one module |
| ``bash`` | run; it must succeed |
| ``text``, ``mermaid`` | compared with what the block above has printed |
| ``sh`` | installs something, so it is only compared with `INSTALLS` |

Nothing else may stand in a fence, so no block goes unseen. In expected output ``...`` stands
for anything; numbers that differ from run to run are not compared.
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

# What a page may tell the reader to run that a test does not: it would change the machine.
INSTALLS: Final = re.compile(
    r"python3 -m venv \S+|\. \S+/bin/activate|pip install '\.\[[a-z,]+\]'|cd \S+"
)
_BROKER: Final = "streamkit broker start"
_READY: Final = re.compile(r"ready sc=(\S+) spu=(\S+)")
_STANDARD_ADDRESSES: Final = ("127.0.0.1:9103", "127.0.0.1:9110")
_BLOCK_S_MAX: Final = 60.0
_INFO: Final = re.compile(r"(?P<info>[^\n]*)\n")
_TITLED: Final = re.compile(r'(?P<language>[a-z]+)(?: title="(?P<title>[^"]+)")?')
# What the clock, the system's choice of ports and the size of the first chunk decide.
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
    """One page on its way. ``folder`` is where its blocks work."""

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
            SybilFailure: One of them is not as the page says; the text names its line.
        """
        document = Sybil([self._regions], path=str(self._path.parent)).parse(self._path)
        with self._as_a_module():
            try:
                for example in document.examples():
                    example.evaluate()
            finally:
                self._end_brokers()
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
            return f"nobody knows what to do with a block of {example.region.lexemes['info']!r}"
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
                return f"a block of {language} needs a title, or something that runs it"
        return None

    # --- one block -------------------------------------------------------------------

    def _save(self, name: str, source: str, line: int) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._with_addresses(source))
        self._saved[name] = line

    def _is_used(self, name: str) -> bool:
        """Tell whether another block names a file, or imports it."""
        place = Path(name)
        if place.name in ("streamkit.toml", "pyproject.toml"):
            return True  # streamkit finds them by itself
        module = re.compile(rf"\b{re.escape('.'.join(place.with_suffix('').parts))}\b")
        return any(
            place.name in source or module.search(source)
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

    # --- a broker that stays until the page ends ---------------------------------------

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
        assert broker.stdout is not None, "it is a pipe"
        line = broker.stdout.readline()
        ready = _READY.fullmatch(line.strip())
        assert ready is not None, f"the broker said {line!r}"
        self._addresses = dict(zip(_STANDARD_ADDRESSES, ready.groups(), strict=True))
        return line

    def _with_addresses(self, source: str) -> str:
        """Put the broker of this page where the page names the usual ports."""
        for standard, chosen in self._addresses.items():
            source = source.replace(standard, chosen)
        return source

    def _end_brokers(self) -> None:
        for broker in self._brokers:
            broker.send_signal(signal.SIGTERM)
        for broker in self._brokers:
            broker.communicate()

    @contextlib.contextmanager
    def _as_a_module(self) -> Iterator[None]:
        """Work in the page's folder, and import from it, until the page ends."""
        known = set(sys.modules)
        before = Path.cwd()
        os.chdir(self._folder)
        sys.path.insert(0, str(self._folder))
        sys.modules["page"] = self._module
        try:
            yield
        finally:
            os.chdir(before)
            sys.path.remove(str(self._folder))
            for name in set(sys.modules) - known:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(self._folder)):
                    del sys.modules[name]
            sys.modules.pop("page", None)


def environment() -> dict[str, str]:
    """Return variables with which ``streamkit`` and ``python`` are those of the test."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    scripts = str(Path(sys.executable).parent)
    return found | {"PATH": f"{scripts}{os.pathsep}{found['PATH']}", "NO_COLOR": "1"}


def difference(expected: str, printed: str | None) -> str | None:
    """Return how an output differs from what a page shows; None where it does not."""
    if printed is None:
        return "there is output here, but nothing was run above it"
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
    strange = [line for line in source.splitlines() if not INSTALLS.fullmatch(line)]
    return (
        f"these could be run, so they belong into a block of bash: {strange}" if strange else None
    )
