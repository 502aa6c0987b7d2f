"""How much a test does in each lane."""

from __future__ import annotations

from hypothesis import settings

from tests.conftest import IS_DEEP


def examples(count: int) -> settings:
    """Try so many examples in the quick lane, and in the deep one as many as any test there."""
    return settings() if IS_DEEP else settings(max_examples=count)
