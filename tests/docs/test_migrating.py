"""The page "From the official client" lists every call, and names only existing ones."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest

import streamkit
import streamkit.client
from streamkit import errors, sync
from tests.docs.pages import ROOT
from tests.docs.test_lists import section

PAGE: Final = "migrating.md"
DIFFERENCES: Final = ROOT / "tests" / "peers" / "test_python_differences.py"
# Prints the names of all methods of the official client, without inherited ones.
OFFICIAL_NAMES: Final = """
import inspect, json, fluvio
from fluvio import specs

names = set()
for module in (fluvio, specs):
    for name, kind in vars(module).items():
        if not name.startswith("_") and inspect.isclass(kind):
            calls = {each for each in vars(kind) if callable(getattr(kind, each, None))}
            names |= {each for each in calls if each[0].islower()}
print(json.dumps(sorted(names)))
"""
# Placeholders and Python keywords in the streamkit column.
PLACEHOLDERS: Final = {
    *("name", "host", "port", "address", "path", "topic", "n", "config", "event", "id"),
    *("await", "async", "for", "in", "is", "not", "with", "None", "True", "timedelta"),
    *(
        "streamkit",
        "client",
        "producer",
        "consumer",
        "record",
        "handle",
        "seconds",
        "text",
        "admin",
    ),
    "use_spu_local_address",  # a key of the profile
}


def table(title: str) -> list[list[str]]:
    """Return the cells of all tables under a heading, without their headers."""
    lines = section(PAGE, title).splitlines()
    headers = {at - 1 for at, line in enumerate(lines) if line.startswith("|---")}
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for at, line in enumerate(lines)
        if line.startswith("|") and not line.startswith("|---") and at not in headers
    ]


@pytest.mark.parametrize(
    ("title", "columns"),
    [("Call by call", 2), ("What behaves differently", 3), ("Defaults", 3), ("From Node", 2)],
)
def test_every_row_has_all_its_cells(title: str, columns: int) -> None:
    assert all(len(row) == columns for row in table(title))


@pytest.mark.peers
def test_every_call_of_the_official_client_is_on_the_page(peer_python: str) -> None:
    out = subprocess.run(
        [peer_python, "-c", OFFICIAL_NAMES], capture_output=True, text=True, check=True
    ).stdout
    page = (ROOT / "docs" / PAGE).read_text()
    missing = {name for name in json.loads(out) if not re.search(rf"\b{re.escape(name)}\b", page)}
    assert not missing


def test_every_name_of_streamkit_on_the_page_exists() -> None:
    unknown = set(names_on_page()) - names_of_streamkit() - PLACEHOLDERS
    assert not unknown


def names_on_page() -> Iterator[str]:
    """Yield the identifiers in the second column of the tables of calls."""
    for title in ("Call by call", "From Node"):
        for row in table(title):
            for code in re.findall(r"`([^`]+)`", row[1]):
                yield from re.findall(r"\b[A-Za-z_]\w*", re.sub(r'b?"[^"]*"', "", code))


def names_of_streamkit() -> set[str]:
    kinds: list[Any] = [errors.BrokerError, errors.OffsetEvicted]
    kinds += [
        value
        for module in (streamkit, streamkit.client, sync)
        for value in (getattr(module, name) for name in module.__all__)
        if inspect.isclass(value)
    ]
    names = {kind.__name__ for kind in kinds} | set(vars(errors))
    for kind in kinds:
        names |= set(dir(kind)) | set(getattr(kind, "__annotations__", ()))
        for method in vars(kind).values():
            function = getattr(method, "__func__", method)
            if inspect.isfunction(function):
                names |= set(inspect.signature(function).parameters)
    return names


def test_the_documented_defaults_equal_the_code() -> None:
    defaults = {
        name: parameter.default
        for call in (streamkit.Client.producer, streamkit.Client.consumer)
        for name, parameter in inspect.signature(call).parameters.items()
    }
    shown = {row[0].strip("`"): row[2] for row in table("Defaults")}
    checked = {name: text for name, text in shown.items() if name in defaults}
    assert len(checked) >= 13
    for name, text in checked.items():
        assert text in spellings(defaults[name]), name
    assert f"{defaults['queue_bytes'] >> 20} MiB" in shown["queue of a partition"]


def spellings(default: object) -> set[str]:
    """Return the texts by which the page may show a default."""
    match default:
        case None:
            return {"all", "the topic's", "the same"}
        case str():
            return {default, default.replace("_", " "), default.replace("-", " ")}
        case int() | float():
            return {f"{default:,} bytes", f"{default:g} s", f"{int(default) >> 20} MiB"}
        case _:
            return {str(default)}


def test_every_difference_has_a_test() -> None:
    module = ast.parse(DIFFERENCES.read_text())
    tests = [
        each.name
        for each in module.body
        if isinstance(each, ast.AsyncFunctionDef) and each.name.startswith("test_")
    ]
    # The test about SmartModules belongs to a row of the table of calls.
    assert len(table("What behaves differently")) == len(tests) - 1
