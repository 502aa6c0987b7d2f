"""How many cases a test tries in the quick and in the deep test run."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings

from tests.conftest import IS_DEEP

# Parameters of a fixture `anyio_backend`, for tests that do not depend on the event loop.
ANY_LOOP: Final = ["asyncio", pytest.param("trio", marks=pytest.mark.deep)]


def examples(count: int) -> settings:
    """Try ``count`` examples in the quick test run, and the default number in the deep one."""
    return settings() if IS_DEEP else settings(max_examples=count)
