"""A broker for each test that uses the fixture, in this process, on free ports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamkit.broker.broker import Broker
from tests.broker.running import running


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the broker supports only asyncio, because it uses its transports directly


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running(tmp_path) as broker:
        yield broker
