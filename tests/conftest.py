"""Rules for every test: allowed skips, no user settings, fixed seeds, nothing left open."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests.leftovers import no_process_is_left, nothing_is_left_open
from tests.mariadb.fixtures import mariadb, new_mariadb_database
from tests.postgres.fixtures import new_database, postgres
from tests.small_disk import small_disk

# Fixtures; the first two are used for every test.
__all__ = [  # noqa: RUF022
    "no_process_is_left",
    "nothing_is_left_open",
    "mariadb",
    "new_database",
    "new_mariadb_database",
    "postgres",
    "small_disk",
]

# The allowed reasons to skip a test. A reason starts with one of these, and details may follow; a
# skip for any other reason fails. `scripts/test` installs what is missing where possible.
SKIP_REASONS: Final = (
    "needs the official Fluvio client: STREAMKIT_PEER_PYTHON names no Python",
    "needs Node and its package @fluvio/client",
    "needs a C compiler",
    "needs strace",
    "needs root to mount a small file system",
    "needs a user other than root",
    "needs a browser",
    "needs PostgreSQL",
    "needs Apache Kafka",
    "needs MariaDB",
    "needs PgBouncer",
    "needs the npm package azurite",
    "needs an optional package",
    "needs Linux",
)
NO_PEER: Final = SKIP_REASONS[0]
NO_AZURITE: Final = "needs the npm package azurite: STREAMKIT_TEST_AZURITE names no folder"
# What a test marked `peers` needs, by the marker's argument: `peers` alone is `peers("python")`.
PEERS: Final = {
    "python": ("STREAMKIT_PEER_PYTHON", NO_PEER),
    "node": ("STREAMKIT_PEER_NODE", f"{SKIP_REASONS[1]}: STREAMKIT_PEER_NODE names no folder"),
}

IS_DEEP: Final = os.environ.get("STREAMKIT_TEST_LANE") == "deep"

settings.register_profile("quick", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=2_000, deadline=None, print_blob=True)
settings.load_profile("deep" if IS_DEEP else "quick")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes that are not text by their number: those of gzip contain the time.

    Tests whose names depend on the time cannot be divided between processes.
    """
    if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()):
        return f"{len(val)}-bytes"
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_unlisted_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_unlisted_skip(report)
    return report


def fail_unlisted_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure if its reason is not on the list."""
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    assert isinstance(report.longrepr, tuple), "pytest gives a skip as (path, line, reason)"
    path, line, text = report.longrepr
    reason = str(text).removeprefix("Skipped: ")
    if not reason.startswith(SKIP_REASONS):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: skipped for a reason that is not listed: {reason}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("peers")
    for peer in (marker.args or ("python",)) if marker else ():
        variable, reason = PEERS[peer]
        if not os.environ.get(variable):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def peer_python() -> str:
    """The Python with the official client; for tests marked ``peers``."""
    return os.environ["STREAMKIT_PEER_PYTHON"]


@pytest.fixture(scope="session")
def peer_node() -> Path:
    """The folder with the official client for Node; for tests marked ``peers("node")``."""
    return Path(os.environ["STREAMKIT_PEER_NODE"])


@pytest.fixture(scope="session")
def is_deep() -> bool:
    """Whether this is the deep test run, which uses larger counts."""
    return IS_DEEP


@pytest.fixture(scope="session", autouse=True)
def stop_signals_are_not_ignored() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM reach the tests and the processes they start.

    A process started with ``&`` in a script ignores SIGINT, and its children inherit this. A
    signal that is handled here is not ignored in the children.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    ignored = [each for each in numbers if signal.getsignal(each) is signal.SIG_IGN]
    for number in ignored:
        is_interrupt = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the clusters and settings of the user who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STREAMKIT_CLUSTER", raising=False)
        patch.setenv("FLV_PROFILE_PATH", str(tmp_path_factory.mktemp("fluvio") / "no-profile"))
        yield
