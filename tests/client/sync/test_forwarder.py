"""Records that the sync producer forwards to the async one, and the results of their handles."""

from __future__ import annotations

import threading

import anyio
import pytest

from streamkit.client import RecordsMetadata
from streamkit.errors import NotFlushed, RequestTimedOut, UsageError
from streamkit.protocol.batch import Columns
from streamkit.sync.forwarding import Forwarder
from streamkit.sync.send_batch import SendBatch, send_batches_of
from tests.client.scripted import Write
from tests.client.test_faults_scripted import NOT_THE_LEADER, scripted


class Owner:
    """The owner of a batch whose outcomes are all known before anything waits for them."""

    def watch(self, batch: SendBatch, row: int, known: threading.Event) -> None:
        raise AssertionError(f"the outcome of row {row} is not known")

    def outcome_of(self, batch: SendBatch) -> RecordsMetadata:
        raise AssertionError("not called in this test")


@pytest.mark.parametrize("response", [NOT_THE_LEADER, Write(56, stores=True)])
async def test_a_record_accepted_before_the_producer_stopped_keeps_its_own_outcome(
    response: Write,
) -> None:
    """The producer has room for two of four records, and is stopped while the others wait."""
    async with scripted() as (server, client):
        server.writes.extend([response] * 100_000)
        is_retrying = anyio.Event()
        producer = client.producer(
            "t",
            batch_size=100,
            queue_bytes=200,
            delivery_timeout=None,
            on_retry=lambda error, attempt: is_retrying.set(),
        )
        await producer.open()
        columns = Columns([bytes(100)] * 4, [None] * 4, [0] * 4)
        (batch,) = send_batches_of(columns, 1_000, Owner())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Forwarder(producer).forward, batch)
            await is_retrying.wait()
            assert producer.unacknowledged == 2
            producer.stop()
    for row in (0, 1):
        with pytest.raises((NotFlushed, RequestTimedOut)):
            batch.wait_for_row(row)
    for row in (2, 3):
        with pytest.raises(UsageError, match="is closed"):
            batch.wait_for_row(row)
