"""`window-many-keys`: the benchmark `window` with a million keys."""

from __future__ import annotations

from typing import Final

from streamkit.bench.result import Result, Scale
from streamkit.bench.window import measure

KEYS: Final = 1_000_000


def run(scale: Scale) -> Result:
    return measure("window-many-keys", KEYS, scale)
