"""Looks each row up over HTTP and posts it by key, with retries; puts aside what is refused.

``SERVICE`` is the URL of the service of `tests.http_service`. Each row that is posted is written to
the file ``posted`` when the service has accepted it.
"""

import os
from collections.abc import AsyncIterator

import httpx2
import msgspec

from streamkit import App, Context, Topic
from streamkit.policies import dead_letter, retry
from tests.stop.jobs.aim import passing

app = App("calling")
_SERVICE = os.environ["SERVICE"]
_TIMEOUT_S = float(os.environ.get("CALL_TIMEOUT_S", "0.4"))
_DELAY_S = float(os.environ.get("DELAY_S", "0.02"))
_OPEN_AFTER = int(os.environ.get("OPEN_AFTER", "0")) or None
_ATTEMPTS = int(os.environ.get("ATTEMPTS", "50"))

_FILE = os.open("posted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_clients: list[httpx2.AsyncClient] = []


class Numbered(msgspec.Struct):
    lane: int
    number: int


class Refused(Exception):
    """The service refuses this row, now and later."""


TRANSIENT = (httpx2.HTTPError, TimeoutError, ValueError)
AGAIN = retry(_ATTEMPTS, delay=_DELAY_S, max_delay=1, on=TRANSIENT, open_circuit_after=_OPEN_AFTER)


@app.lifespan
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx2.AsyncClient(
        base_url=_SERVICE, limits=limits, timeout=None, trust_env=False
    ) as opened:
        _clients.append(opened)
        yield opened


@app.source("numbers")
def numbers(row: Numbered) -> Numbered:
    return row


@app.stage(
    numbers,
    concurrency=32,
    ordered="key",
    timeout=_TIMEOUT_S,
    on_error=AGAIN.then(dead_letter("refused")),
)
async def looked_up(row: Numbered, context: Context[bytes]) -> Numbered:
    passing("look up")
    found = await context.lifespan.get(f"/customers/{row.lane}-{row.number}")
    if found.status_code == 404:
        raise Refused(f"no customer {row.lane}-{row.number}")
    found.raise_for_status()
    assert found.json()["id"] == f"{row.lane}-{row.number}"
    return row


@app.sink(looked_up, to=Topic("copies", Numbered, partitions=3))
def copies(row: Numbered) -> Numbered:
    return row


@app.sink(looked_up, concurrency=8, ordered="key", timeout=_TIMEOUT_S, on_error=AGAIN)
async def posted(row: Numbered) -> None:
    passing("post")
    name = f"{row.lane}-{row.number}"
    (opened,) = _clients
    answer = await opened.post(f"/rows/p-{name}", json={"id": name})
    answer.raise_for_status()
    line = msgspec.json.encode(row) + b"\n"
    os.write(_FILE, line)
