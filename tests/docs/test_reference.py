"""The API page lists every public name, and only existing members."""

from __future__ import annotations

import re
from importlib import import_module
from typing import get_args

import pytest

import streamkit
from streamkit import aggregates, client, errors, formats, run, sync, windows
from tests.docs.pages import ROOT

TEXT = (ROOT / "docs" / "api.md").read_text()
ENTRIES = re.findall(r"^::: (streamkit[\w.]*)$", TEXT, re.MULTILINE)
MEMBERS = [
    (path, name)
    for path, names in re.findall(
        r"^::: (streamkit[\w.]*)\n {4}options:\n {6}members: \[(.*)\]", TEXT, re.MULTILINE
    )
    for name in re.split(r",\s*", names)
]


def found(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("path", ENTRIES)
def test_every_entry_names_an_existing_object(path: str) -> None:
    assert found(path) is not None


def test_every_listed_member_exists() -> None:
    assert [f"{path}.{name}" for path, name in MEMBERS if not hasattr(found(path), name)] == []


def test_both_clients_list_the_same_methods() -> None:
    listed = {path: {name for each, name in MEMBERS if each == path} for path, _ in MEMBERS}
    for name in ("Client", "Producer"):
        only_sync = {"close"} if name == "Client" else {"metrics"}
        assert listed[f"streamkit.sync.{name}"] - only_sync == listed[f"streamkit.client.{name}"]


def test_every_public_name_has_an_entry() -> None:
    shown = [found(path) for path in ENTRIES]
    public = [
        (module.__name__, name)
        for module in (streamkit, client, formats, sync)
        for name in module.__all__
        if not any(getattr(module, name) is each for each in shown)
    ]
    assert public == []


def test_every_window_and_every_aggregator_has_an_entry() -> None:
    public = {f"streamkit.windows.{each.__name__}" for each in get_args(windows.AnyWindow)}
    public |= {
        f"streamkit.aggregates.{each.__name__}"
        for each in aggregates.Aggregator.__subclasses__()
        if each.__module__ == aggregates.__name__
    }
    assert public <= set(ENTRIES)


def test_every_option_of_a_run_is_documented() -> None:
    assert "streamkit.run.RunKeywords" in ENTRIES
    for name in run.RunKeywords.__annotations__:
        assert f" {name}: " in (run.RunKeywords.__doc__ or ""), name


def test_every_public_error_has_a_docstring() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    ours = [each for each in classes if each.__module__ == errors.__name__]
    assert [each.__name__ for each in ours if not each.__doc__] == []
