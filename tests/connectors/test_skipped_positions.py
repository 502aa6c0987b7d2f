"""Positions of a source that change without rows are committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from streamkit import App
from streamkit.connectors import Chunk, Positions, SourceFacts
from tests.testing.toy_source import ListReader, Lists


class WithMarkers(ListReader):
    """A list whose last two items are markers, which are not rows."""

    opened_with: ClassVar[Positions] = {}

    async def open(self, committed: Positions) -> SourceFacts:
        WithMarkers.opened_with = dict(committed)
        self.is_done = False
        return await super().open(committed)

    async def part(self, number: int) -> Chunk | None:
        found = await super().part(number)
        return found if found is None or found.offsets[0] < 2 else None

    def position_after(self, chunk: Chunk) -> tuple[str, str]:
        self.is_done = chunk.offsets[-1] == 1
        return super().position_after(chunk)

    def skipped_positions(self) -> Positions:
        return {"0": json.dumps(4)} if self.is_done else {}


def test_a_position_that_changes_without_rows_is_committed(tmp_path: Path) -> None:
    app = App("skips")
    source = Lists(((b"1", b"2", b"marker", b"marker"),), rows=2, reader_class=WithMarkers)
    app.stream(source, bytes).to("copied")
    for committed in ({}, {"0": "4"}):
        assert app.run(embedded=True, once=True, data_dir=tmp_path / "data") == 0
        assert WithMarkers.opened_with == committed
