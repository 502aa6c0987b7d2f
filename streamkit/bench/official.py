"""The official Python client as a baseline. It runs in a separate process and environment."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streamkit.bench.result import Timing
from streamkit.errors import ConfigError

PYTHON_VARIABLE: Final = "STREAMKIT_PEER_PYTHON"
MISSING: Final = (
    "no baseline: the official Fluvio client is missing. It needs a separate environment: use "
    f"`scripts/bench`, or install fluvio==0.21.0 and set {PYTHON_VARIABLE} to its Python"
)
_SCRIPT = Path(__file__).with_name("official_client.py")
_ANSWER_S_MAX = 900.0


@dataclass(frozen=True, slots=True)
class OfficialClient:
    """A Python interpreter with the official client, and the profile of the broker to use."""

    python: str
    profile: Path

    def run(self, work: str, **arguments: Any) -> dict[str, Any]:
        """Run a function of `official_client.py`; return the JSON that it prints.

        Raises:
            ConfigError: It failed; the message shows the last line of its error output.
        """
        environment = {**os.environ, "FLV_PROFILE_PATH": str(self.profile)}
        try:
            done = subprocess.run(
                [self.python, str(_SCRIPT), json.dumps({"work": work, **arguments})],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_ANSWER_S_MAX,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"the official client: {error}", hint=MISSING) from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it printed no message"])[-1]
            raise ConfigError(f"the official client failed: {last}", hint=MISSING)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def find_official_client(profile: Path) -> OfficialClient | None:
    """Return the official client of STREAMKIT_PEER_PYTHON; None if the variable is not set."""
    python = os.environ.get(PYTHON_VARIABLE)
    return OfficialClient(python, profile) if python else None


def timing_of(answer: dict[str, Any]) -> Timing:
    """Return the timing in an answer."""
    return Timing(answer["seconds"], answer["records"], answer["cpu_s"])
