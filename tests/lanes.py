"""How much a test does in each lane."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings

from tests.conftest import IS_DEEP

# Params of a fixture `anyio_backend`, for files whose tests prove the same on any loop.
ANY_LOOP: Final = ["asyncio", pytest.param("trio", marks=pytest.mark.deep)]


def examples(count: int) -> settings:
    """Try so many examples in the quick lane, and in the deep one as many as any test there."""
    return settings() if IS_DEEP else settings(max_examples=count)
