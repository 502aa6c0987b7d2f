"""The connectors use the sockets of asyncio, so their tests run in its event loop."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
