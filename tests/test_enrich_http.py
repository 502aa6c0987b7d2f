"""The example writes the records of an independent computation, before and after a replay."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import HeldPort

EXAMPLE = Path(__file__).parent.parent / "examples" / "enrich_http"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Observed:
    """The commands that ``run.py`` has run, with their output, and the folder with the data."""

    outputs: list[tuple[str, str]]
    data: Path

    def outputs_of(self, start: str) -> list[str]:
        """Return the outputs of the commands that begin like this, in order."""
        return [output for command, output in self.outputs if command.startswith(start)]

    def streamkit(self, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "streamkit", *arguments, "--embedded"],
            cwd=EXAMPLE,
            env={**os.environ, "STREAMKIT_DATA_DIR": str(self.data)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    data = tmp_path_factory.mktemp("enrich-http") / "data"
    with HeldPort() as port:
        done = subprocess.run(
            [sys.executable, EXAMPLE / "run.py", data],
            env={**os.environ, "CUSTOMERS_URL": f"http://{port.address}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stdout
    text = done.stdout.replace(port.address, "127.0.0.1:8400")
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.M)
    return Observed(commands, data)


@pytest.fixture(scope="module")
def enriched(observed: Observed) -> Rows:
    lines = observed.streamkit("consume", "orders-enriched", "-B", "-d").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def expected() -> Any:
    example = runpy.run_path(str(EXAMPLE / "expected.py"))
    return example["outcome"](*example["orders_and_customers"]())


def by_number(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: int(row["order"]))


def test_the_script_runs_commands_of_the_readme(observed: Observed) -> None:
    text = (EXAMPLE / "README.md").read_text()
    assert len(observed.outputs) == 9
    for command, _ in observed.outputs:
        assert f"\n{command}\n" in text or f"`{command}`" in text, command


def test_the_job_waits_until_the_service_is_up(observed: Observed) -> None:
    (before,) = observed.outputs_of("streamkit run")
    (after,) = observed.outputs_of("python service.py")
    assert "the circuit is open after 20 failures in a row" in before
    assert "the circuit is closed: a call has succeeded" in after


def test_the_first_run_enriches_all_orders_except_those_of_damaged_customers(
    enriched: Rows, expected: Any
) -> None:
    assert by_number(enriched[: len(expected.enriched)]) == expected.enriched


def test_the_other_orders_are_dead_letters_until_they_are_replayed(
    observed: Observed, expected: Any
) -> None:
    before, after = observed.outputs_of("streamkit dlq count")
    assert before.startswith(f"{len(expected.enriched_by_replay)} dead letters waiting")
    assert after.startswith("0 dead letters waiting")


def test_a_dead_letter_shows_the_error_and_the_order(observed: Observed) -> None:
    (shown,) = observed.outputs_of("streamkit dlq show")
    assert "HTTPStatusError: Server error '500 Internal Server Error'" in shown
    assert re.search(r'"customer": "C10\d"', shown)
    assert "response.raise_for_status()" in shown


def test_a_replay_after_the_repair_enriches_the_other_orders(enriched: Rows, expected: Any) -> None:
    assert by_number(enriched[len(expected.enriched) :]) == expected.enriched_by_replay


def test_the_service_gets_the_computed_requests(observed: Observed, expected: Any) -> None:
    (output,) = observed.outputs_of("curl http")
    requests = json.loads(output)
    for kind in ("unavailable", "late"):
        assert requests[kind] == expected.requests[kind]
    for kind in ("ok", "slow"):  # on a busy machine the job may not have waited for some of them
        assert requests[kind] >= expected.requests[kind]
    # The 20 calls that open the circuit count as attempts, and those of an open circuit do not.
    assert abs(requests["failed"] - expected.requests["failed"]) <= 20


def test_a_second_run_has_nothing_left_to_do(observed: Observed) -> None:
    report = observed.streamkit("run", "enrich.py", "--once", "--json").splitlines()[-1]
    assert json.loads(report)["records_in"] == json.loads(report)["records_out"] == 0


def test_the_readme_has_the_computed_numbers(expected: Any) -> None:
    text = (EXAMPLE / "README.md").read_text()
    counts = expected.counts
    assert f"| in total | {counts['orders']:,} |" in text
    assert f"| enriched by the first run | {counts['enriched']:,} |" in text
    assert f"**{counts['dead_letters']:,}**" in text
    assert f"about {counts['requests']['requests']:,} requests" in text
    for kind, count in counts["requests"].items():
        assert kind == "requests" or f"{count:,} |" in text, kind
