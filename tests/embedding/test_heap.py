"""A run leaves what was loaded before it out of garbage collections, and undoes that at its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit import App


def frozen_during_a_run(folder: Path, *, fails: bool = False) -> list[int]:
    """Return how many objects were frozen while a job ran."""
    app = App("heap")
    found: list[int] = []

    @app.source
    def numbers() -> Iterator[int]:
        yield 1

    @app.sink(numbers)
    def note(number: int) -> None:
        found.append(gc.get_freeze_count())
        if fails:
            raise ValueError("no")

    assert app.run(once=True, data_dir=folder) == (1 if fails else 0)
    return found


@pytest.mark.parametrize("fails", [False, True])
def test_objects_are_frozen_only_while_a_job_runs(tmp_path: Path, fails: bool) -> None:
    before = gc.get_freeze_count()
    assert frozen_during_a_run(tmp_path, fails=fails)[0] > 10_000
    assert gc.get_freeze_count() <= before


def test_what_a_program_has_frozen_stays_frozen(tmp_path: Path) -> None:
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        frozen_during_a_run(tmp_path)
        assert gc.get_freeze_count() > before // 2  # some are freed meanwhile
    finally:
        gc.unfreeze()
