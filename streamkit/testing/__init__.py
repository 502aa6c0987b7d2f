"""Helpers for unit tests of stages, and checks for connectors."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from streamkit.dataflow.context import Context
from streamkit.testing.conformance.rules import RuleBroken
from streamkit.testing.connectors import check_lookup_table, check_sink, check_source

K = TypeVar("K")


@overload
def context(
    *,
    topic: str = "test",
    partition: int = 0,
    offset: int = 0,
    timestamp_ms: int = 0,
) -> Context[None]: ...
@overload
def context(
    *,
    key: K,
    topic: str = "test",
    partition: int = 0,
    offset: int = 0,
    timestamp_ms: int = 0,
) -> Context[K]: ...
def context(
    *,
    key: Any = None,
    topic: str = "test",
    partition: int = 0,
    offset: int = 0,
    timestamp_ms: int = 0,
) -> Context[Any]:
    """Create a `Context` to call a stage in a unit test."""
    return Context(topic, partition, offset, key, timestamp_ms)


__all__ = ["RuleBroken", "check_lookup_table", "check_sink", "check_source", "context"]
