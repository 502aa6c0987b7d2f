"""The page about connectors lists the rules that are checked."""

from __future__ import annotations

import pytest

from streamkit.testing.conformance.rules import LOOKUP_RULES, SINK_RULES, SOURCE_RULES, Rule
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "connectors.md").read_text()
KITS = [SOURCE_RULES, SINK_RULES, LOOKUP_RULES]


@pytest.mark.parametrize("rules", KITS, ids=["sources", "sinks", "tables"])
def test_the_page_lists_every_rule(rules: tuple[Rule, ...]) -> None:
    rows = [f"| {each.name} | {each.text} |" for each in rules]
    assert "|---|---|\n" + "\n".join(rows) + "\n\n" in PAGE


@pytest.mark.parametrize("rules", KITS, ids=["sources", "sinks", "tables"])
def test_every_rule_has_its_own_name_and_a_hint(rules: tuple[Rule, ...]) -> None:
    assert len({each.name for each in rules}) == len(rules)
    assert all(each.hint for each in rules)
