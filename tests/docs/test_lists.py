"""Lists in the documentation equal those in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamkit import errors, limits
from streamkit.broker.data_folder import DataFolder
from streamkit.cli.main import COMMANDS
from streamkit.runtime.shutdown import (
    DUE_SHARE,
    EXIT_CLEAN,
    EXIT_CRASH_LOOP,
    EXIT_FAILED,
    EXIT_LATE,
    EXIT_SIGNAL_BASE,
    NEXT_IF_LATE,
    Phase,
)
from streamkit.settings import KEYS
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
# Limits that users do not notice: sizes of groups and caches, and defaults of the client.
INTERNAL = {
    *("KIB", "MIB", "FRAME_BYTES_MIN", "BATCH_BYTES_MAX", "DECOMPRESSION_RATIO_FREE_BYTES"),
    *("SYNC_GROUP_BYTES_MAX", "JOURNAL_BYTES_MAX", "JOURNAL_SYNC_S_MAX", "INDEX_INTERVAL_BYTES"),
    *("FETCH_BYTES_DEFAULT", "BATCH_BYTES_DEFAULT"),
    *("REQUEST_BYTES_DEFAULT", "CHUNK_RECORDS_MAX", "CHUNK_BYTES_MAX"),
    *("COLUMNS_RECORDS_MAX", "COLUMNS_BYTES_MAX"),
    *("FEED_BYTES_MAX", "SIGNAL_WAIT_S_MAX"),
}
# Limits of jobs, which another page describes.
OF_JOBS = {"QUEUED_RECORDS_MAX", "QUEUED_BYTES_MAX", "PARKED_RECORDS_MAX"}


UNITS = {"KiB": limits.KIB, "MiB": limits.MIB, "GiB": 1_024 * limits.MIB}


def section(page: str, title: str) -> str:
    """Return the text under a heading of a page."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.M | re.S)
    assert found is not None, f"{page} has no heading {title!r}"
    return found[1]


def rows(page: str, title: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its header."""
    lines = [line for line in section(page, title).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return cells[2:]


def code(cell: str) -> str:
    return cell.strip("`")


def test_the_documented_error_tree_matches_the_code() -> None:
    listed = re.search(r"```text\n(.*?)```", section("guarantees.md", "The error tree"), re.S)
    assert listed is not None

    def lines(kind: type[Exception], depth: int) -> list[str]:
        children = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
        descendants = [line for each in children for line in lines(each, depth + 1)]
        return ["  " * depth + kind.__name__, *descendants]

    assert listed[1].splitlines() == lines(errors.StreamKitError, 0)
    assert errors.__doc__ is not None
    assert "\n".join(lines(errors.StreamKitError, 0)) in errors.__doc__


def test_every_branch_of_the_error_tree_has_advice() -> None:
    branches = {
        each.__name__
        for each in errors.StreamKitError.__subclasses__()
        if each.__module__ == errors.__name__
    }
    assert {code(row[0]) for row in rows("guarantees.md", "The error tree")} == branches


def test_the_documented_limits_match_the_code() -> None:
    listed = {code(row[0]): row[1] for row in rows("broker.md", "Limits")}
    found = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert listed == {
        name: shown(name, value) for name, value in found.items() if name not in INTERNAL | OF_JOBS
    }
    assert not INTERNAL - found.keys()


def test_the_documented_limits_of_waiting_records_match_the_code() -> None:
    text = section("calls.md", "Commits, stops and restarts")
    assert [name for name in OF_JOBS if shown(name, getattr(limits, name)) not in text] == []


def shown(name: str, value: float) -> str:
    """Format a limit as in the table."""
    if "_S_" in name:
        return f"{value:g} s"
    if "BYTES" not in name or value % limits.KIB:
        return f"{value:,}"
    unit, scale = max((u for u in UNITS.items() if u[1] <= value), key=lambda u: u[1])
    return f"{value // scale} {unit}"


def test_the_documented_phases_match_the_code() -> None:
    listed = rows("shutdown.md", "The phases")
    assert [code(row[0]) for row in listed] == [phase.label for phase in DUE_SHARE]
    assert [row[2] for row in listed] == [f"{share * 25:g} s" for share in DUE_SHARE.values()]
    assert [row[3] for row in listed] == [
        f"continues with {NEXT_IF_LATE[phase].label}" for phase in DUE_SHARE
    ]
    assert [Phase.RUNNING, *DUE_SHARE, Phase.STOPPED] == list(Phase)


def test_the_documented_exit_codes_match_the_code() -> None:
    listed = [int(code) for row in rows("shutdown.md", "Exit codes") for code in row[0].split(",")]
    of_errors = {
        each.exit_code
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.StreamKitError)
    }
    of_signals = {EXIT_SIGNAL_BASE + 2, EXIT_SIGNAL_BASE + 15}
    of_stopping = {EXIT_CLEAN, EXIT_FAILED, EXIT_LATE, EXIT_CRASH_LOOP}
    assert listed == sorted(of_errors | of_stopping | of_signals)


def test_every_setting_is_documented() -> None:
    listed = {code(row[0]).partition(".")[0] for row in rows("settings.md", "Settings of a job")}
    assert set(KEYS) <= listed


def test_every_command_that_a_page_names_exists() -> None:
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for name in re.findall(r"`streamkit ([a-z]+)\b", page.read_text()):
            assert name in COMMANDS, f"{page.name} names {name!r}"


def test_every_file_of_the_broker_is_documented() -> None:
    listed = {code(cell) for row in rows("broker.md", "Files on disk") for cell in row[:1]}
    folder = DataFolder(Path("x"))
    known = (folder.journal, folder.consumer_offsets, folder.messages, folder.attach_socket)
    assert {path.name for path in known if path is not None} <= listed
    assert any(each.startswith(f"{folder.logs.name}/") for each in listed)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("FRAME_BYTES_MAX", 128 * limits.MIB, "128 MiB"),
        ("IDLE_S_MAX", 600.0, "600 s"),
        ("STRING_BYTES_MAX", 32_767, "32,767"),
    ],
)
def test_a_limit_is_shown_with_its_unit(name: str, value: float, text: str) -> None:
    assert shown(name, value) == text
