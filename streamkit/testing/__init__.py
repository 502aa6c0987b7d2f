"""Helpers for tests of one's own stages."""

from __future__ import annotations

from streamkit.dataflow.context import Context


def context(
    *,
    key: object = None,
    topic: str = "test",
    partition: int = 0,
    offset: int = 0,
    timestamp_ms: int = 0,
) -> Context[object]:
    """Make a `Context` for calling a stage in a unit test."""
    return Context(topic, partition, offset, key, timestamp_ms)
