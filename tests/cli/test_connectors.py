"""`streamkit connectors`: what is installed, also if a part of it is broken."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner

from streamkit.cli.main import cli
from streamkit.connectors.registry import (
    BUILT_IN,
    ConnectorFacts,
    OptionFacts,
    find,
    markdown,
    options_of,
)
from streamkit.connectors.sql import SqlTable
from streamkit.errors import UsageError
from tests.docs.pages import ROOT


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["connectors", *arguments], prog_name="streamkit")
    assert result.exception is None, result.output
    return result.output


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a stranger with one connector that works, and three that do not."""
    folder = tmp_path / "strange-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[streamkit.connectors]\n"
        "good = strange_connectors:GOOD\nnumber = strange_connectors:NUMBER\n"
        "missing = strange_connectors:MISSING\nbroken = strange_broken:GOOD\n"
    )
    (tmp_path / "strange_broken.py").write_text("raise ValueError('this machine is strange')\n")
    (tmp_path / "strange_connectors.py").write_text(
        "from streamkit.connectors.registry import ConnectorFacts\n"
        "GOOD = ConnectorFacts('good', 'Reads stars.', extra='stars')\nNUMBER = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "strange_connectors", raising=False)
    return tmp_path


def test_the_list_has_our_connectors() -> None:
    rows = json.loads(shown("list", "-O", "json"))
    assert {row["name"] for row in rows} >= set(BUILT_IN)
    (row,) = [row for row in rows if row["name"] == "files-jsonl"]
    assert row == {
        "name": "files-jsonl",
        "source": None,
        "sink": "JsonLines",
        "lookup": None,
        "extra": None,
        "guarantee": "at least once",
        "summary": "Appends JSON values to a file, one for each line.",
        "problem": None,
    }


@pytest.mark.usefixtures("strangers")
def test_broken_connectors_of_strangers_are_listed_with_their_error() -> None:
    rows = {row["name"]: row for row in json.loads(shown("list", "-O", "json"))}
    assert rows["good"]["summary"] == "Reads stars."
    assert rows["broken"]["problem"] == "strange_broken:GOOD: ValueError: this machine is strange"
    assert "AttributeError" in rows["missing"]["problem"]
    assert rows["number"]["problem"] == "strange_connectors:NUMBER is not a ConnectorFacts"
    assert rows["files-jsonl"]["problem"] is None
    assert "this machine is strange" in shown("list")
    with pytest.raises(UsageError, match=r"'broken' cannot be used: .*this machine is strange"):
        find("broken")


def test_connectors_are_listed_without_the_libraries_that_they_need() -> None:
    program = (
        "import sys\n"
        "for name in ('confluent_kafka', 'h11', 'httpx2', 'psycopg'): sys.modules[name] = None\n"
        "from streamkit.cli.main import cli\n"
        "cli(['connectors', 'list', '-O', 'json'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert {row["name"] for row in json.loads(done.stdout) if not row["problem"]} >= set(BUILT_IN)


def test_a_name_that_does_not_exist_is_an_error_with_the_names() -> None:
    with pytest.raises(UsageError, match="there is no connector 'kafk'") as caught:
        find("kafk")
    assert "files-jsonl" in (caught.value.hint or "")


@dataclass(frozen=True)
class Stars:
    """Reads stars.

    Attributes:
        place: Where the stars are,
            seen from here.
        count: How many.
    """

    place: str
    count: int = 3
    names: tuple[str, ...] = field(default_factory=tuple, metadata={"help": "Names | words"})
    _hidden: int = 0


def test_options_come_from_the_class() -> None:
    assert options_of(ConnectorFacts("stars", "Reads stars.", source=Stars)) == [
        OptionFacts("source", "place", "str", None, "Where the stars are, seen from here."),
        OptionFacts("source", "count", "int", "3", "How many."),
        OptionFacts("source", "names", "tuple[str, ...]", "()", "Names | words"),
    ]


@dataclass(frozen=True)
class Planets:
    near: Places | None = None
    side: Side = "dark"
    since: timedelta | None = None


Places = Mapping[str, Path | str]
Side = Literal["dark", "light"]


def test_an_alias_is_shown_as_its_type_without_modules() -> None:
    found = options_of(ConnectorFacts("planets", "Reads planets.", sink=Planets))
    assert [each.type for each in found] == [
        "Mapping[str, Path | str] | None",
        "Literal['dark', 'light']",
        "timedelta | None",
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_of_our_connectors_has_a_help_text(name: str) -> None:
    facts = find(name)
    assert facts.name == name
    assert facts.summary.endswith(".")
    assert [each.name for each in options_of(facts) if not each.help] == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_page_has_the_section_of_each_connector(name: str) -> None:
    section = markdown(find(name))
    assert shown("show", name, "--markdown") == section
    assert any(section in path.read_text() for path in (ROOT / "docs").glob("*.md"))


def test_show_prints_the_options() -> None:
    text = shown("show", "files-jsonl")
    assert "writes: at least once" in text
    assert "options of the source" not in text
    assert "\noptions of the sink:\n  path: str | Path, required\n      The file; it is" in text
    assert "`" not in shown("show", "http")
    found: dict[str, Any] = json.loads(shown("show", "files-jsonl", "--json"))
    assert [each["name"] for each in found["options"]] == ["path"]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "arguments", [("list",), *(("show", name) for name in BUILT_IN)], ids=" ".join
)
def test_the_output_fits_into_the_terminal(arguments: tuple[str, ...], columns: int) -> None:
    lines = on_terminal(columns, *arguments)
    first = next(at for at, line in enumerate(lines) if line.startswith(("NAME ", "options ")))
    assert max(map(len, lines[first:])) <= columns
    assert "".join("".join(lines).split()) == "".join(shown(*arguments).split())


def test_a_long_text_continues_in_its_column() -> None:
    lines = on_terminal(80, "list")
    (at,) = [number for number, line in enumerate(lines) if line.startswith("webhook ")]
    indent = lines[0].index("SUMMARY")
    assert lines[at][indent:] == "Receives records that HTTP"
    assert lines[at + 1] == " " * indent + "clients post, and responds when"


@pytest.mark.usefixtures("strangers")
def test_the_error_of_a_broken_connector_is_in_its_line() -> None:
    (line,) = [line for line in shown("list").splitlines() if line.startswith("broken ")]
    assert line.split(maxsplit=3)[1:3] == ["-", "-"]
    assert line.endswith("cannot be used: strange_broken:GOOD: ValueError: this machine is strange")


def on_terminal(columns: int, *arguments: str) -> list[str]:
    """Return the lines that the command prints on a terminal of this width."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "streamkit", "connectors", *arguments]
    output = b""
    with subprocess.Popen(command, stdout=theirs, env=variables, cwd=ROOT) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # Linux reports the end as EIO
            while part := os.read(ours, 4096):
                output += part
    os.close(ours)
    assert process.returncode == 0
    return output.decode().splitlines()


def test_a_table_that_is_no_source_has_options_of_its_own() -> None:
    own = ConnectorFacts("own", "Finds rows.", lookup=SqlTable)
    assert {each.of for each in options_of(own)} == {"lookup"}
    both = ConnectorFacts("both", "Reads and finds rows.", source=SqlTable, lookup=SqlTable)
    assert {each.of for each in options_of(both)} == {"source"}
