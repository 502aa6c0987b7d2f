"""A test may be skipped only for a listed reason; otherwise it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import NO_PEER
from tests.inner_pytest import run_tests

SKIPS_ITSELF = """
import pytest

def test_skips_itself():
    pytest.skip({reason!r})
"""
SKIPS_ITS_MODULE = """
import pytest

pytest.skip({reason!r}, allow_module_level=True)
"""
TALKS_TO_A_PEER = """
import pytest

@pytest.mark.peers
def test_talks_to_a_peer(peer_python):
    assert peer_python == "there"
"""
TALKS_TO_NODE = """
import pytest

@pytest.mark.peers("node")
def test_talks_to_a_peer(peer_node):
    assert peer_node.name == "there"
"""


def run(folder: Path, source: str, **variables: str) -> str:
    """Run one test file under our conftest and return pytest's last line."""
    return run_tests(folder, source, **variables).splitlines()[-1]


@pytest.mark.parametrize("source", [SKIPS_ITSELF, SKIPS_ITS_MODULE])
def test_a_listed_skip_reason_is_accepted(tmp_path: Path, source: str) -> None:
    assert "1 skipped" in run(tmp_path, source.format(reason=f"{NO_PEER}: none here"))


@pytest.mark.parametrize(
    ("source", "outcome"), [(SKIPS_ITSELF, "1 failed"), (SKIPS_ITS_MODULE, "1 error")]
)
def test_an_unlisted_skip_reason_is_an_error(tmp_path: Path, source: str, outcome: str) -> None:
    assert outcome in run(tmp_path, source.format(reason="no time today"))


@pytest.mark.parametrize(
    ("source", "variable", "other"),
    [
        (TALKS_TO_A_PEER, "STREAMKIT_PEER_PYTHON", "STREAMKIT_PEER_NODE"),
        (TALKS_TO_NODE, "STREAMKIT_PEER_NODE", "STREAMKIT_PEER_PYTHON"),
    ],
)
def test_a_peer_test_runs_only_if_its_peer_is_installed(
    tmp_path: Path, source: str, variable: str, other: str
) -> None:
    assert "1 skipped" in run(tmp_path, source)
    assert "1 skipped" in run(tmp_path, source, **{other: "there"})
    assert "1 passed" in run(tmp_path, source, **{variable: "there"})
